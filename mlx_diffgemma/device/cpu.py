"""What only a CPU needs: replacements for functions that MLX's CPU backend computes slowly.

MLX's CPU backend computes exp and tanh one element at a time, in 12 to 20 ns each, with a relative error of 2e-6. The
polynomial here takes 2 to 5 ns; its error is 3e-7. Allocating fresh memory costs a CPU more than arithmetic does, so
attention, and everything computed from logits, is split into parts that use the same memory one after another.

`model/kernels` lists these functions in the table that a model on a CPU is made with.
"""

from __future__ import annotations

import math
from typing import cast

import mlx.core as mx

ROUNDING = 12582912.0
"""1.5 * 2^23: a float32 to which it is added and from which it is subtracted becomes the nearest whole number."""
ROUNDING_BITS = 0x4B400000
"""The bits of ROUNDING as a float32."""
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
"""ln 2 as the sum of a short and a small number, so that multiples of it lose no bits."""
MAX_SCORES = 2**20
"""Attention scores of one sequence that are computed together: 4 MB."""
MIN_QUERIES = 16
"""Queries of a group that are computed together at least: a matrix product should not read all keys for fewer."""
MAX_LOGITS = 2**18
"""Logits that are read together: 1 MB."""
TALL_TILE = 64
"""Rows of a tile of one expert in a training batch."""


def exp(x: mx.array) -> mx.array:
    """Compute exp of float32 values; those outside -87 .. 87 count as -87 or 87."""
    x = mx.minimum(mx.maximum(x, -87.0), 87.0)
    # exp(x) = 2^whole * exp(rest), where x = whole * ln 2 + rest.
    shifted = x * math.log2(math.e) + ROUNDING
    whole = shifted - ROUNDING
    rest = x - whole * LN2_HIGH - whole * LN2_LOW
    # In Estrin's order: mx.compile starts a new kernel at a depth of 11 operations. Horner's order would make six
    # kernels of this function, Estrin's makes four.
    square = rest * rest
    series = (1 + rest) + square * (1 / 2 + rest * (1 / 6))
    series = series + (square * square) * ((1 / 24 + rest * (1 / 120)) + square * (1 / 720))
    # The low bits of `shifted` hold `whole`; moved to the bits of the exponent they are 2^whole.
    power = (shifted.view(mx.int32) + (127 - ROUNDING_BITS)) << 23
    return series * power.view(mx.float32)


def sigmoid(x: mx.array) -> mx.array:
    """Compute the logistic sigmoid of float32 values."""
    return 1 / (1 + exp(-x))


@mx.compile
def softcap(logits: mx.array, cap: float) -> mx.array:
    """Compute cap * tanh(logits / cap), in float32."""
    return cap * (2 * sigmoid(logits.astype(mx.float32) * (2 / cap)) - 1)


@mx.compile
def _exp_below(scores: mx.array, highest: mx.array) -> mx.array:
    return exp(scores - highest)


@mx.compile
def _softmax_gradient(out: mx.array, cotangent: mx.array, mean: mx.array) -> mx.array:
    return out * (cotangent - mean)


def _softmax(scores: mx.array) -> mx.array:
    powers = _exp_below(scores, scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _softmax_pullback(_: mx.array, cotangent: mx.array, out: mx.array) -> mx.array:
    return _softmax_gradient(out, cotangent, (cotangent * out).sum(axis=-1, keepdims=True))


_differentiable_softmax = mx.custom_function(_softmax)
_differentiable_softmax.vjp(_softmax_pullback)


def softmax(scores: mx.array) -> mx.array:
    """Turn float32 scores [..., N] into probabilities over the last axis."""
    return cast("mx.array", _differentiable_softmax(scores))


def attention(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | str | None) -> mx.array:
    """Compute `Kernels.attention`; for long prefixes one group of heads and a few queries at a time."""
    heads, length = queries.shape[1:3]
    groups, seen = keys.shape[1:3]
    if isinstance(mask, str):
        mask = mx.arange(seen - length, seen)[:, None] >= mx.arange(seen)
    if heads * length * seen <= MAX_SCORES:
        return _attention_at_once(queries, keys, values, mask)
    rows = max(MIN_QUERIES, MAX_SCORES * groups // (heads * seen))
    shape = (*queries.shape[:2], length, seen)
    masks = None if mask is None else mx.split(mx.broadcast_to(mask, shape), groups, axis=1)
    columns: list[mx.array] = []
    done: list[mx.array] = []
    for group, own in enumerate(mx.split(queries, groups, axis=1)):
        here = slice(group, group + 1)
        parts: list[mx.array] = []
        for start in range(0, length, rows):
            part, end = own[:, :, start : start + rows], start + rows
            allowed = None if masks is None else masks[group][:, :, start:end]
            parts.append(_attention_at_once(_after(part, done), keys[:, here], values[:, here], allowed))
            done = parts[-1:]
        columns.append(mx.concatenate(parts, axis=2))
    return mx.concatenate(columns, axis=1)


def _attention_at_once(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None) -> mx.array:
    batch, heads, length, size = queries.shape
    groups, seen = keys.shape[1], keys.shape[2]
    scores = queries.reshape(batch, groups, -1, size) @ keys.swapaxes(-1, -2)
    scores = scores.astype(mx.float32).reshape(batch, heads, length, seen)
    if mask is not None:
        scores = mx.where(mask, scores, -1e9)
    probabilities = softmax(scores).astype(values.dtype).reshape(batch, groups, -1, seen)
    return (probabilities @ values).reshape(batch, heads, length, -1)


def _after(array: mx.array, before: list[mx.array]) -> mx.array:
    """Return `array`, which MLX then computes only after `before`.

    Otherwise MLX starts all parts of a computation before it finishes one, and holds the memory of all of them.
    """
    return mx.depends([array], before)[0] if before else array


def tile_height(pairs: int, experts: int) -> int:
    """Return how many rows of one expert are multiplied together: 1, or TALL_TILE in a training batch.

    The CPU backend multiplies tile after tile, and a good BLAS is fastest with tall ones. They are worth it only if an
    expert has twice as many rows on average: the last tile of each expert is padded with rows of zeros.
    """
    return TALL_TILE if pairs >= 2 * TALL_TILE * experts else 1
