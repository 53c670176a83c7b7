"""Draft: the sum after attention and the norms that read it, in one kernel per row instead of five.

    h = x + norm(a) * post        first = norm(h) * before_dense        second = norm(h) * before_experts

Predicted (docs/measured.md, less per step): the rest of a layer's elementwise traffic, 3 % of a step on M3 and M4, 8 %
on M5. A row is one threadgroup; its values stay in registers between the two sums over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

THREADS = 256
"""Threads of a row: eleven values each at the size of the release."""

Floats: TypeAlias = NDArray[np.float32]

_HEADER = """
template <int GROUPS>
float sum_of_row(float value, threadgroup float* parts, uint lane, uint group) {
    value = simd_sum(value);
    if (lane == 0) parts[group] = value;
    threadgroup_barrier(mem_flags::mem_threadgroup);
    float total = 0;
    for (int index = 0; index < GROUPS; index++) total += parts[index];
    threadgroup_barrier(mem_flags::mem_threadgroup);
    return total;
}
"""

_SOURCE = """
    constexpr int GROUPS = THREADS / 32;
    constexpr int EACH = (SIZE + THREADS - 1) / THREADS;
    threadgroup float parts[GROUPS];
    uint row = threadgroup_position_in_grid.x * SIZE;
    uint own = thread_position_in_threadgroup.x;
    uint lane = thread_index_in_simdgroup;
    uint group = simdgroup_index_in_threadgroup;
    float values[EACH];

    float squares = 0;
    for (int index = 0; index < EACH; index++) {
        uint at = own + index * THREADS;
        values[index] = at < SIZE ? float(a[row + at]) : 0.0f;
        squares += values[index] * values[index];
    }
    float scale = rsqrt(sum_of_row<GROUPS>(squares, parts, lane, group) / SIZE + eps[0]);

    squares = 0;
    for (int index = 0; index < EACH; index++) {
        uint at = own + index * THREADS;
        if (at < SIZE) {
            T sum = x[row + at] + T(values[index] * scale * float(post[at]));
            h[row + at] = sum;
            values[index] = float(sum);
            squares += values[index] * values[index];
        }
    }
    scale = rsqrt(sum_of_row<GROUPS>(squares, parts, lane, group) / SIZE + eps[0]);

    for (int index = 0; index < EACH; index++) {
        uint at = own + index * THREADS;
        if (at < SIZE) {
            first[row + at] = T(values[index] * scale * float(before_dense[at]));
            second[row + at] = T(values[index] * scale * float(before_experts[at]));
        }
    }
"""


@lru_cache
def _kernel() -> Any:
    return mx.fast.metal_kernel(
        name="mlx_diffgemma_sum_and_norms",
        input_names=["x", "a", "post", "before_dense", "before_experts", "eps"],
        output_names=["h", "first", "second"],
        header=_HEADER,
        source=_SOURCE,
    )


def sum_and_norms(x: mx.array, a: mx.array, weights: Sequence[mx.array], *, eps: float) -> list[mx.array]:
    """Compute h, first and second [N, D] of x and a [N, D], all of one dtype, on Metal.

    weights: post, before_dense and before_experts, each [D].
    """
    rows, size = x.shape
    return _kernel()(
        inputs=[x, a, *weights, mx.array([eps])],
        template=[("T", x.dtype), ("SIZE", size), ("THREADS", THREADS)],
        grid=(rows * THREADS, 1, 1),
        threadgroup=(THREADS, 1, 1),
        output_shapes=[x.shape] * 3,
        output_dtypes=[x.dtype] * 3,
    )


def sum_and_norms_in_numpy(
    x: Floats, a: Floats, weights: Sequence[Floats], *, eps: float
) -> tuple[Floats, Floats, Floats]:
    """Compute the same in float32, each thread's part of a sum first."""
    post, before_dense, before_experts = weights
    h = x + a * _scale(a, eps) * post
    normed = h * _scale(h, eps)
    return h, normed * before_dense, normed * before_experts


def _scale(rows: Floats, eps: float) -> Floats:
    """Return one over the root of the mean square of each row [N, 1]."""
    count, size = rows.shape
    padded = np.zeros((count, -(-size // THREADS) * THREADS), np.float32)
    padded[:, :size] = rows
    # As the kernel does: a thread's values, the 32 threads of a simdgroup, the simdgroups.
    threads = (padded.reshape(count, -1, THREADS) ** 2).sum(axis=1, dtype=np.float32)
    groups = threads.reshape(count, -1, 32).sum(axis=2, dtype=np.float32)
    total = groups.sum(axis=1, dtype=np.float32, keepdims=True)
    return (1 / np.sqrt(total / np.float32(size) + np.float32(eps))).astype(np.float32)
