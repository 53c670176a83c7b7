"""Tokens that stand fixed in a canvas, and what must not stand between them.

A pinned position holds its token in every step: in the canvas, and as its own embedding in the conditioning, which is
what certainty of it gives. It is never read, drawn or judged: a canvas on its way consists of its free positions
alone, and the pins are put around them where the layers need the whole.

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
    """Tokens that must not stand at some of the free positions, counted among the free ones."""

    places: slice
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
        """The pins of a canvas whose `slots` are tokens, or None where it is free: at one position at least."""
        free = mx.array([place for place, token in enumerate(slots) if token is None])
        canvas = mx.array([[0 if token is None else token for token in slots]])
        is_pinned = mx.array([[token is not None for token in slots]])
        embedded = model.embed(canvas)
        signal = mx.where(is_pinned[..., None], embedded, mx.zeros_like(embedded))
        # Nothing may be left to compute: the steps may be taken by other threads.
        mx.eval(canvas, signal, free)
        return cls(canvas=canvas, signal=signal, free=free, bans=tuple(bans))

    @property
    def length(self) -> int:
        """Free positions."""
        return self.free.size

    def widened_canvas(self, canvas: mx.array) -> mx.array:
        """ids [1, F] -> [1, C]"""
        return _placed(self.canvas, self.free, canvas)

    def widened_signal(self, signal: mx.array | None) -> mx.array:
        """[1, F, D], None before the first step -> [1, C, D]"""
        return self.signal if signal is None else _placed(self.signal, self.free, signal)

    def narrowed(self, hidden: mx.array) -> mx.array:
        """[1, C, D] -> [1, F, D]"""
        return mx.take(hidden, self.free, axis=1)

    def widened_draft(self, draft: Draft) -> Draft:
        """A draft of the free positions as one of the canvas: pinned ones are accepted and certain."""
        nothing = mx.zeros(self.canvas.shape)
        return Draft(
            canvas=self.widened_canvas(draft.canvas),
            best=self.widened_canvas(draft.best),
            accepted=_placed(mx.ones(self.canvas.shape, mx.bool_), self.free, draft.accepted),
            entropy=_placed(nothing, self.free, draft.entropy),
            total=_placed(nothing, self.free, draft.total),
            rarity=_placed(mx.ones(self.canvas.shape), self.free, draft.rarity),
        )


def _placed(whole: mx.array, places: mx.array, values: mx.array) -> mx.array:
    """`whole` [1, C, ..] with values [1, F, ..] at `places`."""
    placed = whole[...]
    placed[:, places] = values.astype(whole.dtype)
    return placed
