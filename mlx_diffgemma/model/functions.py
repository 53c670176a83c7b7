"""What happens between matrix products: gated gelu, attention, softcap, cross-entropy, and their gradients.

MLX's CPU backend takes exp and tanh of one element at a time, 12 to 20 ns each. There these functions are fused kernels
over a polynomial of their own (2 to 5 ns; relative error 3e-7, that of the backend's exp is 2e-6); on other devices
they are MLX's. The gradients are written out, so that little but the arguments is kept for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar, cast

import mlx.core as mx

ROUNDING = 12582912.0
"""1.5 * 2^23: added to a float32 and taken away again, it leaves the nearest whole number."""
ROUNDING_BITS = 0x4B400000
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
SCORES = 2**20
"""Scores of a sequence that the CPU computes at once: 4 MB. Fresh memory costs it more than arithmetic."""
FEWEST = 16
"""Queries of a group that are looked at together at least: a product wants to read the keys for more than a few."""
GELU_SLOPE, GELU_CUBE = 2 * math.sqrt(2 / math.pi), 0.044715


Arrays: TypeAlias = tuple[mx.array, ...]
Function = TypeVar("Function", bound=Callable[..., mx.array])


def differentiable(function: Function, pullback: Callable[[Any, mx.array, mx.array], Arrays]) -> Function:
    """`function` with its gradient written out.

    pullback: (arguments, gradient of the result, result) -> gradients of the arguments.
    """
    made = mx.custom_function(function)
    made.vjp(pullback)
    return cast("Function", made)


def on_cpu() -> bool:
    """Whether MLX computes on the CPU."""
    return mx.default_device() == mx.Device(mx.cpu)


def exp(x: mx.array) -> mx.array:
    """exp of float32 values, those beyond -87 and 87 taken as these: 2^n times a polynomial in the rest."""
    if not on_cpu():
        return mx.exp(x)
    x = mx.minimum(mx.maximum(x, -87.0), 87.0)
    shifted = x * math.log2(math.e) + ROUNDING
    whole = shifted - ROUNDING
    rest = x - whole * LN2_HIGH - whole * LN2_LOW
    # In Estrin's order: MLX cuts chains of more than eleven operations; of Horner's it makes six kernels, of this four.
    square = rest * rest
    series = (1 + rest) + square * (1 / 2 + rest * (1 / 6))
    series = series + (square * square) * ((1 / 24 + rest * (1 / 120)) + square * (1 / 720))
    # n stands in the low bits of `shifted`; moved to where the exponent is, it is 2^n.
    power = (shifted.view(mx.int32) + (127 - ROUNDING_BITS)) << 23
    return series * power.view(mx.float32)


def _sigmoid(x: mx.array) -> mx.array:
    return 1 / (1 + exp(-x)) if on_cpu() else mx.sigmoid(x)


@mx.compile
def _geglu(gate: mx.array, up: mx.array) -> mx.array:
    # gelu's tanh form is x * sigmoid(2u): (1 + tanh u) / 2 is sigmoid(2u).
    wide = gate.astype(mx.float32)
    opening = _sigmoid(GELU_SLOPE * (wide + GELU_CUBE * wide * wide * wide))
    return (wide * opening).astype(gate.dtype) * up


@mx.compile
def _geglu_gradient(gate: mx.array, up: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
    wide = gate.astype(mx.float32)
    square = wide * wide
    opening = _sigmoid(GELU_SLOPE * (wide + GELU_CUBE * square * wide))
    gelu = wide * opening
    slope = opening + gelu * (1 - opening) * GELU_SLOPE * (1 + 3 * GELU_CUBE * square)
    return cotangent * up * slope.astype(gate.dtype), cotangent * gelu.astype(gate.dtype)


def _geglu_pullback(primals: Arrays, cotangent: mx.array, _: mx.array) -> Arrays:
    return _geglu_gradient(primals[0], primals[1], cotangent)


geglu = differentiable(_geglu, _geglu_pullback)
"""gelu(gate) * up, with the tanh form of gelu, of two arrays of one shape."""


@mx.compile
def _exp_below(scores: mx.array, highest: mx.array) -> mx.array:
    return exp(scores - highest)


@mx.compile
def _softmax_gradient(out: mx.array, cotangent: mx.array, mean: mx.array) -> mx.array:
    return out * (cotangent - mean)


def _softmax(scores: mx.array) -> mx.array:
    powers = _exp_below(scores, scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def _softmax_pullback(_: Arrays, cotangent: mx.array, out: mx.array) -> Arrays:
    return (_softmax_gradient(out, cotangent, (cotangent * out).sum(axis=-1, keepdims=True)),)


softmax = differentiable(_softmax, _softmax_pullback)
"""float32 scores [..., N] -> probabilities over the last axis."""


def attention(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | str | None) -> mx.array:
    """Grouped-query attention with scale 1: [B, H, L, d], [B, G, S, d], [B, G, S, e] -> [B, H, L, e].

    mask: None, "causal" for queries that are the last of the keys, or bool, broadcast to [B, H, L, S].
    """
    if not on_cpu():
        return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=1.0, mask=mask)
    heads, length = queries.shape[1:3]
    groups, seen = keys.shape[1:3]
    if isinstance(mask, str):
        mask = mx.arange(seen - length, seen)[:, None] >= mx.arange(seen)
    if heads * length * seen <= SCORES:
        return _attended(queries, keys, values, mask)
    # One group of heads at a time, and a few of its queries: their scores stay in the caches.
    few = max(FEWEST, SCORES * groups // (heads * seen))
    shape = (*queries.shape[:2], length, seen)
    masks = None if mask is None else mx.split(mx.broadcast_to(mask, shape), groups, axis=1)
    columns: list[mx.array] = []
    done: list[mx.array] = []
    for group, own in enumerate(mx.split(queries, groups, axis=1)):
        here = slice(group, group + 1)
        rows: list[mx.array] = []
        for start in range(0, length, few):
            part, end = own[:, :, start : start + few], start + few
            allowed = None if masks is None else masks[group][:, :, start:end]
            rows.append(_attended(after(part, done), keys[:, here], values[:, here], allowed))
            done = rows[-1:]
        columns.append(mx.concatenate(rows, axis=2))
    return mx.concatenate(columns, axis=1)


def _attended(queries: mx.array, keys: mx.array, values: mx.array, mask: mx.array | None) -> mx.array:
    """Attention with all scores at once."""
    batch, heads, length, size = queries.shape
    groups, seen = keys.shape[1], keys.shape[2]
    scores = queries.reshape(batch, groups, -1, size) @ keys.swapaxes(-1, -2)
    scores = scores.astype(mx.float32).reshape(batch, heads, length, seen)
    if mask is not None:
        scores = mx.where(mask, scores, -1e9)
    probabilities = softmax(scores).astype(values.dtype).reshape(batch, groups, -1, seen)
    return (probabilities @ values).reshape(batch, heads, length, -1)


def after(array: mx.array, before: list[mx.array]) -> mx.array:
    """`array`, of which nothing is computed before `before` is.

    MLX begins with all parts of a work before it ends one of them, and holds what each needs; in turn they use the same
    memory again.
    """
    return mx.depends([array], before)[0] if before else array


@mx.compile
def softcap(logits: mx.array, cap: float) -> mx.array:
    """cap * tanh(logits / cap), in float32."""
    logits = logits.astype(mx.float32)
    return cap * (2 * _sigmoid(logits * (2 / cap)) - 1) if on_cpu() else cap * mx.tanh(logits / cap)


@mx.compile
def _capped_powers(raw: mx.array, cap: float) -> mx.array:
    # No maximum is taken away: capped logits are far below what overflows.
    return exp(softcap(raw, cap))


@mx.compile
def _cross_entropy_gradient(raw: mx.array, cap: float, total: mx.array, hit: mx.array, cotangent: mx.array) -> mx.array:
    capped = softcap(raw, cap)
    return cotangent * (exp(capped) / total - hit.astype(mx.float32)) * (1 - (capped / cap) ** 2)


@lru_cache
def cross_entropy(cap: float) -> Callable[[mx.array, mx.array], mx.array]:
    """Cross-entropy in nats under softcapped logits: raw float32 logits [N, V], targets [N] -> [N]. cap: below 80."""

    def loss(raw: mx.array, targets: mx.array) -> mx.array:
        total = _capped_powers(raw, cap).sum(axis=-1)
        chosen = mx.take_along_axis(raw, targets[:, None], axis=-1).squeeze(-1)
        return mx.log(total) - softcap(chosen, cap)

    def pullback(primals: Arrays, cotangent: mx.array, _: mx.array) -> Arrays:
        raw, targets = primals
        total = _capped_powers(raw, cap).sum(axis=-1, keepdims=True)
        hit = mx.arange(raw.shape[-1]) == targets[:, None]
        return _cross_entropy_gradient(raw, cap, total, hit, cotangent[:, None]), mx.zeros_like(targets)

    return differentiable(loss, pullback)
