"""Computing something for a few positions at a time, so that the parts use the same memory one after another."""

from __future__ import annotations

from collections.abc import Callable

import mlx.core as mx


def in_parts(limit: int, function: Callable[..., tuple[mx.array, ...]], *arrays: mx.array) -> tuple[mx.array, ...]:
    """Return function(*arrays), each array [B, C, ..], for as many of the C positions at a time as have `limit` values.

    Values are counted in the first array. The parts are evaluated here, so that `function` can be neither compiled nor
    differentiated.
    """
    rows, length, size = arrays[0].shape
    step = max(1, limit // (rows * size))
    if step >= length:
        return function(*arrays)
    results: list[tuple[mx.array, ...]] = []
    for start in range(0, length, step):
        results.append(function(*(array[:, start : start + step] for array in arrays)))
        mx.eval(results[-1])
    return tuple(mx.concatenate(list(field), axis=1) for field in zip(*results, strict=True))
