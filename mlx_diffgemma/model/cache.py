"""Keys and values of the prefix, per layer: written by the encoder, read by the decoder.

Full-attention layers keep every token. Sliding layers keep the last window - 1 tokens, which is all that a later token
or a canvas may see of them, so their memory does not grow with the context.

A layer's buffer has free positions after the kept tokens. `write` puts new keys and values there, where the layer's
queries see both without a copy of the prefix. `advance` makes them part of the prefix. Those of a canvas never become
part of it: the next step overwrites them, all with `write` or some with `rewrite`.

    kept  kept  kept  | written  written |  free
                      advance(1) -> kept
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import TypeAlias

import mlx.core as mx

from mlx_diffgemma.model.config import LayerConfig

KeysValues: TypeAlias = tuple[mx.array, mx.array]
"""Keys and values of one layer, each [B, heads, tokens, head_dim]."""

BUFFER_STEP = 256
"""Buffers have a multiple of this many positions, so that decoding token by token seldom copies the prefix."""
BRANCH_STEP = 16
"""The same for a branch, whose buffers hold its own tokens alone."""


class LayerCache:
    """The prefix as one layer keeps it: every token, or the last `limit`."""

    def __init__(self, limit: int | None = None, step: int = BUFFER_STEP) -> None:
        self._limit = limit
        self._step = step
        self._buffer: KeysValues | None = None
        # The kept tokens are those at the positions start .. stop of the buffer.
        self._start = self._stop = 0

    @classmethod
    def holding(cls, keys: mx.array, values: mx.array) -> LayerCache:
        """Return a cache that keeps these tokens."""
        made = cls()
        made._buffer, made._stop = (keys, values), keys.shape[2]
        return made

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

    def rewrite(self, keys: mx.array, values: mx.array, positions: mx.array, count: int) -> KeysValues:
        """Replace some of the `count` tokens that were written last, and return what `write` returned for them all.

        positions: [R] of the tokens that keys and values belong to, counted from the first of the `count`.
        """
        assert self._buffer is not None, "nothing was written"
        written = self._buffer[0][...], self._buffer[1][...]
        for array, new in zip(written, (keys, values), strict=True):
            array[:, :, self._stop + positions] = new
        self._buffer = written
        stop = self._stop + count
        return written[0][:, :, self._start : stop], written[1][:, :, self._start : stop]

    def advance(self, count: int) -> None:
        """Keep the first `count` of the tokens written last, and forget the oldest ones over the limit."""
        self._stop += count
        if self._limit is not None:
            self._start = max(self._start, self._stop - self._limit)

    def branch(self) -> BranchedLayer:
        """Return a branch after what is kept now."""
        kept = self.arrays
        return BranchedLayer([(kept[0], kept[1])] if self.length else [], self._limit)

    def _moved(self, new: mx.array, of: int = 0) -> mx.array:
        """Return a larger buffer that begins with the kept tokens and has free positions for the new ones."""
        batch, heads, count, size = new.shape
        capacity = -(-(self.length + count) // self._step) * self._step
        if self._buffer is None:
            return mx.zeros((batch, heads, capacity, size), new.dtype)
        kept = self._buffer[of][:, :, self._start : self._stop]
        return mx.concatenate([kept, mx.zeros((batch, heads, capacity - self.length, size), new.dtype)], axis=2)


class BranchedLayer:
    """What one layer keeps after a prefix that other branches share: all read the prefix, none copies it to keep it."""

    def __init__(self, shared: Sequence[KeysValues], limit: int | None) -> None:
        """shared: the kept tokens of the prefix, piece after piece; limit: see LayerCache."""
        self._shared = tuple(shared)
        self._limit = limit
        self._own = LayerCache(limit, BRANCH_STEP)

    @property
    def length(self) -> int:
        """Number of tokens that are kept, those of the prefix included."""
        return sum(piece[0].shape[2] for piece in self._pieces)

    @property
    def arrays(self) -> list[mx.array]:
        """The keys and values that are kept."""
        return list(_joined_pieces(self._pieces)) if self._pieces else []

    @property
    def nbytes(self) -> int:
        """Size of the branch's own buffers in bytes."""
        return self._own.nbytes

    def write(self, keys: mx.array, values: mx.array) -> KeysValues:
        """Do what LayerCache.write does; the keys and values that are returned are a copy, held as long as they are."""
        before = self._kept_of_shared(self._own.length)
        return _joined_pieces([*before, self._own.write(keys, values)])

    def rewrite(self, keys: mx.array, values: mx.array, positions: mx.array, count: int) -> KeysValues:
        """Do what LayerCache.rewrite does; the keys and values that are returned are a copy, as with `write`."""
        before = self._kept_of_shared(self._own.length)
        return _joined_pieces([*before, self._own.rewrite(keys, values, positions, count)])

    def advance(self, count: int) -> None:
        """Keep the first `count` of the tokens written last, and forget the oldest ones over the limit."""
        self._own.advance(count)

    def branch(self) -> BranchedLayer:
        """Return a branch after what is kept now."""
        return BranchedLayer(self._pieces, self._limit)

    def __copy__(self) -> BranchedLayer:
        """Return this branch as it is now; it goes on by itself."""
        kept = BranchedLayer(self._shared, self._limit)
        kept._own = copy(self._own)
        return kept

    @property
    def _pieces(self) -> list[KeysValues]:
        own = self._own.arrays
        return [*self._kept_of_shared(self._own.length), *([(own[0], own[1])] if own and self._own.length else [])]

    def _kept_of_shared(self, after: int) -> list[KeysValues]:
        """Return the pieces of the prefix that are kept with so many tokens after them."""
        room = None if self._limit is None else self._limit - after
        kept: list[KeysValues] = []
        for keys, values in reversed(self._shared):
            count = keys.shape[2] if room is None else min(room, keys.shape[2])
            if count > 0:
                kept.append((keys[:, :, -count:], values[:, :, -count:]))
            room = None if room is None else room - count
        return kept[::-1]


