"""A canvas, and its state between two steps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, cast

import mlx.core as mx
import numpy as np

from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import CanvasRow
from mlx_diffgemma.model.selection import Selection
from mlx_diffgemma.sampling.constrained import ConstrainedSpan
from mlx_diffgemma.sampling.pins import Ban, Pins
from mlx_diffgemma.sampling.rows import Passed, Places, unsettled
from mlx_diffgemma.sampling.sampler import Draft, random_key
from mlx_diffgemma.sampling.stop_strings import BEGINNING, StopProgress, StopStrings
from mlx_diffgemma.sampling.strategy import Rules


@dataclass(frozen=True, kw_only=True, eq=False)
class Endings:
    """What ends an answer, after the part of it that is written: an end token, or a stop string."""

    tokens: tuple[int, ...]
    strings: StopStrings | None = None
    progress: StopProgress = BEGINNING

    def first(self, draft: Sequence[int]) -> int | None:
        """Return the position of the first token of a draft that ends the answer, None if there is none."""
        end = end_of(draft, self.tokens)
        stop = None if self.strings is None else self.strings.find(draft[:end], self.progress)
        return end if stop is None else stop

    def cut(self, draft: Sequence[int]) -> tuple[tuple[int, ...], bool]:
        """Return the part of a draft that belongs to the answer, and whether its last token ends the answer."""
        end = self.first(draft)
        return (tuple(draft), False) if end is None else (tuple(draft[: end + 1]), True)

    def after(self, tokens: Sequence[int]) -> Endings:
        """Return what ends the answer after tokens that do not end it."""
        return self if self.strings is None else replace(self, progress=self.strings.after(tokens, self.progress))


class CanvasState(NamedTuple):
    """What one step leaves to the next, every array with one row; C counts the positions that are not pinned."""

    step: int
    """number of steps done"""
    canvas: mx.array
    """[1, C] ids that the next step starts from"""
    signal: mx.array | None
    """[1, C, D] soft embedding of the last step, None before the first"""
    memory: mx.array
    """what the stop rule remembers"""
    passed: Passed | None = None
    """what steps leave to one that computes some positions alone; None if there is no such step"""


@dataclass(eq=False)
class Canvas:
    """One canvas being denoised: what stays the same, and the state that changes with each step."""

    cache: Cache
    """the prefix"""
    rules: Rules
    seed: int
    block: int
    forbidden: list[int]
    """tokens that the first position cannot have"""
    state: CanvasState
    pins: Pins | None = None
    spans: tuple[ConstrainedSpan, ...] = ()
    """positions whose text must match a constraint"""
    endings: Endings | None = None
    """what ends the answer; None for a canvas of which every position is kept"""
    is_over: bool = False
    end: int | None = None
    """position of the token in the last draft that ends the answer, if the rules trim"""
    places: Places | None = None
    """the positions that go through the layers in the next step, counted without pinned ones; None: all"""
    selection: Selection | None = None
    """what the first step looks at, if the rules ask for it"""

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
        spans: tuple[ConstrainedSpan, ...] = (),
        endings: Endings | None = None,
    ) -> Canvas:
        """Return a canvas of `length` positions of noise after the prefix in `cache`."""
        cache.widen()
        noise = rules.sampler.start((1, length), random_key(seed, block, 0))
        memory = rules.stop.start((1, length))
        mx.eval(noise, memory)
        state = CanvasState(0, noise, None, memory)
        selection = None if rules.prefix_top_k is None else Selection(rules.prefix_top_k)
        return cls(cache, rules, seed, block, forbidden, state, spans=spans, endings=endings, selection=selection)

    @classmethod
    def pinned(
        cls, cache: Cache, rules: Rules, *, seed: int, block: int, pins: Pins, spans: tuple[ConstrainedSpan, ...] = ()
    ) -> Canvas:
        """Return a canvas with noise at its free positions, after the prefix in `cache`; it is never trimmed."""
        canvas = cls.start(cache, rules, seed=seed, block=block, length=pins.length, forbidden=[], spans=spans)
        canvas.pins = pins
        return canvas

    @property
    def row(self) -> CanvasRow:
        """All positions, pinned ones included, as the model takes them."""
        canvas, signal = self.state.canvas, self.state.signal
        places = None if self.places is None else mx.array(self.places)
        if self.pins is None:
            return CanvasRow(canvas, self.cache, signal, places, self.selection)
        places = None if places is None else self.pins.free[places]
        canvas, signal = self.pins.widened_canvas(canvas), self.pins.widened_signal(signal)
        return CanvasRow(canvas, self.cache, signal, places, self.selection)

    def free_positions(self, hidden: mx.array) -> mx.array:
        """Return the hidden states of the positions that are not pinned, out of those that a step computed."""
        return hidden if self.pins is None or self.places is not None else self.pins.narrowed(hidden)

    @property
    def takes_all(self) -> bool:
        """Whether every step computes all positions: by its rules, or because it must match a constraint."""
        return self.rules.whole_every is None or bool(self.spans)

    @property
    def bans(self) -> list[Ban]:
        """Tokens that some positions cannot have."""
        first = [Ban(slice(0, 1), mx.array(self.forbidden))] if self.forbidden else []
        return first + list(() if self.pins is None else self.pins.bans)

    def passed(self, tokens: mx.array, draft: Draft) -> Passed | None:
        """Return what a step leaves to one that computes some positions alone; see Passed."""
        if self.takes_all:
            return None
        before = self.state.passed
        partial = 0 if self.places is None or before is None else before.partial + 1
        return Passed(tokens, draft, partial)

    def restore(self, state: CanvasState) -> None:
        """Go back to the state before a step that failed."""
        self.state = state
        if state.step == 0 and self.rules.prefix_top_k is not None:
            self.cache.widen()
            self.selection = Selection(self.rules.prefix_top_k)

    def narrow_prefix(self) -> None:
        """Go on with the part of the prefix that the first step looked at, after it."""
        if self.selection is not None:
            self.cache.narrow(self.selection.chosen)
            self.selection = None

    def choose_places(self, *, is_settled: bool) -> None:
        """Choose the positions of the next step, after one that is computed; is_settled: the stop rule's verdict."""
        self.places = None
        if self.takes_all or is_settled or self.state.step + 1 >= self.rules.max_steps:
            return
        if self.state.step == 1 and self.rules.prefix_top_k is not None:
            # The layers that were narrowed have not seen the canvas.
            return
        passed = self.state.passed
        assert passed is not None and self.rules.whole_every is not None
        if passed.partial + 1 < self.rules.whole_every:
            self.places = unsettled(passed)

    def computed(self, positions: slice) -> slice:
        """Return where some positions stand among those that the step computes; positions: not pinned ones."""
        if self.places is None:
            return positions
        start, stop = np.searchsorted(self.places, [positions.start, positions.stop]).tolist()
        return slice(start, stop)

    def widened(self, draft: Draft) -> Draft:
        """Return a step's draft for all positions, pinned ones included."""
        return draft if self.pins is None else self.pins.widened_draft(draft)

    def trim(self, draft: Draft) -> bool:
        """Drop the positions after the end of the answer if the rules ask for it and two drafts agree on the end.

        Returns whether the canvas is shorter now.
        """
        if not self.rules.trims or self.endings is None:
            return False
        best = _best_tokens(draft)
        before, self.end = self.end, self.endings.first(best)
        if self.end is None or self.end != before or self.end + 1 == len(best):
            return False
        length = self.end + 1
        number, canvas, signal, memory, passed = self.state
        self.state = CanvasState(
            number,
            canvas[:, :length],
            None if signal is None else signal[:, :length],
            memory[..., :length],
            None if passed is None else passed.until(length),
        )
        # Another thread may take the next step.
        mx.eval(self.state)
        return True

    def is_settled_until_stop(self, draft: Draft, memory: mx.array) -> bool:
        """Whether the stop rule finishes the text of the last step's draft up to its first stop string.

        It sees the mean entropy of that text or of the whole canvas, whichever is lower, as up to an end token.
        memory: what the rule remembered before the draft.
        """
        if not self.rules.until_end or self.endings is None or self.endings.strings is None:
            return False
        end = self.endings.first(_best_tokens(draft))
        if end is None:
            return False
        text = slice(end + 1)
        surer = mx.minimum(draft.entropy[:, text].mean(), draft.entropy.mean())
        best = draft.best[:, text]
        entropy = mx.broadcast_to(surer, best.shape)
        _, finished = self.rules.stop.judge(mx.array([self.state.step]), memory[..., text], best, entropy)
        return bool(finished.item())


def _best_tokens(draft: Draft) -> list[int]:
    return cast("list[list[int]]", draft.best.tolist())[0]


def end_of(best: Sequence[int], stop_tokens: Sequence[int]) -> int | None:
    """Return the position of the first end token, None if there is none."""
    return next((position for position, token in enumerate(best) if token in stop_tokens), None)
