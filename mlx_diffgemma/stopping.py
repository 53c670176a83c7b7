"""When a canvas is finished: its most likely tokens have stopped changing and the model is sure of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx


class StopRule(Protocol):
    """Judges every row of a batch after every step; what it has to remember is the caller's to keep."""

    def start(self, shape: tuple[int, int]) -> mx.array:
        """The memory before the first step of canvases of shape (B, C)."""
        ...

    def judge(self, memory: mx.array, best: mx.array, entropy: mx.array) -> tuple[mx.array, mx.array]:
        """best and entropy [B, C] -> the new memory, and bool [B]: which rows are finished"""
        ...


@dataclass(frozen=True, kw_only=True)
class StableAndConfident:
    """The reference's rule: `best` equals that of each of the last `stability` steps, and mean entropy < `confidence`.

    The memory is those steps' ids [stability, B, C], oldest first, -1 where there was no step yet.
    """

    stability: int
    confidence: float

    def start(self, shape: tuple[int, int]) -> mx.array:
        """No step yet."""
        return mx.full((self.stability, *shape), -1, dtype=mx.int32)

    def judge(self, memory: mx.array, best: mx.array, entropy: mx.array) -> tuple[mx.array, mx.array]:
        """-> memory with `best` as its newest, and which rows are stable and confident"""
        stable = mx.all(memory == best[None], axis=(0, 2))
        confident = mx.mean(entropy, axis=-1) < self.confidence
        kept = mx.concatenate([memory, best[None]])[1:] if self.stability else memory
        return kept, stable & confident
