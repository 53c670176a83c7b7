"""When a canvas is finished. The reference's rule, and two that are put around it:

StableAndConfident    the most likely tokens have stopped changing and the model is sure of them
Unsurprised           ... or the mean entropy is low, after a few steps
UntilEnd              ... judged up to the first end token: what stands behind it is never shown; or as a whole, where
                      the model is surer of that, so that no canvas takes longer than by the rule inside
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx


class StopRule(Protocol):
    """Judges every row of a batch after every step; what it has to remember is the caller's to keep."""

    def start(self, shape: tuple[int, int]) -> mx.array:
        """The memory before the first step of canvases of shape (B, C)."""
        ...

    def judge(self, step: mx.array, memory: mx.array, best: mx.array, entropy: mx.array) -> tuple[mx.array, mx.array]:
        """best and entropy [B, C] -> the new memory, and bool [B]: which rows are finished

        step: how many steps each row has had, this one included [B].
        """
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

    def judge(self, step: mx.array, memory: mx.array, best: mx.array, entropy: mx.array) -> tuple[mx.array, mx.array]:
        """-> memory with `best` as its newest, and which rows are stable and confident"""
        del step
        stable = mx.all(memory == best[None], axis=(0, 2))
        confident = mx.mean(entropy, axis=-1) < self.confidence
        kept = mx.concatenate([memory, best[None]])[1:] if self.stability else memory
        return kept, stable & confident


@dataclass(frozen=True, kw_only=True)
class Unsurprised:
    """Finished too where the mean entropy is below `mean_entropy` nats, from step `min_steps` on."""

    rule: StopRule
    mean_entropy: float
    min_steps: int

    def start(self, shape: tuple[int, int]) -> mx.array:
        """The memory of the rule inside."""
        return self.rule.start(shape)

    def judge(self, step: mx.array, memory: mx.array, best: mx.array, entropy: mx.array) -> tuple[mx.array, mx.array]:
        """-> the rule's memory, and which rows it or the entropy finishes"""
        kept, finished = self.rule.judge(step, memory, best, entropy)
        return kept, finished | ((step >= self.min_steps) & (mx.mean(entropy, axis=-1) < self.mean_entropy))


@dataclass(frozen=True, kw_only=True)
class UntilEnd:
    """The rule inside sees a canvas that ends at its first end token: one id follows.

    The entropy that it sees is the mean up to there, or that of the whole canvas where it is lower: padding of which
    the model is sure makes a canvas confident, as it does in the reference.
    """

    rule: StopRule
    stop_tokens: tuple[int, ...]

    def start(self, shape: tuple[int, int]) -> mx.array:
        """The memory of the rule inside."""
        return self.rule.start(shape)

    def judge(self, step: mx.array, memory: mx.array, best: mx.array, entropy: mx.array) -> tuple[mx.array, mx.array]:
        """-> the rule's memory, and which rows are finished up to their ends"""
        ends = mx.any(best[..., None] == mx.array(self.stop_tokens, dtype=best.dtype), axis=-1).astype(mx.int32)
        shown = mx.cumsum(ends, axis=-1) - ends == 0
        of_text = (entropy * shown).sum(axis=-1, keepdims=True) / shown.sum(axis=-1, keepdims=True)
        surer = mx.minimum(of_text, mx.mean(entropy, axis=-1, keepdims=True))
        return self.rule.judge(step, memory, mx.where(shown, best, 0), mx.broadcast_to(surer, entropy.shape))
