"""Denoising canvases step by step: several sequences together, each with its own prefix, length, step and draws.

    states -> denoise -> hidden states -> processed logits -> sampler -> constraint -> draft -> stop rule
       ^                                                                    |
       +------------------------- canvas, signal <--------------------------+

While the device computes a step, the graph of the next one is built. A step is judged when its results are computed:
there alone Python waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple, cast

import mlx.core as mx
import numpy as np

from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.logits import ProcessedLogits
from mlx_diffgemma.sampling.ahead import Ahead
from mlx_diffgemma.sampling.canvas import Canvas, CanvasState
from mlx_diffgemma.sampling.constrained import ConstrainedSpan, among_allowed, constrain
from mlx_diffgemma.sampling.rows import Passed, Places, Rows, SomeRows
from mlx_diffgemma.sampling.sampler import Draft, random_key

LOGITS_AT_ONCE = 2**27
"""Logits that are read together at most: those of two canvases at full size, 537 MB."""


class Outcome(NamedTuple):
    """The result of one step of one canvas."""

    draft: Draft
    finished: mx.array
    """bool [1], the stop rule's verdict"""
    after: CanvasState


class Denoiser:
    """Denoises canvases together, a step per call; which canvases they are may change from step to step."""

    def __init__(self, model: DiffusionGemma) -> None:
        self._model = model
        # The next step's graph, and the canvases for which it was built.
        self._ahead: Ahead[list[mx.array]] | None = None
        self._built_for: list[Canvas] = []

    def step(self, canvases: Sequence[Canvas]) -> list[Draft]:
        """Denoise every canvas once, and return the drafts, computed; canvases that are now over say so.

        If anything fails, the canvases are as they were before.
        """
        model, before = self._model, [canvas.state for canvas in canvases]
        try:
            hidden = self._taken(canvases) or _hidden_states(model, canvases)
            outcomes = _start_step(model, canvases, hidden)
            for canvas, outcome in zip(canvases, outcomes, strict=True):
                canvas.state = outcome.after
            drafts = [canvas.widened(outcome.draft) for canvas, outcome in zip(canvases, outcomes, strict=True)]
            for canvas in canvases:
                canvas.narrow_prefix()
            self._build_ahead(canvases)
            # Everything that is started must be computed before the caller goes on: its thread may end, and with it
            # the stream in which MLX computes.
            narrowed = [canvas.cache.narrowed_arrays for canvas in canvases]
            mx.eval(drafts, [(outcome.finished, outcome.after) for outcome in outcomes], narrowed)
        except BaseException:
            self.forget()
            for canvas, state in zip(canvases, before, strict=True):
                canvas.restore(state)
            raise
        settled = _judge(canvases, outcomes, before)
        trimmed = [canvas.trim(draft) for canvas, draft in zip(canvases, drafts, strict=True)]
        for canvas, is_settled in zip(canvases, settled, strict=True):
            canvas.choose_places(is_settled=is_settled)
        if any(canvas.is_over for canvas in canvases) or any(trimmed):
            self.forget()
        for canvas in canvases:
            if canvas.is_over:
                canvas.cache.widen()
        return drafts

    def forget(self) -> None:
        """Undo what was built for the next step."""
        if self._ahead is not None:
            self._ahead.undo()
        self._ahead, self._built_for = None, []

    def _build_ahead(self, canvases: Sequence[Canvas]) -> None:
        if not all(canvas.takes_all for canvas in canvases):
            # What they compute next depends on this step.
            return
        build = partial(_hidden_states, self._model, canvases)
        self._ahead, self._built_for = Ahead([canvas.cache for canvas in canvases], build), list(canvases)

    def _taken(self, canvases: Sequence[Canvas]) -> list[mx.array] | None:
        """Return what was built for these canvases; what was built for others is undone."""
        if self._ahead is None or self._built_for != list(canvases):
            self.forget()
            return None
        ahead, self._ahead, self._built_for = self._ahead, None, []
        return ahead.take()


def refine(model: DiffusionGemma, canvases: Sequence[Canvas]) -> Iterator[list[Draft]]:
    """Denoise canvases together until at least one of them `is_over`; yield every step's drafts, computed."""
    denoiser = Denoiser(model)
    try:
        while True:
            yield denoiser.step(canvases)
            if any(canvas.is_over for canvas in canvases):
                return
    finally:
        denoiser.forget()


def _hidden_states(model: DiffusionGemma, canvases: Sequence[Canvas]) -> list[mx.array]:
    """Build the graph of every canvas's final hidden states [1, C or R, D], pinned positions left out."""
    hidden = model.denoise([canvas.row for canvas in canvases])
    return [canvas.free_positions(each) for canvas, each in zip(canvases, hidden, strict=True)]


