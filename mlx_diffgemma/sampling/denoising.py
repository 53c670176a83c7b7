"""Denoising canvases step by step: several sequences at once, each with its own prefix, length, step and draws.

    states -> denoise_rows -> hidden of each -> processed logits -> sampler -> draft -> stop rule
       ^                                                              |
       +---------------------------- canvas, signal <-----------------+

While a step is computed the graph of the next one is built, so that a device need not wait for Python. A step is
judged when its results are there: the one synchronisation.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, cast

import mlx.core as mx

from mlx_diffgemma.device.threads import in_lane, settled, this_thread
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import CanvasRow, DiffusionGemma
from mlx_diffgemma.sampling.constrained import Bound, bound
from mlx_diffgemma.sampling.pins import Pins
from mlx_diffgemma.sampling.sampler import Draft, random_key
from mlx_diffgemma.sampling.strategy import Rules

AT_ONCE = 2**27
"""Logits that are read at once, at most: of two canvases at full size, 537 MB."""
FORBIDDEN = -1e9
"""The logit of a token that must not come: finite, because infinity times the probability zero is no number."""


class Refinement(NamedTuple):
    """A canvas between two steps, every array with one row; C are the positions that are not pinned."""

    step: int
    """steps done"""
    canvas: mx.array
    """[1, C] ids that the next step starts from"""
    signal: mx.array | None
    """[1, C, D] soft embedding of the last step, None before the first"""
    memory: mx.array
    """what the stop rule remembers"""


class Outcome(NamedTuple):
    """What a step made of a canvas."""

    draft: Draft
    finished: mx.array
    """bool [1]"""
    after: Refinement


@dataclass(eq=False)
class Canvas:
    """One canvas on its way: what does not change, and the state that does."""

    cache: Cache
    rules: Rules
    seed: int
    block: int
    forbidden: list[int]
    """Tokens that must not stand at the first position."""
    state: Refinement
    pins: Pins | None = None
    is_over: bool = False
    end: int | None = None
    """where the last draft had its end token, if the rules ask"""
    bounds: tuple[Bound, ...] = ()
    """what its text must hold to"""

    @classmethod
    def start(
        cls,
        cache: Cache,
        rules: Rules,
        *,
        seed: int,
        block: int,
        length: int,
        forbidden: list[int],
        bounds: tuple[Bound, ...] = (),
    ) -> Canvas:
        """Noise of `length` positions behind the prefix in `cache`."""
        noise = rules.sampler.start((1, length), random_key(seed, block, 0))
        memory = rules.stop.start((1, length))
        mx.eval(noise, memory)
        state = Refinement(0, noise, None, memory)
        return cls(cache, rules, seed, block, forbidden, state, bounds=bounds)

    @classmethod
    def pinned(
        cls, cache: Cache, rules: Rules, *, seed: int, block: int, pins: Pins, bounds: tuple[Bound, ...] = ()
    ) -> Canvas:
        """Noise at the free positions of a canvas behind the prefix in `cache`; such a canvas is never trimmed."""
        canvas = cls.start(cache, rules, seed=seed, block=block, length=pins.length, forbidden=[], bounds=bounds)
        canvas.pins = pins
        return canvas

    @property
    def row(self) -> CanvasRow:
        """All positions, as the model takes them."""
        if self.pins is None:
            return CanvasRow(self.state.canvas, self.cache, self.state.signal)
        return CanvasRow(
            self.pins.widened_canvas(self.state.canvas), self.cache, self.pins.widened_signal(self.state.signal)
        )

    def whole(self, draft: Draft) -> Draft:
        """A step's draft, for all positions."""
        return draft if self.pins is None else self.pins.widened_draft(draft)

    def trim(self, draft: Draft) -> bool:
        """Drop what stands behind the end token, if the rules want it and the last two drafts agree on its place."""
        if not self.rules.trimmed_at or self.pins is not None:
            return False
        best = cast("list[list[int]]", draft.best.tolist())[0]
        before, self.end = self.end, end_of(best, self.rules.trimmed_at)
        if self.end is None or self.end != before or self.end + 1 == len(best):
            return False
        length = self.end + 1
        number, canvas, signal, memory = self.state
        self.state = Refinement(
            number, canvas[:, :length], None if signal is None else signal[:, :length], memory[..., :length]
        )
        # The next step may be built in another thread.
        mx.eval(self.state)
        return True


