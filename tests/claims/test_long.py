"""Long prefixes and a long life: memory that grows only where it must, recall at every border between chunks."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from tiny import FULL, SLIDING, denoised, random_model, tiny_config

from mlx_diffgemma import GenerationConfig, load
from mlx_diffgemma.generation.prefill import prefill
from mlx_diffgemma.model import kernels
from mlx_diffgemma.model.cache import BUFFER_STEP, Cache
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma

LENGTH = 32_768
ONE = replace(SLIDING, num_key_value_heads=1), FULL
CHANGED = [border + offset for border in (256, 512, 1024) for offset in (-8, -1, 0, 1)]
"""Positions around the borders of chunks, where a mask or a window that is off by one would show."""


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    """A sliding and a full layer of one head each."""
    return random_model(tiny_config(layers=ONE, num_attention_heads=1, max_position_embeddings=40_000))


@pytest.fixture(scope="module")
def long_prefix(model: DiffusionGemma) -> tuple[Cache, dict[int, list[int]]]:
    """A cache of 32k tokens, and the bytes of its layers after each chunk by the tokens encoded until then."""
    cache, held = model.make_cache(), {}
    for reached in prefill(model, [ids(LENGTH)], [cache]):
        held[reached[0]] = [layer.nbytes for layer in cache.layers]
    return cache, held


def ids(length: int) -> mx.array:
    return mx.random.randint(0, 64, (1, length), key=mx.random.key(length))


def test_a_prefix_of_32k_tokens_grows_the_cache_of_full_layers_alone(
    long_prefix: tuple[Cache, dict[int, list[int]]],
) -> None:
    cache, held = long_prefix
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
    assert all(
        chunk * done <= kernels.ATTENTION_CELLS or chunk == 256 for chunk, done in zip(chunks, held, strict=True)
    )


def test_a_canvas_behind_32k_tokens_is_denoised_without_a_copy_of_them(
    model: DiffusionGemma, long_prefix: tuple[Cache, dict[int, list[int]]]
) -> None:
    cache, _ = long_prefix
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


class Recall:
    """What a model of both kinds of layers says after a prefix of 1,200 tokens, one of which may be changed."""

    def __init__(self) -> None:
        self.model = random_model(tiny_config(layers=ONE, num_attention_heads=1, max_position_embeddings=2048))
        self.tokens, self.canvas = ids(1200), ids(16)
        self.unchanged = self.logits(None, 2**40)
        self.whole = {position: self.logits(position, 2**40) for position in CHANGED}

    def logits(self, changed: int | None, cells: int) -> mx.array:
        """The canvas's logits after a prefix encoded in chunks of so many cells of attention."""
        places = mx.arange(1200)
        prompt = self.tokens if changed is None else mx.where(places == changed, (self.tokens + 1) % 64, self.tokens)
        cache = self.model.make_cache()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(kernels, "ATTENTION_CELLS", cells)
            for _ in prefill(self.model, [prompt], [cache]):
                pass
        logits = denoised(self.model, self.canvas, cache)
        mx.eval(logits)
        return logits


@pytest.fixture(scope="module")
def recall() -> Recall:
    return Recall()


@pytest.mark.parametrize("chunk", [256, 512])
def test_a_fact_is_recalled_wherever_it_stands_in_a_chunk(recall: Recall, chunk: int) -> None:
    """One token differs: the canvas's logits change, and as they do where the prefix goes in at once."""
    for position in CHANGED:
        whole, cut = recall.whole[position], recall.logits(position, chunk * 2048)
        assert mx.abs(whole - recall.unchanged).max().item() > 5e-3
        assert mx.abs(whole - cut).max().item() < 5e-4


def test_fifty_generations_leave_no_memory_and_no_time_behind(demo: Path) -> None:
    """Prompts and canvases of changing lengths: the shapes that fill an allocator's cache."""
    # Sessions of other tests may still wait to be collected.
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    session = load(demo)
    config = GenerationConfig(max_tokens=12, max_steps=2, seed=1)
    seconds, active = [], []
    for round_ in range(50):
        # Processor time: what else this machine is doing does not count.
        start = time.process_time()
        session.generate("word " * (1 + 7 * (round_ % 10)), replace(config, canvas_length=4 + round_ % 5))
        seconds.append(time.process_time() - start)
        active.append(mx.get_active_memory() + mx.get_cache_memory() - before)
    early, late = sorted(seconds[10:30]), sorted(seconds[30:])
    # The lengths repeat every ten rounds, so both halves did the same work.
    assert late[len(late) // 2] < 1.5 * early[len(early) // 2]
    # A tenth for the allocator's rounding: a leak of one canvas's logits per generation would be twice that.
    assert max(active[40:]) <= max(active[:10]) * 1.1
