"""One choice of lengths for the gaps of a canvas: what its last step said, and what the encoder says of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx

from mlx_diffgemma.errors import require_numbers
from mlx_diffgemma.infilling.boundaries import Joints
from mlx_diffgemma.infilling.windows import Layout, Window
from mlx_diffgemma.sampling.canvas import Canvas, end_of
from mlx_diffgemma.sampling.sampler import Draft


@dataclass(eq=False)
class Candidate:
    """A canvas of one choice of lengths, and the draft of its last step."""

    lengths: tuple[int, ...]
    layout: Layout
    canvas: Canvas
    best: tuple[int, ...] = ()
    accepted: tuple[bool, ...] = ()
    entropy: float = float("inf")
    """nats per free position"""
    score: float = float("-inf")
    """log-probability per token, given all before"""
    last: mx.array | None = None
    """hidden state [1, 1, D] of the last token, the encoder's"""

    def take(self, draft: Draft) -> None:
        """The draft of one step, computed. Raises WeightsError for one that holds no numbers."""
        length = self.layout.length
        self.best = tuple(cast("list[int]", draft.best[0, :length].tolist()))
        self.accepted = tuple(cast("list[bool]", draft.accepted[0, :length].tolist()))
        self.entropy = cast("float", draft.entropy.sum().item()) / self.layout.free
        require_numbers(self.entropy)

    def tokens(self, stop_tokens: Sequence[int]) -> tuple[int, ...]:
        """What would be committed: up to an end token."""
        end = end_of(self.best, stop_tokens)
        return self.best if end is None else self.best[: end + 1]

    def texts(self, joints: Joints, window: Window, stop_tokens: Sequence[int]) -> list[str] | None:
        """What stands in the gaps, up to an end token; None where one is no text."""
        texts: list[str] = []
        for (start, stop), hole in zip(self.layout.spans, window.holes, strict=True):
            tokens = self.best[start:stop]
            text = joints.text(tokens[: end_of(tokens, stop_tokens)], hole)
            if text is None:
                return None
            texts.append(text)
        return texts
