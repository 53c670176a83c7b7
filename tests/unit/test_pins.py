"""Pinned positions hold their token in every step, and cost neither entropy nor a draw."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest
from tiny import denoised, encoded, processed, random_model

from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.logits import FORBIDDEN
from mlx_diffgemma.sampling.canvas import Canvas
from mlx_diffgemma.sampling.denoising import refine
from mlx_diffgemma.sampling.pins import Ban, Pins
from mlx_diffgemma.sampling.sampler import Draft, make_draft, random_key
from mlx_diffgemma.sampling.strategy import default_rules

CONFIG = GenerationConfig(max_steps=6, stop_tokens=(), confidence_threshold=1e-6)
PROMPT = [3, 14, 15]
SLOTS = (7, None, None, 21, None, 9, 9, None, None, 30)
FREE = [1, 2, 4, 7, 8]


def canvas(
    model: DiffusionGemma, slots: Sequence[int | None], seed: int = 0, config: GenerationConfig = CONFIG
) -> Canvas:
    cache = model.make_cache()
    encoded(model, mx.array([PROMPT]), cache)
    mx.eval(cache.arrays)
    rules = default_rules(model, config)
    if None not in slots or set(slots) != {None}:
        return Canvas.pinned(cache, rules, seed=seed, block=0, pins=Pins.of(model, slots))
    return Canvas.start(cache, rules, seed=seed, block=0, length=len(slots), forbidden=[])


def drafts(model: DiffusionGemma, *canvases: Canvas) -> list[list[Draft]]:
    """Of every step, a list per canvas."""
    return [list(each) for each in zip(*refine(model, canvases), strict=True)]


def same(one: Draft, other: Draft) -> bool:
    return all(np.array_equal(np.array(a), np.array(b)) for a, b in zip(one, other, strict=True))


def test_pins_hold_their_tokens_in_every_step() -> None:
    model = random_model()
    [steps] = drafts(model, canvas(model, SLOTS))
    assert len(steps) == 6
    for draft in steps:
        for place, token in enumerate(SLOTS):
            if token is not None:
                assert draft.best[0, place].item() == draft.canvas[0, place].item() == token
                assert draft.accepted[0, place].item()
                assert draft.entropy[0, place].item() == 0
        assert (draft.entropy[0, mx.array(FREE)] > 0).all().item()


def test_a_pinned_canvas_is_what_denoising_all_of_it_and_reading_the_free_positions_gives() -> None:
    """The slow way: the whole canvas is projected, and conditioned on one-hot logits where it is pinned."""
    model = random_model()
    [steps] = drafts(model, canvas(model, SLOTS))
    rules, free = default_rules(model, CONFIG), mx.array(FREE)
    ids = mx.array([[0 if token is None else token for token in SLOTS]])
    noise = rules.sampler.start((1, len(FREE)), random_key(0, 0, 0))
    logits = mx.where(ids[..., None] == mx.arange(64), 0.0, FORBIDDEN)
    is_free = mx.array([place in FREE for place in range(len(SLOTS))])[None, :, None]
    signal = mx.where(is_free, 0.0, model.signal(processed(logits)))
    cache = model.make_cache()
    encoded(model, mx.array([PROMPT]), cache)
    ids[:, free] = noise
    for number, draft in enumerate(steps, start=1):
        raw = denoised(model, ids, cache, signal)
        read = (raw / rules.schedule.temperature(number))[:, free]
        expected = rules.sampler.step(processed(read), noise, random_key(0, 0, number))
        assert np.array_equal(np.array(draft.best[:, free]), np.array(expected.best))
        assert np.array_equal(np.array(draft.canvas[:, free]), np.array(expected.canvas))
        assert np.allclose(np.array(draft.entropy[:, free]), np.array(expected.entropy), atol=1e-4)
        ids[:, free] = expected.canvas
        whole = mx.array(logits)
        whole[:, free] = read
        signal = model.signal(processed(whole), CONFIG.conditioning_top_k)


@pytest.mark.parametrize("top_k", [None, 8])
def test_the_conditioning_of_a_pin_is_that_of_certainty(top_k: int | None) -> None:
    model = random_model()
    pins = Pins.of(model, SLOTS)
    certain = mx.where(pins.canvas[..., None] == mx.arange(64), 0.0, FORBIDDEN)
    expected = model.signal(processed(certain), top_k)
    is_pinned = mx.array([token is not None for token in SLOTS])[None, :, None]
    assert mx.allclose(pins.signal, mx.where(is_pinned, expected, 0.0), atol=1e-6).item()


def test_each_row_of_a_batch_is_what_it_is_alone() -> None:
    """Pinned beside plain, of several lengths, two with equally many free positions."""
    model = random_model()
    kinds = [SLOTS, (None,) * 5, (None,) * 12, (1, 2, None, None), (None, None, 5, None, None, None)]
    few = replace(CONFIG, max_steps=3)
    together = drafts(model, *(canvas(model, slots, seed, few) for seed, slots in enumerate(kinds)))
    for seed, (slots, steps) in enumerate(zip(kinds, together, strict=True)):
        [alone] = drafts(model, canvas(model, slots, seed, few))
        for one, other in zip(steps, alone, strict=True):
            assert np.array_equal(np.array(one.best), np.array(other.best))
            assert np.array_equal(np.array(one.canvas), np.array(other.canvas))
            assert np.allclose(np.array(one.entropy), np.array(other.entropy), atol=1e-2)


def test_a_canvas_without_pins_is_denoised_as_ever() -> None:
    model = random_model()
    plain = canvas(model, (None,) * 9)
    assert plain.pins is None
    [steps] = drafts(model, plain)
    pinned = canvas(model, (None,) * 9)
    pinned.pins = Pins.of(model, (None,) * 9)
    assert all(same(one, other) for one, other in zip(steps, drafts(model, pinned)[0], strict=True))


def test_the_entropy_bound_and_the_stop_rule_see_the_free_positions_alone() -> None:
    """A hundred certain positions would make any mean small, and be accepted before the others."""
    model = random_model()
    slots = (None, None, *[5] * 12)
    lenient = replace(CONFIG, confidence_threshold=0.5, max_steps=8, t_min=0.8)
    [steps] = drafts(model, canvas(model, slots, config=lenient))
    free = steps[-1].entropy[0, :2].mean().item()
    whole = steps[-1].entropy[0].mean().item()
    assert whole < 0.5 < free
    assert len(steps) == 8
    logits = mx.random.normal((1, 2, 64), key=mx.random.key(3))
    expected = make_draft(processed(logits).read(mx.full((1, 2), 0.5)), mx.zeros((1, 2), mx.int32), 0.1)
    assert expected.accepted.sum().item() == 1


def test_what_is_banned_stands_nowhere_and_conditions_nothing() -> None:
    model = random_model()
    banned = mx.array([token for token in range(64) if token not in (11, 12)])
    place = Ban(slice(1, 3), banned)
    held = canvas(model, SLOTS)
    assert held.pins is not None
    held.pins = Pins.of(model, SLOTS, [place])
    [steps] = drafts(model, held)
    for draft in steps:
        assert {draft.best[0, at].item() for at in (2, 4)} <= {11, 12}
        assert draft.entropy[0, mx.array([2, 4])].max().item() <= 0.6932
    others = {draft.best[0, at].item() for draft in steps for at in (1, 7, 8)}
    assert others - {11, 12}


def test_a_pinned_canvas_is_denoised_in_any_thread() -> None:
    model = random_model()
    [expected] = drafts(model, canvas(model, SLOTS))
    steps = refine(model, [canvas(model, SLOTS)])
    taken: list[Draft] = []

    def take() -> None:
        taken.extend(next(steps))
        mx.clear_streams()

    for _ in expected:
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert all(same(one, other) for one, other in zip(taken, expected, strict=True))


@pytest.mark.parametrize("slots", [SLOTS, (None,), (None, 4), (4, None)])
def test_a_draft_is_widened_as_putting_each_value_in_its_place_does(slots: tuple[int | None, ...]) -> None:
    pins = Pins.of(random_model(), slots)
    free = [place for place, token in enumerate(slots) if token is None]
    count = len(free)
    draft = Draft(
        canvas=mx.arange(100, 100 + count)[None],
        best=mx.arange(200, 200 + count)[None],
        accepted=mx.zeros((1, count), mx.bool_),
        entropy=mx.full((1, count), 2.0),
        total=mx.full((1, count), 3.0),
        inverse_probability=mx.full((1, count), 4.0),
    )
    whole = pins.widened_draft(draft)
    for place, token in enumerate(slots):
        values = tuple(field[0, place].item() for field in whole)
        if token is None:
            rank = free.index(place)
            assert values == (100 + rank, 200 + rank, False, 2.0, 3.0, 4.0)
        else:
            assert values == (token, token, True, 0.0, 0.0, 1.0)
