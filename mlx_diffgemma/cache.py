"""Keys and values of the prefix, per layer: written by the encoder, read by the decoder.

Full-attention layers keep every token. Sliding layers keep the last window - 1 tokens, which is all that a later token
or a canvas may see of them, so their memory does not grow with the context. `append` is the encoder's way in; `beside`
is the decoder's: it puts a canvas next to the prefix and leaves the cache as it is.
"""

from __future__ import annotations

from typing import TypeAlias

import mlx.core as mx

from mlx_diffgemma.config import LayerConfig

KeysValues: TypeAlias = tuple[mx.array, mx.array]
"""Keys and values of one layer, each [B, heads, tokens, head_dim]."""


class FullCache:
    """Every token of the prefix."""

    def __init__(self) -> None:
        self._kept: KeysValues | None = None

    @property
    def length(self) -> int:
        """Tokens that are kept: all of the prefix."""
        return 0 if self._kept is None else self._kept[0].shape[2]

    @property
    def arrays(self) -> list[mx.array]:
        """The keys and values, once there are any."""
        return [] if self._kept is None else list(self._kept)

    def beside(self, keys: mx.array, values: mx.array) -> KeysValues:
        """The prefix followed by the given tokens; the cache stays as it is."""
        if self._kept is None:
            return keys, values
        return mx.concatenate([self._kept[0], keys], axis=2), mx.concatenate([self._kept[1], values], axis=2)

    def append(self, keys: mx.array, values: mx.array) -> KeysValues:
        """Add tokens; returns what they may look at: the whole prefix, themselves included."""
        self._kept = self.beside(keys, values)
        return self._kept


class SlidingCache(FullCache):
    """The last window - 1 tokens of the prefix."""

    def __init__(self, window: int) -> None:
        super().__init__()
        self._limit = window - 1

    def append(self, keys: mx.array, values: mx.array) -> KeysValues:
        """Add tokens and forget what left the window; returns what was kept so far, then the added tokens."""
        seen = self.beside(keys, values)
        self._kept = (_last(seen[0], self._limit), _last(seen[1], self._limit))
        return seen


def _last(array: mx.array, count: int) -> mx.array:
    """The last `count` tokens as an array of its own: a slice would keep the longer one in memory."""
    length = array.shape[2]
    return array if length <= count else mx.contiguous(array[:, :, length - count :, :])


class Cache:
    """The prefix of one batch of equally long sequences: a cache per layer, and how many tokens went in."""

    def __init__(self, layers: tuple[LayerConfig, ...], window: int) -> None:
        self.layers: list[FullCache] = [SlidingCache(window) if layer.sliding else FullCache() for layer in layers]
        self.offset = 0

    @property
    def arrays(self) -> list[mx.array]:
        """All keys and values of all layers."""
        return [array for layer in self.layers for array in layer.arrays]

    @property
    def nbytes(self) -> int:
        """Bytes that the cache holds."""
        return sum(array.nbytes for array in self.arrays)
