"""The search for the lengths of a canvas's gaps.

How long a gap should be is not known, and a canvas has a fixed length for each gap. So canvases of different lengths
are denoised for a few steps and compared.

The decoder's confidence cannot compare them: it is as sure of a filling that is too long as of the right one. The
encoder can. It reads a candidate from left to right, and finds the text after a wrong filling unlikely; its mean
log-probability per token is the score.

Gaps are searched one after another. While one gap is tried in several lengths, the gaps after it have a length from the
middle of their range, and those before it the best lengths found. Each gap is tried in a few lengths that cover its
range, then in the lengths around the best of those.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace

from mlx_diffgemma.events import Event
from mlx_diffgemma.infilling.candidates import (
    Candidate,
    CanvasTask,
    CanvasView,
    denoise_together,
    judge,
    start_candidate,
)
from mlx_diffgemma.infilling.lengths import coarse_lengths_per_gap, lengths_around, middle_lengths, possible_lengths
from mlx_diffgemma.infilling.windows import gap_budget

_STEPS_BEFORE_JUDGING = 4
"""Steps after which candidates of different lengths are compared."""
_MAX_SIDE_BY_SIDE = 8
"""Candidates that are denoised at the same time."""
_MAX_FINALISTS = 3
"""Candidates that go on to the next gap, and after the last gap are denoised to their end."""


def find_finalists(task: CanvasTask, view: CanvasView) -> Generator[Event, None, list[Candidate]]:
    """Yield the events of the search, and return the candidates with the best lengths, best first."""
    tried = coarse_lengths_per_gap(task.window)
    choices = [middle_lengths(tried, gap_budget(task.window.parts, task.setup.capacity))]
    first = start_candidate(task, choices[0], whole_characters=False)
    yield view.started(first)
    best: list[Candidate] = []
    for number, (gap, lengths) in enumerate(zip(task.window.gaps, tried, strict=True)):
        if len(lengths) == 1:
            continue
        best = yield from _compare(task, view, _with_each_length(choices, number, lengths), [])
        around = lengths_around(possible_lengths(gap), lengths, best[0].lengths[number])
        best = yield from _compare(task, view, _with_each_length([best[0].lengths], number, around), best)
        choices = [each.lengths for each in best]
    return best or [first]


def _with_each_length(choices: Sequence[tuple[int, ...]], number: int, lengths: Sequence[int]) -> list[tuple[int, ...]]:
    """Return every choice with each of `lengths` for the gap of this number, without repetitions."""
    return list(dict.fromkeys((*each[:number], length, *each[number + 1 :]) for each in choices for length in lengths))


def _compare(
    task: CanvasTask, view: CanvasView, choices: Sequence[tuple[int, ...]], best: list[Candidate]
) -> Generator[Event, None, list[Candidate]]:
    """Denoise and judge a candidate per choice that fits; return the finalists among them and `best`, best first."""
    budget = gap_budget(task.window.parts, task.setup.capacity)
    choices = [lengths for lengths in choices if sum(lengths) <= budget]
    for start in range(0, len(choices), _MAX_SIDE_BY_SIDE):
        now = choices[start : start + _MAX_SIDE_BY_SIDE]
        group = [start_candidate(task, lengths, whole_characters=False) for lengths in now]
        yield from _denoise_briefly(task, view, group)
        for each in group:
            judge(task, each)
        # Only the finalists are kept: every candidate has a copy of the text before it.
        best = sorted([*best, *group], key=lambda each: -each.score)[:_MAX_FINALISTS]
    return best


def _denoise_briefly(task: CanvasTask, view: CanvasView, candidates: Sequence[Candidate]) -> Iterator[Event]:
    """Take the first steps of candidates; those that did not finish can go on afterwards as if nothing had happened."""
    rules = task.setup.rules
    brief = replace(rules, max_steps=min(_STEPS_BEFORE_JUDGING, rules.max_steps))
    for each in candidates:
        each.canvas.rules = brief
    yield from map(view.denoised, denoise_together(task.setup.model, candidates))
    for each in candidates:
        each.canvas.rules = rules
        stopped_early = each.canvas.state.step < brief.max_steps
        each.canvas.is_over = stopped_early or brief == rules
