"""The stop rule and the schedule, step by step."""

from __future__ import annotations

import mlx.core as mx
import pytest

from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.sampling.schedule import LinearTemperature
from mlx_diffgemma.sampling.stopping import StableAndConfident, StopRule, Unsurprised, UntilEnd
from mlx_diffgemma.sampling.strategy import schedule_of, stop_rule

SURE = mx.zeros((1, 3))


def judgements(rule: StopRule, canvases: list[list[int]], entropy: mx.array = SURE) -> list[bool]:
    memory = rule.start((1, 3))
    out = []
    for step, canvas in enumerate(canvases, start=1):
        memory, done = rule.judge(mx.array([step]), memory, mx.array([canvas]), entropy)
        out.append(done.item())
    return out


A, B = [1, 2, 3], [1, 2, 4]


@pytest.mark.parametrize(
    ("stability", "expected"),
    [
        (0, [True, True, True, True, True]),
        (1, [False, True, False, True, True]),
        (2, [False, False, False, False, True]),
        (3, [False, False, False, False, False]),
    ],
)
def test_a_canvas_is_stable_after_as_many_equal_steps_before_it(stability: int, expected: list[bool]) -> None:
    rule = StableAndConfident(stability_threshold=stability, confidence_threshold=0.1)
    assert judgements(rule, [A, A, B, B, B]) == expected


def test_a_stable_canvas_must_be_confident_too() -> None:
    rule = StableAndConfident(stability_threshold=1, confidence_threshold=0.1)
    assert judgements(rule, [A, A], mx.array([[0.0, 0.0, 0.29]])) == [False, True]
    assert judgements(rule, [A, A], mx.array([[0.0, 0.0, 0.31]])) == [False, False]


def test_rows_are_judged_apart() -> None:
    rule = StableAndConfident(stability_threshold=1, confidence_threshold=0.1)
    memory = rule.start((2, 2))
    memory, _ = rule.judge(mx.array([1, 1]), memory, mx.array([[1, 1], [2, 2]]), mx.zeros((2, 2)))
    _, done = rule.judge(mx.array([2, 2]), memory, mx.array([[1, 1], [2, 3]]), mx.zeros((2, 2)))
    assert done.tolist() == [True, False]


STABLE = StableAndConfident(stability_threshold=1, confidence_threshold=0.1)


def test_low_entropy_ends_a_changing_canvas_after_its_steps() -> None:
    rule = Unsurprised(rule=STABLE, mean_entropy=0.5, min_steps=3)
    assert judgements(rule, [A, B, A, B], mx.array([[0.4, 0.4, 0.4]])) == [False, False, True, True]
    assert judgements(rule, [A, B, A, B], mx.array([[0.6, 0.6, 0.6]])) == [False, False, False, False]


def test_steps_that_no_canvas_has_are_never_reached() -> None:
    rule = stop_rule(GenerationConfig(mean_entropy=0.5, min_steps=2**63, max_steps=2**63, stability_threshold=0))
    assert judgements(rule, [A, B], mx.array([[0.4, 0.4, 0.4]])) == [False, False]


def test_the_rule_inside_still_ends_a_canvas_early() -> None:
    rule = Unsurprised(rule=STABLE, mean_entropy=0.5, min_steps=30)
    assert judgements(rule, [A, B, B]) == [False, False, True]


def test_what_stands_behind_the_first_end_token_need_not_settle() -> None:
    rule = UntilEnd(rule=STABLE, stop_tokens=(9, 8))
    assert judgements(rule, [[1, 9, 3], [1, 9, 4]]) == [False, True]
    assert judgements(rule, [[1, 9, 3], [1, 8, 4]]) == [False, False]
    assert judgements(rule, [[1, 3, 9], [1, 4, 9]]) == [False, False]
    assert judgements(STABLE, [[1, 9, 3], [1, 9, 4]]) == [False, False]


def test_entropy_behind_the_first_end_token_does_not_count() -> None:
    rule = UntilEnd(rule=STABLE, stop_tokens=(9,))
    assert judgements(rule, [[1, 9, 3]] * 2, mx.array([[0.05, 0.05, 9.0]])) == [False, True]
    assert judgements(rule, [[1, 9, 3]] * 2, mx.array([[0.15, 0.16, 0.0]])) == [False, False]
    assert judgements(rule, [[1, 2, 3]] * 2, mx.array([[0.05, 0.05, 9.0]])) == [False, False]


def test_a_canvas_that_the_rule_inside_finishes_is_finished() -> None:
    """Sure padding counts where it makes the mean lower: 0.15 up to the end, 0.08 in all, below 0.1."""
    unsure_text = mx.array([[0.15, 0.09, 0.0]])
    for rule in (STABLE, UntilEnd(rule=STABLE, stop_tokens=(9,))):
        assert judgements(rule, [[1, 9, 3]] * 2, unsure_text) == [False, True]


def test_the_temperature_falls_linearly_from_its_maximum() -> None:
    schedule = LinearTemperature(t_min=0.4, t_max=0.8, steps=4)
    assert [schedule.temperature(step) for step in (1, 2, 3, 4)] == pytest.approx([0.8, 0.7, 0.6, 0.5])


def test_the_temperature_multiplies_the_schedule() -> None:
    plain, doubled, tiny = (
        schedule_of(GenerationConfig(t_min=0.4, t_max=0.8, max_steps=4, temperature=factor))
        for factor in (1.0, 2.0, 0.001)
    )
    steps = range(1, 5)
    assert [doubled.temperature(step) for step in steps] == [2 * plain.temperature(step) for step in steps]
    assert [tiny.temperature(step) for step in steps] == pytest.approx([0.001, 0.00085, 0.0007, 0.00055])


def test_a_temperature_of_zero_is_greedy_at_the_schedules_own_temperatures() -> None:
    greedy = GenerationConfig(temperature=0, t_min=0.4, t_max=0.8)
    assert greedy.is_greedy
    assert schedule_of(greedy) == schedule_of(GenerationConfig(t_min=0.4, t_max=0.8))
    assert not GenerationConfig(temperature=0.5).is_greedy
    assert GenerationConfig(greedy=True).is_greedy
