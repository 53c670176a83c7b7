"""Rows of a step: the positions of a canvas that go through the layers, all of them or those that are not settled.

A position is settled if its token was accepted and has been through the layers: it was noise in one step, was accepted,
and went through once more as what it is. Its keys and values stay in the cache, and what its logits said stays as it
was, until a step computes all positions again: every so many steps, and before a canvas is over.

    step 5   x ~ ~ x ~ ~    accepted: x
    step 6   X ~ ~ X x ~    computed: all, the tokens X for the first time
    step 7   . ~ ~ . X x    computed: not the two that are settled
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias, cast

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mlx_diffgemma.model.logits import ProcessedLogits, Reading
from mlx_diffgemma.sampling.sampler import Draft

Places: TypeAlias = NDArray[np.int64]
"""Positions of one canvas, in order."""

ROW_STEP = 16
"""Steps compute a multiple of this many positions: the height of the tiles in which rows are multiplied."""
MOST = 3 / 4
"""A step that would compute more of a canvas than this computes all of it."""


class Passed(NamedTuple):
    """What the steps so far leave to one that computes some positions alone."""

    tokens: mx.array
    """[1, C] ids with which each position last went through the layers"""
    draft: Draft
    """of the last step"""
    partial: int
    """number of steps since all positions went through"""

    def until(self, length: int) -> Passed:
        """Return what concerns the first positions."""
        draft = Draft(*(field[:, :length] for field in self.draft))
        return Passed(self.tokens[:, :length], draft, self.partial)


def unsettled(passed: Passed) -> Places | None:
    """Return the positions that a step must compute, and as many of the least certain others as fill the last tile.

    None: it computes all, because so many are not settled, or because all are accepted and it may be the last step.
    """
    draft, accepted = passed.draft, _row(passed.draft.accepted)
    is_open = ~accepted | (_row(draft.canvas) != _row(passed.tokens))
    count = -(-int(is_open.sum()) // ROW_STEP) * ROW_STEP
    if accepted.all() or count > MOST * len(is_open):
        return None
    order = np.lexsort((-_row(draft.entropy), ~is_open))
    return np.sort(order[:count])


def _row(array: mx.array) -> NDArray[Any]:
    return np.array(cast("Any", array))[0]


class Rows:
    """The positions that a step computes of B canvases: all."""

    def logits(self, computed: ProcessedLogits) -> ProcessedLogits:
        """Return the logits of the rows, whose reading is that of the whole canvases."""
        return computed

    def total(self, total: mx.array) -> mx.array:
        """Return what concerns the rows of a draft's totals: [B, C] -> [B, R]."""
        return total

    def signal(self, signal: mx.array) -> mx.array:
        """Return the signal of all positions from that of the rows: [B, R, D] -> [B, C, D]."""
        return signal

    def tokens(self, canvas: mx.array) -> mx.array:
        """Return the ids with which each position last went through the layers; canvas: those of now, [B, C]."""
        return canvas


@dataclass(frozen=True, eq=False, kw_only=True)
class SomeRows(Rows):
    """The positions that a step computes of B canvases: R of each."""

    places: mx.array
    """[B, R]"""
    before: Draft
    """the drafts of the step before"""
    signal_before: mx.array
    """[B, C, D]"""
    tokens_before: mx.array
    """[B, C] ids with which each position last went through the layers"""

    def logits(self, computed: ProcessedLogits) -> ProcessedLogits:
        """See Rows."""
        return _RowLogits(computed, self)

    def total(self, total: mx.array) -> mx.array:
        """See Rows."""
        return self.picked(total)

    def signal(self, signal: mx.array) -> mx.array:
        """See Rows."""
        return self.merged(self.signal_before, signal)

    def tokens(self, canvas: mx.array) -> mx.array:
        """See Rows."""
        return self.merged(self.tokens_before, self.picked(canvas))

    def picked(self, whole: mx.array) -> mx.array:
        """[B, C] -> [B, R]"""
        return mx.take_along_axis(whole, self.places, axis=1)

    def merged(self, whole: mx.array, values: mx.array) -> mx.array:
        """Return `whole` [B, C, ..] with values [B, R, ..] at these rows."""
        places = self.places.reshape(*self.places.shape, *[1] * (values.ndim - 2))
        return mx.put_along_axis(whole, mx.broadcast_to(places, values.shape), values.astype(whole.dtype), axis=1)


class _RowLogits(ProcessedLogits):
    """The logits [B, R, V] of a step's rows, whose reading is that of the whole canvases [B, C]."""

    def __init__(self, computed: ProcessedLogits, rows: SomeRows) -> None:
        super().__init__(computed.raw, computed._temperature, computed._cap, computed._kernels)
        self._rows = rows

    def read(self, uniform: mx.array) -> Reading:
        """Read the rows, and leave the others as they were; uniform: [B, C]."""
        fresh, before = super().read(self._rows.picked(uniform)), self._rows.before
        # What was accepted is what was drawn; what was not is among the rows.
        stale = Reading(before.best, before.canvas, before.entropy, before.total, before.inverse_probability)
        return Reading(*(self._rows.merged(old, new) for old, new in zip(stale, fresh, strict=True)))
