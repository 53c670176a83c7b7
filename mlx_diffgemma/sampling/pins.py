"""Pinned tokens of a canvas, and tokens that its free positions cannot have.

A pinned position has its token in every step: in the canvas, and, as if the model were certain of it, in the signal
that conditions the next step. It is never read, drawn or judged. The state of a canvas therefore holds its free
positions alone, and is widened by the pinned ones where the layers need all positions.

    state of the free positions [1, F, ..] -> widened -> denoise -> hidden [1, C, D] -> narrowed [1, F, D] -> the step
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import mlx.core as mx

from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.sampler import Draft


class Ban(NamedTuple):
    """Tokens that some of the free positions cannot have."""

    positions: slice
    """counted among the free ones"""
    tokens: mx.array
    """ids, int32"""


@dataclass(eq=False, frozen=True, kw_only=True)
class Pins:
    """The pinned tokens of a canvas of C positions, F of which are free."""

    canvas: mx.array
    """[1, C] ids, 0 where free"""
    signal: mx.array
    """[1, C, D] scaled embeddings of the pinned tokens, zeros where free"""
    free: mx.array
    """[F] the free positions, in order"""
    bans: tuple[Ban, ...] = ()

    @classmethod
    def of(cls, model: DiffusionGemma, slots: Sequence[int | None], bans: Sequence[Ban] = ()) -> Pins:
        """Return the pins of a canvas whose `slots` are tokens, or None at free positions; at least one is free."""
        free = mx.array([position for position, token in enumerate(slots) if token is None])
        canvas = mx.array([[0 if token is None else token for token in slots]])
        is_pinned = mx.array([[token is not None for token in slots]])
        embedded = model.embed(canvas)
        signal = mx.where(is_pinned[..., None], embedded, mx.zeros_like(embedded))
        # Other threads, which cannot evaluate what this one has planned, may take the steps.
        mx.eval(canvas, signal, free)
        return cls(canvas=canvas, signal=signal, free=free, bans=tuple(bans))

    @property
    def length(self) -> int:
        """Number of free positions."""
        return self.free.size

    def widened_canvas(self, canvas: mx.array) -> mx.array:
        """ids [1, F] -> [1, C]"""
        return _with_values(self.canvas, self.free, canvas)

    def widened_signal(self, signal: mx.array | None) -> mx.array:
        """[1, F, D], None before the first step -> [1, C, D]"""
        return self.signal if signal is None else _with_values(self.signal, self.free, signal)

    def narrowed(self, hidden: mx.array) -> mx.array:
        """[1, C, D] -> [1, F, D]"""
        return mx.take(hidden, self.free, axis=1)

    def widened_draft(self, draft: Draft) -> Draft:
        """Return a draft of the free positions as one of all positions: pinned ones are accepted and certain."""
        nothing = mx.zeros(self.canvas.shape)
        return Draft(
            canvas=self.widened_canvas(draft.canvas),
            best=self.widened_canvas(draft.best),
            accepted=_with_values(mx.ones(self.canvas.shape, mx.bool_), self.free, draft.accepted),
            entropy=_with_values(nothing, self.free, draft.entropy),
            total=_with_values(nothing, self.free, draft.total),
            inverse_probability=_with_values(mx.ones(self.canvas.shape), self.free, draft.inverse_probability),
        )


def _with_values(whole: mx.array, positions: mx.array, values: mx.array) -> mx.array:
    """Return `whole` [1, C, ..] with values [1, F, ..] at `positions` [F]."""
    changed = whole[...]
    changed[:, positions] = values.astype(whole.dtype)
    return changed
