"""Properties of the model that hold for any weights: chunks, batches, and what the cache is for."""

from __future__ import annotations

import mlx.core as mx
import pytest
from tiny import denoised, processed, random_model, tiny_config

from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import CanvasRow, DiffusionGemma

CONFIG = tiny_config()
WINDOWS = 3 * CONFIG.sliding_window
# Two float32 sums of the same numbers in another order; values are of order 1 to 10.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return random_model(CONFIG)


def ids(shape: tuple[int, ...], seed: int = 1) -> mx.array:
    return mx.random.randint(0, CONFIG.vocab_size, shape, key=mx.random.key(seed))


def encoded(model: DiffusionGemma, tokens: mx.array, *lengths: int) -> tuple[Cache, mx.array]:
    """The prefix after encoding `tokens` in chunks of these lengths, and all hidden states."""
    cache, start, hidden = model.make_cache(), 0, []
    for length in lengths:
        hidden += model.encode([tokens[:, start : start + length]], [cache])
        start += length
    assert start == tokens.shape[1]
    return cache, mx.concatenate(hidden, axis=1)


def largest_difference(first: mx.array, second: mx.array) -> float:
    assert first.shape == second.shape
    return mx.max(mx.abs(first - second)).item()


@pytest.mark.parametrize("offset", range(1, WINDOWS))
def test_prefill_in_two_chunks_equals_one_piece_wherever_it_is_cut(model: DiffusionGemma, offset: int) -> None:
    tokens, canvas = ids((1, WINDOWS)), ids((1, 16), seed=2)
    whole, hidden = encoded(model, tokens, WINDOWS)
    cut, hidden_cut = encoded(model, tokens, offset, WINDOWS - offset)
    assert largest_difference(hidden, hidden_cut) < TOLERANCE
    for first, second in zip(whole.arrays, cut.arrays, strict=True):
        assert largest_difference(first, second) < TOLERANCE
    assert largest_difference(denoised(model, canvas, whole), denoised(model, canvas, cut)) < TOLERANCE


