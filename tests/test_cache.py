"""What the prefix keeps, and that a canvas leaves no trace in it."""

from __future__ import annotations

import mlx.core as mx
from tiny import FULL, SLIDING

from mlx_diffgemma.cache import Cache, FullCache, SlidingCache


def tokens(start: int, count: int) -> mx.array:
    """[1, 1, count, 1]: the value of a token is its position"""
    return mx.arange(start, start + count).reshape(1, 1, count, 1)


def positions(array: mx.array) -> list[int]:
    return array.flatten().tolist()


def test_full_layers_keep_everything() -> None:
    cache = FullCache()
    for start in range(0, 12, 4):
        keys, _ = cache.append(tokens(start, 4), tokens(start, 4))
    assert positions(keys) == list(range(12))
    assert cache.length == 12


def test_sliding_layers_keep_one_token_less_than_their_window() -> None:
    cache = SlidingCache(window=5)
    seen, _ = cache.append(tokens(0, 3), tokens(0, 3))
    assert positions(seen) == [0, 1, 2]
    seen, _ = cache.append(tokens(3, 4), tokens(3, 4))
    assert positions(seen) == [0, 1, 2, 3, 4, 5, 6]
    seen, _ = cache.append(tokens(7, 1), tokens(7, 1))
    assert positions(seen) == [3, 4, 5, 6, 7]
    assert positions(cache.arrays[0]) == [4, 5, 6, 7]


def test_a_canvas_is_put_beside_the_prefix_without_entering_it() -> None:
    cache = SlidingCache(window=3)
    cache.append(tokens(0, 6), tokens(0, 6))
    keys, values = cache.beside(tokens(6, 4), tokens(6, 4))
    assert positions(keys) == positions(values) == [4, 5, 6, 7, 8, 9]
    assert positions(cache.arrays[0]) == [4, 5]


def test_memory_of_a_sliding_layer_does_not_grow_with_the_context() -> None:
    cache = Cache((SLIDING, FULL), window=64)
    shape = (1, 2, 512, 8)
    held = []
    for _ in range(4):
        for layer in cache.layers:
            layer.append(mx.ones(shape), mx.ones(shape))
        mx.eval(cache.arrays)
        mx.clear_cache()
        held.append(mx.get_active_memory())
    full_per_chunk = 2 * mx.ones(shape).nbytes
    assert cache.layers[0].length == 63
    assert held[3] - held[0] <= 3 * full_per_chunk + 4096
    assert cache.nbytes == 4 * full_per_chunk + 2 * 2 * 63 * 8 * 4
