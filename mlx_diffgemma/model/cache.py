"""Keys and values of the prefix, per layer: written by the encoder, read by the decoder.

Full-attention layers keep every token. Sliding layers keep the last window - 1 tokens, which is all that a later token
or a canvas may see of them, so their memory does not grow with the context.

New keys and values are written into room behind those that are kept (`place`), where a layer's queries see both
without a copy of the prefix. They become part of the prefix when the cache is told so (`advance`); a canvas's never
do, and are overwritten by the next step's.

    kept  kept  kept  | placed  placed |  room
                      advance(1) ->  kept
"""

from __future__ import annotations

from copy import copy
from typing import TypeAlias

import mlx.core as mx

from mlx_diffgemma.model.config import LayerConfig

KeysValues: TypeAlias = tuple[mx.array, mx.array]
"""Keys and values of one layer, each [B, heads, tokens, head_dim]."""

GROWTH = 256
"""Room is added in multiples of this many tokens, so that decoding one at a time seldom copies the prefix."""


class LayerCache:
    """The prefix as one layer keeps it: every token, or the last `limit`."""

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._room: KeysValues | None = None
        # The kept tokens are those from start to stop of the room.
        self._start = self._stop = 0

    @property
    def length(self) -> int:
        """Tokens that are kept."""
        return self._stop - self._start

    @property
    def arrays(self) -> list[mx.array]:
        """The keys and values that are kept, once there are any."""
        return [array[:, :, self._start : self._stop] for array in self._room or ()]

    @property
    def nbytes(self) -> int:
        """Bytes that are held, the room included."""
        return sum(array.nbytes for array in self._room or ())

    def place(self, keys: mx.array, values: mx.array) -> KeysValues:
        """Put tokens behind the kept ones -> the kept ones and these; they stay only if `advance` is told so."""
        stop = self._stop + keys.shape[2]
        if self._room is None or stop > self._room[0].shape[2]:
            self._room = self._moved(keys), self._moved(values, of=1)
            self._start, self._stop = 0, self.length
            stop = self._stop + keys.shape[2]
        # Aliases: what `rooms` has handed out does not change.
        placed = self._room[0][...], self._room[1][...]
        for array, new in zip(placed, (keys, values), strict=True):
            array[:, :, self._stop : stop] = new
        self._room = placed
        return placed[0][:, :, self._start : stop], placed[1][:, :, self._start : stop]

    def advance(self, count: int) -> None:
        """The first `count` of the tokens placed last are kept; what then is beyond the limit is forgotten."""
        self._stop += count
        if self._limit is not None:
            self._start = max(self._start, self._stop - self._limit)

    def _moved(self, new: mx.array, of: int = 0) -> mx.array:
        """A larger array with the kept tokens at its front and room for the new ones."""
        batch, heads, count, size = new.shape
        room = -(-(self.length + count) // GROWTH) * GROWTH
        if self._room is None:
            return mx.zeros((batch, heads, room, size), new.dtype)
        kept = self._room[of][:, :, self._start : self._stop]
        return mx.concatenate([kept, mx.zeros((batch, heads, room - self.length, size), new.dtype)], axis=2)


class Cache:
    """The prefix of one batch of equally long sequences: a cache per layer, and how many tokens went in."""

    def __init__(self, layers: tuple[LayerConfig, ...], window: int) -> None:
        self.layers = [LayerCache(window - 1 if layer.sliding else None) for layer in layers]
        self.offset = 0

    @property
    def arrays(self) -> list[mx.array]:
        """All keys and values of all layers."""
        return [array for layer in self.layers for array in layer.arrays]

    @property
    def nbytes(self) -> int:
        """Bytes that the cache holds."""
        return sum(layer.nbytes for layer in self.layers)

    def snapshot(self) -> Cache:
        """This cache as it is now, for `restore`; while it is held, placing copies the prefix."""
        kept = copy(self)
        kept.layers = [copy(layer) for layer in self.layers]
        return kept

    def restore(self, snapshot: Cache) -> None:
        """Forget what was placed since the snapshot, even what has not been computed yet."""
        self.layers, self.offset = snapshot.layers, snapshot.offset

    def advance(self, count: int) -> None:
        """The first `count` of the tokens that every layer was given last are part of the prefix."""
        for layer in self.layers:
            layer.advance(count)
        self.offset += count