def _joined_pieces(pieces: Sequence[KeysValues]) -> KeysValues:
    if len(pieces) == 1:
        return pieces[0]
    return mx.concatenate([keys for keys, _ in pieces], axis=2), mx.concatenate([each for _, each in pieces], axis=2)


class Cache:
    """The prefix of one sequence, or of a batch of equally long ones: a cache per layer, and its number of tokens."""

    def __init__(self, layers: tuple[LayerConfig, ...], window: int) -> None:
        self.layers: list[LayerCache | BranchedLayer] = [
            LayerCache(window - 1 if layer.sliding else None) for layer in layers
        ]
        self.offset = 0
        self._narrowed: dict[int, LayerCache] = {}

    @property
    def canvas_layers(self) -> list[LayerCache | BranchedLayer]:
        """The layers as a canvas sees them: of those that are narrowed, the chosen positions."""
        return [self._narrowed.get(index, layer) for index, layer in enumerate(self.layers)]

    @property
    def narrowed_arrays(self) -> list[mx.array]:
        """The keys and values that canvases see of narrowed layers."""
        return [array for layer in self._narrowed.values() for array in layer.arrays]

    def narrow(self, chosen: Mapping[int, mx.array]) -> None:
        """Show canvases some positions of the prefix alone, until `widen` or `advance`: layer -> positions, in order.

        What a canvas has written to these layers is forgotten.
        """
        for index, positions in chosen.items():
            keys, values = (mx.take(array, positions, axis=2) for array in self.layers[index].arrays)
            self._narrowed[index] = LayerCache.holding(keys, values)

    def widen(self) -> None:
        """Show canvases the whole prefix again."""
        self._narrowed = {}

    @property
    def arrays(self) -> list[mx.array]:
        """All keys and values of all layers."""
        return [array for layer in self.layers for array in layer.arrays]

    @property
    def nbytes(self) -> int:
        """Size of the cache in bytes."""
        return sum(layer.nbytes for layer in (*self.layers, *self._narrowed.values()))

    def snapshot(self) -> Cache:
        """Return this cache as it is now, for `restore`; as long as it is held, writing copies the prefix."""
        kept = copy(self)
        kept.layers = [copy(layer) for layer in self.layers]
        kept._narrowed = {index: copy(layer) for index, layer in self._narrowed.items()}
        return kept

    def branch(self) -> Cache:
        """Return a cache that goes on after this one's tokens, which it shares: for many short texts after one prefix.

        Every write copies the prefix of a layer for as long as that layer is computed, but none keeps the copy.
        """
        branched = copy(self)
        branched.layers = [layer.branch() for layer in self.layers]
        branched.widen()
        return branched

    def restore(self, snapshot: Cache) -> None:
        """Undo all that was written and kept since the snapshot, even what is not computed yet."""
        self.layers, self.offset, self._narrowed = snapshot.layers, snapshot.offset, snapshot._narrowed

    def advance(self, count: int) -> None:
        """Keep the first `count` of the tokens that were written last to every layer."""
        for layer in self.layers:
            layer.advance(count)
        self.offset += count
        self.widen()
