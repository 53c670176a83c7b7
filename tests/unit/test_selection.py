"""Steps after a canvas's first see the part of a long prefix that the first looked at most."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tiny import FULL, SLIDING, encoded, random_model, tiny_config

from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.cache import Cache, LayerCache
from mlx_diffgemma.model.config import LayerConfig
from mlx_diffgemma.model.diffusion_gemma import CanvasRow, DiffusionGemma
from mlx_diffgemma.model.kernels import CPU_KERNELS, MAX_CHUNK, PLAIN_KERNELS
from mlx_diffgemma.model.selection import Selection, attention_received
from mlx_diffgemma.sampling.canvas import Canvas
from mlx_diffgemma.sampling.denoising import Denoiser
from mlx_diffgemma.sampling.pins import Pins
from mlx_diffgemma.sampling.sampler import Draft, EntropyBoundSampler
from mlx_diffgemma.sampling.strategy import default_rules

CONFIG = GenerationConfig(max_steps=5, stop_tokens=(), confidence_threshold=1e-6)
PREFIX = 50


def random(*shape: int, seed: int = 0) -> mx.array:
    return mx.random.normal(shape, key=mx.random.key(seed))


# the selection


def test_the_positions_are_those_that_all_queries_of_all_heads_look_at_most() -> None:
    queries, keys = random(1, 6, 5, 8), random(1, 2, 40, 8, seed=1)
    selection = Selection(7)
    selection.observer(3)(queries, keys)
    expected = np.zeros(40)
    for head in range(6):
        scores = np.exp(np.array(queries[0, head]) @ np.array(keys[0, head // 3]).T)
        expected += (scores / scores.sum(axis=1, keepdims=True)).sum(axis=0)
    np.testing.assert_allclose(np.array(attention_received(queries, keys)), expected, rtol=1e-5)
    # The canvas is the last five keys, which are never chosen.
    assert selection.chosen[3].tolist() == sorted(np.argsort(expected[:35])[-7:])


def test_a_prefix_that_is_no_longer_stays_as_it_is() -> None:
    for prefix, chosen in ((7, {}), (8, {0})):
        selection = Selection(7)
        selection.observer(0)(random(1, 2, 4, 8), random(1, 1, prefix + 4, 8))
        assert set(selection.chosen) == set(chosen)


def test_full_layers_alone_are_observed() -> None:
    model = random_model()
    cache = model.make_cache()
    encoded(model, mx.zeros((1, 20), mx.int32), cache)
    selection = Selection(4)
    model.denoise([CanvasRow(mx.zeros((1, 16), mx.int32), cache, selection=selection)])
    assert sorted(selection.chosen) == [1, 3]


# a narrowed cache


def tokens(start: int, count: int) -> mx.array:
    return mx.arange(start, start + count).reshape(1, 1, count, 1)


def positions(array: mx.array) -> list[int]:
    return array.flatten().tolist()  # pyright: ignore[reportReturnType]


def filled(branched: bool = False) -> Cache:
    cache = Cache((SLIDING, FULL), window=4)
    for layer in cache.layers:
        layer.write(tokens(0, 9), tokens(0, 9))
    cache.advance(9)
    return cache.branch() if branched else cache


@pytest.mark.parametrize("branched", [False, True])
def test_canvases_see_the_chosen_positions_and_the_encoder_all(branched: bool) -> None:
    cache = filled(branched)
    cache.narrow({1: mx.array([0, 5, 7])})
    sliding, full = (layer.write(tokens(20, 2), tokens(20, 2))[0] for layer in cache.canvas_layers)
    assert positions(sliding) == [6, 7, 8, 20, 21]
    assert positions(full) == [0, 5, 7, 20, 21]
    assert positions(cache.layers[1].write(tokens(30, 2), tokens(30, 2))[0]) == [*range(9), 30, 31]
    assert cache.offset == 9
    cache.advance(2)
    assert positions(cache.canvas_layers[1].write(tokens(40, 1), tokens(40, 1))[0]) == [*range(9), 30, 31, 40]


def test_what_was_narrowed_after_a_snapshot_is_undone() -> None:
    cache = filled()
    before = cache.snapshot()
    cache.narrow({1: mx.array([2])})
    narrowed = cache.snapshot()
    cache.canvas_layers[1].write(tokens(20, 2), tokens(20, 2))
    cache.restore(narrowed)
    assert positions(cache.canvas_layers[1].write(tokens(30, 1), tokens(30, 1))[0]) == [2, 30]
    cache.restore(before)
    assert positions(cache.canvas_layers[1].write(tokens(30, 1), tokens(30, 1))[0]) == [*range(9), 30]
    assert cache.narrowed_arrays == []


# canvases


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return random_model()


def canvas(model: DiffusionGemma, top_k: int | None, seed: int = 0, config: GenerationConfig = CONFIG) -> Canvas:
    cache = model.make_cache()
    encoded(model, mx.random.randint(0, 64, (1, PREFIX), key=mx.random.key(seed)), cache)
    mx.eval(cache.arrays)
    rules = default_rules(model, replace(config, prefix_top_k=top_k))
    return Canvas.start(cache, rules, seed=seed, block=0, length=16, forbidden=[])


def denoised(model: DiffusionGemma, *canvases: Canvas) -> list[list[Draft]]:
    """Denoise until all are over -> the drafts of each."""
    denoiser, drafts = Denoiser(model), [list[Draft]() for _ in canvases]
    while active := [each for each in canvases if not each.is_over]:
        for each, draft in zip(active, denoiser.step(active), strict=True):
            drafts[canvases.index(each)].append(draft)
    return drafts


def same(one: list[Draft], other: list[Draft]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(np.array(a), np.array(b))
        for first, second in zip(one, other, strict=True)
        for a, b in zip(first, second, strict=True)
    )


def test_a_short_prefix_changes_nothing_and_a_long_one_only_later_steps(model: DiffusionGemma) -> None:
    [plain] = denoised(model, canvas(model, None))
    [whole] = denoised(model, canvas(model, PREFIX))
    [narrow] = denoised(model, canvas(model, 5))
    assert same(whole, plain)
    assert same(narrow[:1], plain[:1])
    assert not np.allclose(np.array(narrow[1].entropy), np.array(plain[1].entropy), rtol=1e-5)


def test_steps_after_the_first_are_those_after_the_chosen_positions_alone(model: DiffusionGemma) -> None:
    """The oracle: a cache of the chosen keys and values, made by hand, with the draft of the first step."""
    one = canvas(model, 5)
    denoiser = Denoiser(model)
    denoiser.step([one])
    state, selection = one.state, Selection(5)
    whole = canvas(model, None)
    model.denoise([CanvasRow(whole.state.canvas, whole.cache, selection=selection)])
    for index, chosen in selection.chosen.items():
        keys, values = (mx.take(array, chosen, axis=2) for array in whole.cache.layers[index].arrays)
        whole.cache.layers[index] = LayerCache.holding(keys, values)
    (hidden,) = model.denoise([CanvasRow(state.canvas, whole.cache, state.signal)])
    expected = model.processed_logits(hidden, one.rules.schedule.temperature(2)).read(mx.full((1, 16), 0.5))
    [draft] = denoiser.step([one])
    np.testing.assert_allclose(np.array(draft.entropy), np.array(expected.entropy), rtol=1e-4, atol=1e-5)
    denoiser.forget()


def test_each_canvas_of_a_batch_has_its_own_choice(model: DiffusionGemma) -> None:
    together = denoised(model, *(canvas(model, 5, seed) for seed in range(3)))
    for seed, drafts in enumerate(together):
        [alone] = denoised(model, canvas(model, 5, seed))
        assert [draft.best.tolist() for draft in drafts] == [draft.best.tolist() for draft in alone]


def test_the_prefix_is_whole_again_when_the_canvas_is_over(model: DiffusionGemma) -> None:
    one = canvas(model, 5)
    before = [np.array(each) for each in one.cache.arrays]
    denoised(model, one)
    assert one.cache.narrowed_arrays == []
    for array, then in zip(one.cache.arrays, before, strict=True):
        np.testing.assert_array_equal(np.array(array), then)


def test_rows_and_pins_go_together_with_it(model: DiffusionGemma) -> None:
    slots = [None if each % 5 else 7 for each in range(90)]
    config = replace(CONFIG, max_steps=8, greedy=True, entropy_bound=180.0, rows="unsettled")
    drafts: list[list[Draft]] = []
    for top_k in (None, PREFIX, 5):
        one = canvas(model, top_k, config=config)
        pinned = Canvas.pinned(one.cache, one.rules, seed=0, block=0, pins=Pins.of(model, slots))
        drafts += denoised(model, pinned)
    plain, whole, narrow = drafts
    assert len(plain) == len(narrow) == 8
    assert narrow[-1].best[0, ::5].tolist() == [7] * 18
    assert same(whole[:2], plain[:2]) and same(narrow[:1], plain[:1]) and not same(narrow, plain)


def test_a_step_that_failed_is_taken_again(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    [expected] = denoised(model, canvas(model, 5))
    one, denoiser, taken = canvas(model, 5), Denoiser(model), list[Draft]()
    whole = EntropyBoundSampler.step

    def fail(*_: object) -> Draft:
        raise MemoryError("once")

    while not one.is_over:
        monkeypatch.setattr(EntropyBoundSampler, "step", fail)
        with pytest.raises(MemoryError):
            denoiser.step([one])
        monkeypatch.setattr(EntropyBoundSampler, "step", whole)
        taken += denoiser.step([one])
    assert same(taken, expected)


# recall


LONG, CHOSEN = 32_768, 1_024
CANVAS = mx.arange(16)[None]


@pytest.fixture(scope="module")
def single() -> DiffusionGemma:
    """A model of one full layer with one head."""
    layer = LayerConfig(kind="full_attention", head_dim=16, num_key_value_heads=1)
    return random_model(tiny_config(layers=(layer,), num_attention_heads=1, max_position_embeddings=LONG + 64))


@pytest.fixture(scope="module")
def haystack() -> tuple[mx.array, mx.array]:
    """Keys and values of 32k tokens, at which queries look a little, some more than others."""
    keys, values = random(1, 1, LONG, 16, seed=1), random(1, 1, LONG, 16, seed=2)
    return keys / mx.linalg.norm(keys, axis=-1, keepdims=True), values


def chunk_borders() -> list[int]:
    """The first and the last token of every chunk of the prefix, as a GPU and as a CPU reads it."""
    found: set[int] = set()
    for kernels in (PLAIN_KERNELS, CPU_KERNELS):
        at = 0
        while at < LONG:
            length = kernels.chunk_length(min(LONG - at, MAX_CHUNK), at)
            found |= {at, at + length - 1}
            at += length
    return sorted(found)


def behind(model: DiffusionGemma, keys: mx.array, values: mx.array) -> Cache:
    cache = model.make_cache()
    cache.layers[0] = LayerCache.holding(keys, values)
    cache.offset = LONG
    return cache


def needle(model: DiffusionGemma, haystack: tuple[mx.array, mx.array]) -> tuple[mx.array, mx.array]:
    """A key at which every query of the canvas looks, and its value."""
    seen: list[mx.array] = []

    class Listening(Selection):
        def observer(self, layer: int) -> Any:
            return lambda queries, _: seen.append(queries)

    model.denoise([CanvasRow(CANVAS, behind(model, *haystack), selection=Listening(1))])
    key, *_ = np.linalg.lstsq(np.array(seen[0][0, 0]), np.full(16, 25.0), rcond=None)
    return mx.array(key.astype(np.float32)), random(16, seed=3)


def test_a_needle_is_recalled_at_every_border_of_the_chunks_of_a_long_prefix(
    single: DiffusionGemma, haystack: tuple[mx.array, mx.array]
) -> None:
    key, value = needle(single, haystack)
    borders = chunk_borders()
    assert len(borders) > 90 and borders[0] == 0 and borders[-1] == LONG - 1
    (without,) = single.denoise([CanvasRow(CANVAS, behind(single, *haystack))])
    for place in borders:
        keys, values = haystack[0][...], haystack[1][...]
        keys[0, 0, place], values[0, 0, place] = key, value
        cache, selection = behind(single, keys, values), Selection(CHOSEN)
        (whole,) = single.denoise([CanvasRow(CANVAS, cache, selection=selection)])
        cache.narrow(selection.chosen)
        (found,) = single.denoise([CanvasRow(CANVAS, cache)])
        assert place in selection.chosen[0].tolist()
        assert mx.abs(found - whole).max().item() < 1e-3
    # The needle is what the layer reads there: others in its place are not enough.
    cache.narrow({0: mx.arange(CHOSEN)})
    (lost,) = single.denoise([CanvasRow(CANVAS, cache)])
    assert mx.abs(lost - whole).max().item() > 0.1
    assert mx.abs(without - whole).max().item() > 0.1
