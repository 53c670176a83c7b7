"""When a canvas is finished: the reference's rule, and two rules that wrap another one.

StableAndConfident    finished when the most likely tokens have stopped changing and the model is sure of them
Unsurprised           also finished when the mean entropy is low, after a few steps
UntilEnd              judges the text up to the first end token, since what follows is never shown
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx


class StopRule(Protocol):
    """Judges every row of a batch after every step; the caller keeps the rule's memory between steps."""

    def start(self, shape: tuple[int, int]) -> mx.array:
        """Return the memory before the first step of canvases of shape (B, C)."""
        ...

    def judge(self, step: mx.array, memory: mx.array, best: mx.array, entropy: mx.array) -> tuple[mx.array, mx.array]:
        """Return the new memory, and bool [B]: which rows are finished, by `best` and `entropy` [B, C].

        step: the number of each row's steps, this one included [B].
        """
        ...


@dataclass(frozen=True, kw_only=True)
class StableAndConfident:
    """The reference's rule: `best` equals that of the last `stability` steps, and the mean entropy is < `confidence`.

    The memory holds the ids of those steps [stability, B, C], oldest first, -1 for steps before the first.
    """

    stability: int
    confidence: float

    def start(self, shape: tuple[int, int]) -> mx.array:
        """Return a memory of no steps."""
        return mx.full((self.stability, *shape), -1, dtype=mx.int32)

    def judge(self, step: mx.array, memory: mx.array, best: mx.array, entropy: mx.array) -> tuple[mx.array, mx.array]:
        """Return the memory with `best` added, and which rows are stable and confident."""
        del step
        stable = mx.all(memory == best[None], axis=(0, 2))
        confident = mx.mean(entropy, axis=-1) < self.confidence
        kept = mx.concatenate([memory, best[None]])[1:] if self.stability else memory
        return kept, stable & confident


@dataclass(frozen=True, kw_only=True)
class Unsurprised:
    """Finishes a canvas also when the mean entropy is below `mean_entropy` nats, from step `min_steps` on."""

    rule: StopRule
    mean_entropy: float
    min_steps: int

    def start(self, shape: tuple[int, int]) -> mx.array:
        """Return the memory of the inner rule."""
        return self.rule.start(shape)

    def judge(self, step: mx.array, memory: mx.array, best: mx.array, entropy: mx.array) -> tuple[mx.array, mx.array]:
        """Return the inner rule's memory, and which rows the inner rule or the entropy finishes."""
        kept, finished = self.rule.judge(step, memory, best, entropy)
        return kept, finished | ((step >= self.min_steps) & (mx.mean(entropy, axis=-1) < self.mean_entropy))


@dataclass(frozen=True, kw_only=True)
class UntilEnd:
    """Shows the inner rule a canvas that ends at its first end token; the id 0 fills the positions after it.

    The inner rule sees the mean entropy up to the end token or of the whole canvas, whichever is lower: as in the
    reference, padding of which the model is sure makes a canvas confident, so no canvas takes longer than without this.
    """

    rule: StopRule
    stop_tokens: tuple[int, ...]

    def start(self, shape: tuple[int, int]) -> mx.array:
        """Return the memory of the inner rule."""
        return self.rule.start(shape)

    def judge(self, step: mx.array, memory: mx.array, best: mx.array, entropy: mx.array) -> tuple[mx.array, mx.array]:
        """Return the inner rule's memory, and which rows are finished up to their ends."""
        ends = mx.any(best[..., None] == mx.array(self.stop_tokens, dtype=best.dtype), axis=-1).astype(mx.int32)
        shown = mx.cumsum(ends, axis=-1) - ends == 0
        of_text = (entropy * shown).sum(axis=-1, keepdims=True) / shown.sum(axis=-1, keepdims=True)
        surer = mx.minimum(of_text, mx.mean(entropy, axis=-1, keepdims=True))
        return self.rule.judge(step, memory, mx.where(shown, best, 0), mx.broadcast_to(surer, entropy.shape))
