"""Steps that compute some positions of a canvas: which ones, and what becomes of the others."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tiny import encoded, random_model, tiny_config

from mlx_diffgemma.errors import OptionError
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.canvas import Canvas
from mlx_diffgemma.sampling.denoising import Denoiser
from mlx_diffgemma.sampling.pins import Pins
from mlx_diffgemma.sampling.rows import Passed, unsettled
from mlx_diffgemma.sampling.sampler import Draft, EntropyBoundSampler
from mlx_diffgemma.sampling.strategy import default_rules

LENGTH = 64
# A random model is sure of nothing: this bound accepts about four in five positions.
CONFIG = GenerationConfig(
    max_steps=11,
    stop_tokens=(),
    confidence_threshold=1e-6,
    entropy_bound=2.5 * LENGTH,
    greedy=True,
    rows="unsettled",
    whole_every=4,
)


def passed(accepted: Sequence[int], same: Sequence[int], entropy: Sequence[float]) -> Passed:
    """A draft with these positions accepted, of which the `same` have been through the layers with their tokens."""
    length = len(entropy)
    canvas = mx.arange(length)[None]
    tokens = mx.array([[each if each in same else -1 for each in range(length)]])
    flags = mx.array([[each in accepted for each in range(length)]])
    figures = mx.array([entropy])
    return Passed(tokens, Draft(canvas, canvas, flags, figures, figures, figures), 0)


def places(found: Any) -> list[int] | None:
    return None if found is None else found.tolist()


def test_what_is_not_accepted_or_has_not_been_through_is_computed() -> None:
    entropy = [float(64 - each) for each in range(64)]
    settled = set(range(64)) - {3, 60}
    # 14 more make a tile: the least certain ones.
    filled = sorted([3, 60, *[each for each in range(20) if each != 3][:14]])
    assert places(unsettled(passed([*settled, 60], range(60), entropy))) == sorted(
        [3, 60, 61, 62, 63, *[each for each in range(20) if each != 3][:11]]
    )
    assert places(unsettled(passed([*settled], range(64), entropy))) == filled


def test_once_all_are_accepted_a_step_computes_all() -> None:
    assert unsettled(passed(range(64), range(32, 64), [0.0] * 64)) is None


def test_a_step_that_would_compute_most_of_a_canvas_computes_all() -> None:
    assert len(places(unsettled(passed(range(16, 64), range(64), [0.0] * 64))) or ()) == 16
    assert len(places(unsettled(passed(range(17, 64), range(64), [0.0] * 64))) or ()) == 32
    assert len(places(unsettled(passed(range(48, 64), range(64), [0.0] * 64))) or ()) == 48
    assert unsettled(passed(range(49, 64), range(64), [0.0] * 64)) is None
    assert unsettled(passed(range(1, 16), range(16), [0.0] * 16)) is None


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    return random_model(tiny_config(canvas_length=LENGTH, vocab_size=64))


def canvas(model: DiffusionGemma, config: GenerationConfig = CONFIG, seed: int = 0, **changes: Any) -> Canvas:
    cache = model.make_cache()
    encoded(model, mx.array([[3, 14, 15 + seed]]), cache)
    mx.eval(cache.arrays)
    return Canvas.start(
        cache, default_rules(model, config), seed=seed, block=0, length=LENGTH, **{"forbidden": [], **changes}
    )


def denoised(model: DiffusionGemma, *canvases: Canvas) -> tuple[list[list[Draft]], list[list[int]]]:
    """Denoise until all are over -> per canvas the drafts, and how many positions each step computed."""
    denoiser, drafts, counts = Denoiser(model), [list[Draft]() for _ in canvases], [list[int]() for _ in canvases]
    while active := [each for each in canvases if not each.is_over]:
        for each in active:
            counts[canvases.index(each)].append(LENGTH if each.places is None else len(each.places))
        for each, draft in zip(active, denoiser.step(active), strict=True):
            drafts[canvases.index(each)].append(draft)
    return drafts, counts


def same(one: Sequence[Draft], other: Sequence[Draft]) -> bool:
    return len(one) == len(other) and all(
        np.array_equal(np.array(a), np.array(b))
        for first, second in zip(one, other, strict=True)
        for a, b in zip(first, second, strict=True)
    )


def test_steps_are_whole_at_first_every_so_many_and_at_the_end(model: DiffusionGemma) -> None:
    _, [counts] = denoised(model, canvas(model))
    whole = [count == LENGTH for count in counts]
    assert whole[0] and whole[-1] and len(whole) == 11
    assert not all(whole)
    partial = "".join("W" if each else "p" for each in whole)
    assert "pppp" not in partial and "ppp" in partial


def test_what_is_not_computed_stays_as_it_was(model: DiffusionGemma) -> None:
    one = canvas(model)
    denoiser, before, kept = Denoiser(model), None, 0
    while not one.is_over:
        computed, passed = one.places, one.state.passed
        [draft] = denoiser.step([one])
        if computed is not None and before is not None and passed is not None:
            rest = mx.array([each for each in range(LENGTH) if each not in computed])
            assert mx.array_equal(draft.entropy[:, rest], before.entropy[:, rest]).item()
            assert mx.array_equal(draft.best[:, rest], before.best[:, rest]).item()
            still = draft.accepted[:, rest]
            assert mx.array_equal(
                mx.where(still, draft.canvas[:, rest], 0), mx.where(still, passed.tokens[:, rest], 0)
            ).item()
            kept += rest.size
        before = draft
    assert kept > LENGTH


def test_whole_steps_alone_are_the_rule_without_it(model: DiffusionGemma) -> None:
    [every], _ = denoised(model, canvas(model, replace(CONFIG, whole_every=1)))
    [plain], counts = denoised(model, canvas(model, replace(CONFIG, rows="all")))
    assert same(every, plain)
    assert counts == [[LENGTH] * 11]
    [partial], _ = denoised(model, canvas(model))
    assert not same(partial, plain)


def test_a_canvas_is_over_only_after_a_step_that_computed_all(model: DiffusionGemma) -> None:
    """The rule is content with any mean entropy after four steps, whatever they computed."""
    config = replace(CONFIG, mean_entropy=100.0, min_steps=5, whole_every=100)
    one = canvas(model, config)
    _, [counts] = denoised(model, one)
    assert [count == LENGTH for count in counts][-2:] == [False, True]
    assert one.state.step == len(counts) == 6


def test_each_canvas_of_a_batch_is_what_it_is_alone(model: DiffusionGemma) -> None:
    together, _ = denoised(model, *(canvas(model, seed=seed) for seed in range(3)))
    for seed, drafts in enumerate(together):
        [alone], _ = denoised(model, canvas(model, seed=seed))
        assert [draft.best.tolist() for draft in drafts] == [draft.best.tolist() for draft in alone]


def test_of_a_pinned_canvas_the_pins_are_computed_in_whole_steps_alone(model: DiffusionGemma) -> None:
    slots = [5 if each % 3 == 0 else None for each in range(90)]
    one = canvas(model)
    pinned = Canvas.pinned(one.cache, one.rules, seed=0, block=0, pins=Pins.of(model, slots))
    [drafts], [counts] = denoised(model, pinned)
    assert min(counts) < 60
    for draft in drafts:
        assert draft.best[0, ::3].tolist() == [5] * 30
    every = Canvas.pinned(
        canvas(model).cache,
        default_rules(model, replace(CONFIG, whole_every=1)),
        seed=0,
        block=0,
        pins=Pins.of(model, slots),
    )
    [whole], _ = denoised(model, every)
    assert same(drafts[:1], whole[:1]) and not same(drafts, whole)


def test_a_forbidden_token_stays_forbidden_whatever_is_computed(model: DiffusionGemma) -> None:
    likely = denoised(model, canvas(model))[0][0]
    forbidden = sorted({int(draft.best[0, 0].item()) for draft in likely})  # pyright: ignore[reportArgumentType]
    [drafts], counts = denoised(model, canvas(model, forbidden=forbidden))
    assert min(counts[0]) < LENGTH
    assert not {int(draft.best[0, 0].item()) for draft in drafts} & set(forbidden)  # pyright: ignore[reportArgumentType]


def test_steps_may_be_taken_in_any_thread(model: DiffusionGemma) -> None:
    [expected], _ = denoised(model, canvas(model))
    one, denoiser, taken = canvas(model), Denoiser(model), list[Draft]()

    def take() -> None:
        taken.extend(denoiser.step([one]))
        mx.clear_streams()

    while not one.is_over:
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    assert same(taken, expected)


def test_a_step_that_failed_is_taken_again(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    [expected], _ = denoised(model, canvas(model))
    one, denoiser, taken = canvas(model), Denoiser(model), list[Draft]()
    whole = EntropyBoundSampler.step

    def fail(*_: object) -> Draft:
        raise MemoryError("once")

    while not one.is_over:
        places, state = one.places, one.state
        monkeypatch.setattr(EntropyBoundSampler, "step", fail)
        with pytest.raises(MemoryError):
            denoiser.step([one])
        assert one.state is state and one.places is places
        monkeypatch.setattr(EntropyBoundSampler, "step", whole)
        taken += denoiser.step([one])
    assert same(taken, expected)


def test_another_sampler_cannot_leave_positions_out(model: DiffusionGemma) -> None:
    sampler = EntropyBoundSampler(vocab_size=64, entropy_bound=1.0)
    with pytest.raises(OptionError, match="rows='unsettled' needs the entropy-bound sampler"):
        default_rules(model, CONFIG, sampler)
