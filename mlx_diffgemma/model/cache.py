"""Keys and values of the prefix, per layer: written by the encoder, read by the decoder.

Full-attention layers keep every token. Sliding layers keep the last window - 1 tokens, which is all that a later token
or a canvas may see of them, so their memory does not grow with the context.

A layer's buffer has free positions after the kept tokens. `write` puts new keys and values there, where the layer's
queries see both without a copy of the prefix. `advance` makes them part of the prefix. Those of a canvas never become
part of it: the next step overwrites them.

    kept  kept  kept  | written  written |  free
                      advance(1) -> kept
"""

from __future__ import annotations

from copy import copy
from typing import TypeAlias

import mlx.core as mx

from mlx_diffgemma.model.config import LayerConfig

KeysValues: TypeAlias = tuple[mx.array, mx.array]
"""Keys and values of one layer, each [B, heads, tokens, head_dim]."""

BUFFER_STEP = 256
"""Buffers have a multiple of this many positions, so that decoding token by token seldom copies the prefix."""


class LayerCache:
    """The prefix as one layer keeps it: every token, or the last `limit`."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._buffer: KeysValues | None = None
        # The kept tokens are those at the positions start .. stop of the buffer.
        self._start = self._stop = 0

    @property
    def length(self) -> int:
        """Number of tokens that are kept."""
        return self._stop - self._start

    @property
    def arrays(self) -> list[mx.array]:
        """The keys and values that are kept; an empty list before the first."""
        return [array[:, :, self._start : self._stop] for array in self._buffer or ()]

    @property
    def nbytes(self) -> int:
        """Size of the buffers in bytes, free positions included."""
        return sum(array.nbytes for array in self._buffer or ())

    def write(self, keys: mx.array, values: mx.array) -> KeysValues:
        """Write tokens after the kept ones and return both; they are kept only if `advance` says so."""
        stop = self._stop + keys.shape[2]
        if self._buffer is None or stop > self._buffer[0].shape[2]:
            self._buffer = self._moved(keys), self._moved(values, of=1)
            self._start, self._stop = 0, self.length
            stop = self._stop + keys.shape[2]
        # Aliases: a snapshot, which holds the same arrays, does not see what is written from now on.
        written = self._buffer[0][...], self._buffer[1][...]
        for array, new in zip(written, (keys, values), strict=True):
            array[:, :, self._stop : stop] = new
        self._buffer = written
        return written[0][:, :, self._start : stop], written[1][:, :, self._start : stop]

    def advance(self, count: int) -> None:
        """Keep the first `count` of the tokens written last, and forget the oldest ones over the limit."""
        self._stop += count
        if self._limit is not None:
            self._start = max(self._start, self._stop - self._limit)

    def _moved(self, new: mx.array, of: int = 0) -> mx.array:
        """Return a larger buffer that begins with the kept tokens and has free positions for the new ones."""
        batch, heads, count, size = new.shape
        capacity = -(-(self.length + count) // BUFFER_STEP) * BUFFER_STEP
        if self._buffer is None:
            return mx.zeros((batch, heads, capacity, size), new.dtype)
        kept = self._buffer[of][:, :, self._start : self._stop]
        return mx.concatenate([kept, mx.zeros((batch, heads, capacity - self.length, size), new.dtype)], axis=2)


class Cache:
    """The prefix of one sequence, or of a batch of equally long ones: a cache per layer, and its number of tokens."""

    def __init__(self, layers: tuple[LayerConfig, ...], window: int) -> None:
        self.layers = [LayerCache(window - 1 if layer.sliding else None) for layer in layers]
        self.offset = 0

    @property
    def arrays(self) -> list[mx.array]:
        """All keys and values of all layers."""
        return [array for layer in self.layers for array in layer.arrays]

    @property
    def nbytes(self) -> int:
        """Size of the cache in bytes."""
        return sum(layer.nbytes for layer in self.layers)

    def snapshot(self) -> Cache:
        """Return this cache as it is now, for `restore`; as long as it is held, writing copies the prefix."""
        kept = copy(self)
        kept.layers = [copy(layer) for layer in self.layers]
        return kept

    def restore(self, snapshot: Cache) -> None:
        """Undo all that was written and kept since the snapshot, even what is not computed yet."""
        self.layers, self.offset = snapshot.layers, snapshot.offset

    def advance(self, count: int) -> None:
        """Keep the first `count` of the tokens that were written last to every layer."""
        for layer in self.layers:
            layer.advance(count)
        self.offset += count