def _start_step(model: DiffusionGemma, canvases: Sequence[Canvas], hidden: Sequence[mx.array]) -> list[Outcome]:
    """Start to compute the next step of every canvas, from its final hidden states."""
    outcomes: list[Outcome] = []
    for group in _groups(canvases, hidden, LOGITS_AT_ONCE // model.config.vocab_size):
        outcomes += _step(model, canvases[group], mx.concatenate(list(hidden[group]), axis=0))
    # The signal too, though nothing needs it after the last step: as a graph it would keep the logits in memory.
    mx.async_eval([(outcome.draft, outcome.finished, outcome.after) for outcome in outcomes])
    return outcomes


def _groups(canvases: Sequence[Canvas], hidden: Sequence[mx.array], max_positions: int) -> Iterator[slice]:
    """Group neighbours that have one length, equal rules and equally many rows, at most `max_positions` together."""
    start = 0
    for index, canvas in enumerate(canvases):
        first, rows = canvases[start], hidden[index].shape[1]
        size = (index + 1 - start) * rows
        same_shape = first.state.canvas.shape == canvas.state.canvas.shape and hidden[start].shape[1] == rows
        alike = same_shape and first.rules == canvas.rules
        if index > start and (not alike or size > max_positions):
            yield slice(start, index)
            start = index
    yield slice(start, len(canvases))


def _step(model: DiffusionGemma, canvases: Sequence[Canvas], hidden: mx.array) -> list[Outcome]:
    """Build the next step of a group of canvases from their rows' final hidden states; constraints evaluate it.

    hidden: [B, C or R, D].
    """
    rules, numbers = canvases[0].rules, [canvas.state.step + 1 for canvas in canvases]
    rows = _rows(canvases)
    processed = model.processed_logits(hidden, [rules.schedule.temperature(number) for number in numbers])
    _forbid(processed, canvases)
    processed = rows.logits(processed)
    keys = [random_key(canvas.seed, canvas.block, number) for canvas, number in zip(canvases, numbers, strict=True)]
    noisy = mx.concatenate([canvas.state.canvas for canvas in canvases])
    draft = rules.sampler.step(processed, noisy, mx.stack(keys))
    signal = rows.signal(model.signal(processed, rules.conditioning_top_k, rows.total(draft.total)))
    draft = constrain(processed, draft, [canvas.spans for canvas in canvases], meanwhile=(signal,))
    before = mx.concatenate([canvas.state.memory for canvas in canvases], axis=1)
    memory, finished = rules.stop.judge(mx.array(numbers), before, draft.best, draft.entropy)
    draft = among_allowed(processed, draft, _ending_spans(canvases, numbers, finished))
    tokens, outcomes = rows.tokens(noisy), list[Outcome]()
    for index, (canvas, number) in enumerate(zip(canvases, numbers, strict=True)):
        row = slice(index, index + 1)
        own = Draft(*(field[row] for field in draft))
        passed = canvas.passed(tokens[row], own)
        after = CanvasState(number, own.canvas, signal[row], memory[:, row], passed)
        outcomes.append(Outcome(own, finished[row], after))
    return outcomes


def _rows(canvases: Sequence[Canvas]) -> Rows:
    """Return the positions that the next step of a group of canvases computes."""
    if canvases[0].places is None:
        return Rows()
    states = [canvas.state for canvas in canvases]
    passed = [cast("Passed", state.passed) for state in states]
    fields = [list(field) for field in zip(*(each.draft for each in passed), strict=True)]
    return SomeRows(
        places=mx.array(np.stack([cast("Places", canvas.places) for canvas in canvases])),
        before=Draft(*map(mx.concatenate, fields)),
        signal_before=mx.concatenate([cast("mx.array", state.signal) for state in states]),
        tokens_before=mx.concatenate([each.tokens for each in passed]),
    )


def _ending_spans(
    canvases: Sequence[Canvas], numbers: Sequence[int], finished: mx.array
) -> list[tuple[ConstrainedSpan, ...]]:
    """Return the constraints of every canvas that is over after this step, and () for the others.

    Only for a canvas with constraints, which has waited for the device already, the stop rule's verdict is computed.
    """
    return [
        canvas.spans if canvas.spans and _is_last(canvas, number, finished[row]) else ()
        for row, (canvas, number) in enumerate(zip(canvases, numbers, strict=True))
    ]


def _forbid(processed: ProcessedLogits, canvases: Sequence[Canvas]) -> None:
    """Forbid what each canvas forbids at the positions that are computed."""
    for row, canvas in enumerate(canvases):
        for ban in canvas.bans:
            positions = canvas.computed(ban.positions)
            if positions.stop > positions.start:
                processed.forbid(row, positions, ban.tokens)


def _is_last(canvas: Canvas, number: int, finished: mx.array) -> bool:
    """Whether step `number` is the last of a canvas; finished: what the stop rule says, which is waited for."""
    return number >= canvas.rules.max_steps or bool(finished.item())


def _judge(canvases: Sequence[Canvas], outcomes: Sequence[Outcome], before: Sequence[CanvasState]) -> list[bool]:
    """Return which canvases the step settles; they are over if it computed all positions.

    before: their states before the step.
    """
    settled: list[bool] = []
    for canvas, outcome, then in zip(canvases, outcomes, before, strict=True):
        is_last = _is_last(canvas, canvas.state.step, outcome.finished)
        settled.append(is_last or canvas.is_settled_until_stop(outcome.draft, then.memory))
        canvas.is_over = settled[-1] and canvas.places is None
    return settled
