"""The part of a prefix that a canvas looks at: the positions to which a layer gives the most attention."""

from __future__ import annotations

from functools import partial

import mlx.core as mx

from mlx_diffgemma.model.layers import Observer


class Selection:
    """The positions of the prefix that full-attention layers look at most in one pass, `count` of each layer.

    A layer whose prefix has no more positions keeps them all, and is not among the chosen.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self.chosen: dict[int, mx.array] = {}
        """index of the layer -> positions [count], in order"""

    def observer(self, layer: int) -> Observer:
        """Return the function to which a layer shows its queries and keys."""
        return partial(self._choose, layer)

    def _choose(self, layer: int, queries: mx.array, keys: mx.array) -> None:
        prefix = keys.shape[2] - queries.shape[2]
        if prefix > self._count:
            attention = attention_received(queries, keys)[:prefix]
            self.chosen[layer] = mx.sort(mx.argpartition(attention, kth=-self._count)[-self._count :])


def attention_received(queries: mx.array, keys: mx.array) -> mx.array:
    """Return how much attention each key [1, G, S, d] gets from all queries [1, H, L, d] -> float32 [S].

    The scores of one head are in memory at a time: L * S numbers.
    """
    heads, groups = queries.shape[1], keys.shape[1]
    total = mx.zeros((keys.shape[2],))
    for head in range(heads):
        scores = queries[0, head] @ keys[0, head * groups // heads].T
        total = total + mx.softmax(scores.astype(mx.float32), axis=-1).sum(axis=0)
    return total
