"""Long prefixes and a long life: memory that grows only where it must, recall at every border between chunks."""

from __future__ import annotations

from dataclasses import replace

import mlx.core as mx
import pytest
from tiny import FULL, SLIDING, denoised, random_model, tiny_config

from mlx_diffgemma.generation import prefill as prefix
from mlx_diffgemma.generation.prefill import prefill
from mlx_diffgemma.model.cache import BUFFER_STEP
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma

LENGTH = 32_768
ONE = replace(SLIDING, num_key_value_heads=1), FULL


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    """A sliding and a full layer of one head each."""
    return random_model(tiny_config(layers=ONE, num_attention_heads=1, max_position_embeddings=40_000))


def ids(length: int) -> mx.array:
    return mx.random.randint(0, 64, (1, length), key=mx.random.key(length))


def test_a_prefix_of_32k_tokens_grows_the_cache_of_full_layers_alone(model: DiffusionGemma) -> None:
    cache, held = model.make_cache(), {}
    for reached in prefill(model, [ids(LENGTH)], [cache]):
        held[reached[0]] = [layer.nbytes for layer in cache.layers]
    per_token = 2 * 16 * 4  # keys and values, head_dim 16, float32
    sliding, full = cache.layers
    assert cache.offset == full.length == LENGTH
    assert sliding.length == 7
    assert full.nbytes <= per_token * (LENGTH + BUFFER_STEP)
    longest_chunk = 2048
    assert max(sizes[0] for sizes in held.values()) <= 2 * 8 * 4 * (longest_chunk + 7 + BUFFER_STEP)
    chunks = [after - before for before, after in zip([0, *held], held, strict=False)]
    assert chunks[0] == longest_chunk
    assert min(chunks[:-1]) == 256
    # A chunk's queries times what they see of the prefix stays bounded.
    assert all(chunk * done <= prefix.ATTENTION_CELLS or chunk == 256 for chunk, done in zip(chunks, held, strict=True))


def test_a_canvas_behind_32k_tokens_is_denoised_without_a_copy_of_them(model: DiffusionGemma) -> None:
    cache = model.make_cache()
    for _ in prefill(model, [ids(LENGTH)], [cache]):
        pass
    canvas = ids(16)
    mx.eval(canvas, denoised(model, canvas, cache))
    full = cache.layers[1].nbytes
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(denoised(model, canvas, cache))
    scores = 16 * (LENGTH + 16) * 4
    # The scores of one head, their exponentials and what these are computed from; the prefix itself is `full` bytes.
    assert mx.get_peak_memory() - before < 8 * scores
    assert mx.get_active_memory() - before < full / 20


@pytest.mark.parametrize("chunk", [256, 512])
def test_a_fact_is_recalled_wherever_it_stands_in_a_chunk(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token differs: the canvas's logits change, and as they do where the prefix goes in at once.

    Around the borders of chunks, where a mask or a window that is off by one would show.
    """
    model = random_model(tiny_config(max_position_embeddings=2048))
    tokens, canvas = ids(1200), ids(16)
    places = [border + offset for border in (256, 512, 1024) for offset in (-8, -1, 0, 1)]

    def logits(prompt: mx.array, cells: int) -> mx.array:
        monkeypatch.setattr(prefix, "ATTENTION_CELLS", cells)
        cache = model.make_cache()
        for _ in prefill(model, [prompt], [cache]):
            pass
        return denoised(model, canvas, cache)

    unchanged = logits(tokens, 2**40)
    for place in places:
        changed = mx.where(mx.arange(1200) == place, (tokens + 1) % 64, tokens)
        whole, cut = logits(changed, 2**40), logits(changed, chunk * 2048)
        assert mx.abs(whole - unchanged).max().item() > 0.01
        assert mx.abs(whole - cut).max().item() < 1e-3