def refine(model: DiffusionGemma, canvases: Sequence[Canvas], *, share: int = 1) -> Iterator[list[Draft]]:
    """Denoise canvases together until at least one of them `is_over`, yielding every step's drafts, computed.

    share: how many do this at the same time, of whose logits AT_ONCE speaks.
    """
    ahead: list[mx.array] = []
    while True:
        outcomes = _submit(model, canvases, ahead or _forward(model, canvases), AT_ONCE // share)
        before = [canvas.cache.snapshot() for canvas in canvases]
        for canvas, outcome in zip(canvases, outcomes, strict=True):
            canvas.state = outcome.after
        drafts = [canvas.whole(outcome.draft) for canvas, outcome in zip(canvases, outcomes, strict=True)]
        # What a lane plans it computes, so it plans nothing that may not be wanted.
        here, ahead = this_thread(), [] if in_lane() else _forward(model, canvases)
        # Nothing may be under way when the caller has the word: its thread may end, and MLX's stream with it.
        mx.eval(drafts, [(outcome.finished, outcome.after) for outcome in outcomes])
        for canvas, outcome in zip(canvases, outcomes, strict=True):
            canvas.is_over = canvas.state.step >= canvas.rules.max_steps or bool(outcome.finished.item())
        over = any(canvas.is_over for canvas in canvases)
        trimmed = [canvas.trim(draft) for canvas, draft in zip(canvases, drafts, strict=True)]
        if not over:
            yield drafts
        if over or any(trimmed) or here is not this_thread():
            # What was built ahead is of no use: for nothing, for other lengths, or in another thread.
            for canvas, cache in zip(canvases, before, strict=True):
                canvas.cache.restore(cache)
            ahead = []
            if over:
                yield drafts
                return
        # Nobody may hold the prefix as it was when the next step writes behind it.
        del before


def _forward(model: DiffusionGemma, canvases: Sequence[Canvas]) -> list[mx.array]:
    """The graph of the final hidden states of every canvas, of its free positions."""
    hidden = model.denoise_rows([canvas.row for canvas in canvases])
    return [
        each if canvas.pins is None else canvas.pins.narrowed(each)
        for canvas, each in zip(canvases, hidden, strict=True)
    ]


def _submit(model: DiffusionGemma, canvases: Sequence[Canvas], hidden: Sequence[mx.array], most: int) -> list[Outcome]:
    """Let the next step of every canvas be computed, so many logits at once at most."""
    outcomes: list[Outcome] = []
    for group in _groups(canvases, most // model.config.vocab_size):
        outcomes += _step(model, canvases[group], mx.concatenate(list(hidden[group]), axis=0))
    # The signal too, though behind the last step it is not needed: kept as a graph it would keep the logits.
    mx.async_eval([(outcome.draft, outcome.finished, outcome.after) for outcome in outcomes])
    return outcomes


def _groups(canvases: Sequence[Canvas], most: int) -> Iterator[slice]:
    """Neighbours of one length and one set of rules, of so many positions together at most."""
    start = 0
    for place, canvas in enumerate(canvases):
        first, length = canvases[start], canvas.state.canvas.shape[1]
        size = (place + 1 - start) * length
        alike = first.state.canvas.shape[1] == length and first.rules == canvas.rules
        if place > start and (not alike or size > most):
            yield slice(start, place)
            start = place
    yield slice(start, len(canvases))


def _step(model: DiffusionGemma, canvases: Sequence[Canvas], hidden: mx.array) -> list[Outcome]:
    """The next step of canvases that are alike, from their final hidden states [B, C, D]; bounds have it computed."""
    rules, numbers = canvases[0].rules, [canvas.state.step + 1 for canvas in canvases]
    # At full size an array over the vocabulary is 268 MB: none is named that the next step does not need.
    processed = settled(model.processed_logits(hidden, [rules.schedule.temperature(number) for number in numbers]))
    for row, canvas in enumerate(canvases):
        if canvas.forbidden:
            processed[row, 0, canvas.forbidden] = FORBIDDEN
        for places, tokens in () if canvas.pins is None else canvas.pins.bans:
            processed[row, places, tokens] = FORBIDDEN
    keys = [random_key(canvas.seed, canvas.block, number) for canvas, number in zip(canvases, numbers, strict=True)]
    noisy = mx.concatenate([canvas.state.canvas for canvas in canvases])
    draft = settled(rules.sampler.step(processed, noisy, mx.stack(keys)))
    draft = bound(processed, draft, [canvas.bounds for canvas in canvases])
    before = mx.concatenate([canvas.state.memory for canvas in canvases], axis=1)
    memory, finished = rules.stop.judge(mx.array(numbers), before, draft.best, draft.entropy)
    signal = model.signal(processed, rules.conditioning_top_k, draft.total)
    rows = [slice(row, row + 1) for row in range(len(canvases))]
    return [
        Outcome(
            Draft(*(field[row] for field in draft)),
            finished[row],
            Refinement(number, draft.canvas[row], signal[row], memory[:, row]),
        )
        for row, number in zip(rows, numbers, strict=True)
    ]


def end_of(best: Sequence[int], stop_tokens: Sequence[int]) -> int | None:
    """The position of the first end token."""
    return next((place for place, token in enumerate(best) if token in stop_tokens), None)