@pytest.mark.parametrize("chunk", [1, 3, 5, 7, 11])
def test_prefill_in_many_chunks_equals_one_piece(model: DiffusionGemma, chunk: int) -> None:
    tokens = ids((1, WINDOWS))
    rest = WINDOWS % chunk
    whole, hidden = encoded(model, tokens, WINDOWS)
    cut, hidden_cut = encoded(model, tokens, *[chunk] * (WINDOWS // chunk), *([rest] if rest else []))
    assert largest_difference(hidden, hidden_cut) < TOLERANCE
    assert [layer.length for layer in cut.layers] == [layer.length for layer in whole.layers]


def test_a_sliding_window_is_not_the_whole_prefix(model: DiffusionGemma) -> None:
    """Without this the chunk tests could pass with a cache that forgets nothing."""
    whole, _ = encoded(model, ids((1, WINDOWS)), WINDOWS)
    sliding, full = whole.layers[0], whole.layers[1]
    assert (sliding.length, full.length) == (CONFIG.sliding_window - 1, WINDOWS)


def test_rows_of_a_batch_do_not_see_each_other(model: DiffusionGemma) -> None:
    tokens, canvas, signal = ids((3, 11)), ids((3, 16), seed=2), mx.random.normal((3, 16, 32), key=mx.random.key(5))
    together, hidden = encoded(model, tokens, 11)
    logits = denoised(model, canvas, together, signal)
    for row in range(3):
        alone, hidden_alone = encoded(model, tokens[row : row + 1], 11)
        logits_alone = denoised(model, canvas[row : row + 1], alone, signal[row : row + 1])
        assert largest_difference(hidden[row], hidden_alone[0]) < TOLERANCE
        assert largest_difference(logits[row], logits_alone[0]) < TOLERANCE


def test_denoising_leaves_the_cache_as_it_is(model: DiffusionGemma) -> None:
    cache, _ = encoded(model, ids((1, 9)), 9)
    before = [mx.array(array) for array in cache.arrays]
    mx.eval(denoised(model, ids((1, 16)), cache), before)
    assert cache.offset == 9
    assert all(mx.array_equal(now, then) for now, then in zip(cache.arrays, before, strict=True))


def test_every_canvas_position_sees_every_other(model: DiffusionGemma) -> None:
    cache, _ = encoded(model, ids((1, 5)), 5)
    canvas = ids((1, 16))
    changed = mx.where(mx.arange(16) == 15, (canvas + 1) % CONFIG.vocab_size, canvas)
    difference = mx.max(mx.abs(denoised(model, canvas, cache) - denoised(model, changed, cache)), axis=-1)
    assert mx.all(difference > 1e-6).item()


def test_causal_logits_depend_on_nothing_that_follows(model: DiffusionGemma) -> None:
    tokens = ids((1, 12))
    changed = mx.where(mx.arange(12) == 11, (tokens + 1) % CONFIG.vocab_size, tokens)
    first, second = (model.logits(encoded(model, version, 12)[1]) for version in (tokens, changed))
    assert largest_difference(first[:, :11], second[:, :11]) < TOLERANCE
    assert largest_difference(first[:, 11:], second[:, 11:]) > 0.01


def test_a_signal_of_zeros_is_no_signal(model: DiffusionGemma) -> None:
    cache, _ = encoded(model, ids((1, 5)), 5)
    canvas = ids((1, 16))
    assert mx.array_equal(denoised(model, canvas, cache), denoised(model, canvas, cache, mx.zeros((1, 16, 32))))


def test_the_signal_of_the_top_k_approaches_the_exact_one(model: DiffusionGemma) -> None:
    logits = 4 * mx.random.normal((2, 16, CONFIG.vocab_size), key=mx.random.key(3))
    exact = model.signal(processed(logits))
    errors = [largest_difference(model.signal(processed(logits), top_k=k), exact) for k in (4, 16, 64)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < TOLERANCE


def test_features_can_be_placed_among_the_embeddings(model: DiffusionGemma) -> None:
    tokens = ids((1, 9))
    cache, hidden = encoded(model, tokens, 9)
    other = model.make_cache()
    (found,) = model.encode_embeddings([model.embed(tokens)], [other])
    assert largest_difference(found, hidden) < TOLERANCE
    assert other.offset == cache.offset == 9


def test_logits_stay_within_the_softcap(model: DiffusionGemma) -> None:
    loud = random_model(CONFIG)
    loud.model.decoder.norm.weight = loud.model.decoder.norm.weight * 100
    cache, _ = encoded(loud, ids((1, 5)), 5)
    logits = denoised(loud, ids((1, 16)), cache)
    assert logits.dtype == mx.float32
    assert 25 < mx.max(mx.abs(logits)).item() <= CONFIG.final_logit_softcapping


def test_positions_that_go_through_alone_see_the_others_as_they_were(model: DiffusionGemma) -> None:
    cache, _ = encoded(model, ids((1, 11)), 11)
    canvas, signal = ids((1, 16), 2), mx.random.normal((1, 16, 32), key=mx.random.key(3))
    (whole,) = model.denoise([CanvasRow(canvas, cache, signal)])
    places = mx.array([1, 2, 7, 15])
    (some,) = model.denoise([CanvasRow(canvas, cache, signal, places)])
    assert largest_difference(some, whole[:, places]) < 1e-5
    changed = ids((1, 16), 4)
    (new,) = model.denoise([CanvasRow(changed, cache, signal, mx.arange(16))])
    other, _ = encoded(model, ids((1, 11)), 11)
    (expected,) = model.denoise([CanvasRow(changed, other, signal)])
    assert largest_difference(new, expected) < 1e-5
    assert largest_difference(new, whole) > 1e-2


def test_canvases_with_some_of_their_positions_go_through_together(model: DiffusionGemma) -> None:
    """One row with four of its positions, one with all, one with two: each is what it is alone."""
    places = (mx.array([0, 3, 4, 9]), None, mx.array([2, 11]))

    def rows() -> list[CanvasRow]:
        made: list[CanvasRow] = []
        for number, some in enumerate(places):
            cache, _ = encoded(model, ids((1, 5 + 4 * number), number), 5 + 4 * number)
            model.denoise([CanvasRow(ids((1, 16), 10 + number), cache)])
            made.append(CanvasRow(ids((1, 16), 20 + number), cache, None, some))
        return made

    together = model.denoise(rows())
    for row, hidden in zip(rows(), together, strict=True):
        (alone,) = model.denoise([row])
        assert hidden.shape == alone.shape
        assert largest_difference(hidden, alone) < 1e-5
