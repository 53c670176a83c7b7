"""A model whose every answer can be foretold: it counts on from the last token of the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import mlx.core as mx
from tiny import processed

from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import CanvasRow
from mlx_diffgemma.model.kernels import default_kernels
from mlx_diffgemma.model.logits import ProcessedLogits

STOP, FAILS = 1, 2
"""Tokens: the end of an answer, and one whose presence in a prompt lets every step fail."""
CANVAS, LAST = 4, 31


class CountingModel:
    """After a prompt that ends with n it answers n + 1, n + 2, ... up to 31, then STOP; canvases of four.

    `encoded` has the tokens of every call of `encode`, row by row.
    """

    kernels = default_kernels()
    dtype = mx.float32
    config = SimpleNamespace(
        vocab_size=LAST + 1, canvas_length=CANVAS, max_position_embeddings=1000, layers=(), sliding_window=1
    )

    def __init__(self) -> None:
        self.encoded: list[list[int]] = []

    def make_cache(self) -> Remembering:
        """Return a cache that has nothing but the tokens."""
        return Remembering()

    def encode(self, rows: Sequence[mx.array], caches: Sequence[Remembering]) -> list[mx.array]:
        """Remember the tokens."""
        for tokens, cache in zip(rows, caches, strict=True):
            ids = tokens[0].tolist()
            self.encoded.append(ids)
            cache.tokens = (*cache.tokens, *ids)
            cache.offset = len(cache.tokens)
        return list(rows)

    def denoise(self, rows: Sequence[CanvasRow]) -> list[mx.array]:
        """The next tokens of each row as logits, if nothing in the prompt forbids it."""
        if any(FAILS in row.cache.tokens for row in rows):  # type: ignore[attr-defined]
            raise ValueError("a prompt holds the token that fails")
        return [self._row(row.cache.tokens[-1], row.canvas.shape[1]) for row in rows]  # type: ignore[attr-defined]

    def _row(self, last: int, length: int) -> mx.array:
        following = [last + 1 + n if last + 1 + n <= LAST else STOP for n in range(length)]
        return 30.0 * (mx.array([following])[..., None] == mx.arange(LAST + 1)).astype(mx.float32)

    def processed_logits(self, hidden: mx.array, temperature: Sequence[float]) -> ProcessedLogits:
        """The logits as they are."""
        return processed(hidden)

    def signal(self, processed: ProcessedLogits, top_k: int | None = None, total: mx.array | None = None) -> mx.array:
        """Nothing that is listened to."""
        return mx.zeros((*processed.shape[:2], 1))


class Remembering(Cache):
    """A cache of tokens."""

    def __init__(self) -> None:
        super().__init__((), 1)
        self.tokens: tuple[int, ...] = ()

    def restore(self, snapshot: Cache) -> None:
        """Undo what was read since the snapshot."""
        super().restore(snapshot)
        self.tokens = snapshot.tokens  # type: ignore[attr-defined]


def counted_on(prompt: Sequence[int], max_tokens: int) -> tuple[int, ...]:
    """The answer to a prompt."""
    answer = [*range(prompt[-1] + 1, LAST + 1), STOP]
    return tuple(answer[:max_tokens])
