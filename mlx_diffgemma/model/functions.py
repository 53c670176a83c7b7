"""Gated gelu and cross-entropy, with their gradients written out, so that little but the arguments is kept for them.

Both are compiled once per table of kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar, cast

import mlx.core as mx

from mlx_diffgemma.model.kernels import Kernels

GELU_SLOPE, GELU_CUBE = 2 * math.sqrt(2 / math.pi), 0.044715

Arrays: TypeAlias = tuple[mx.array, ...]
BinaryFunction: TypeAlias = Callable[[mx.array, mx.array], mx.array]
Differentiated = TypeVar("Differentiated", bound=Callable[..., mx.array])


def differentiable(function: Differentiated, pullback: Callable[[Any, mx.array, mx.array], Arrays]) -> Differentiated:
    """Return `function` with its gradient written out.

    pullback: (arguments, gradient of the result, result) -> gradients of the arguments.
    """
    made = mx.custom_function(function)
    made.vjp(pullback)
    return cast("Differentiated", made)


def geglu(gate: mx.array, up: mx.array, kernels: Kernels) -> mx.array:
    """Compute gelu(gate) * up, with the tanh form of gelu, of two arrays of one shape."""
    return _geglu(kernels)(gate, up)


@lru_cache
def _geglu(kernels: Kernels) -> BinaryFunction:
    sigmoid = kernels.sigmoid

    @mx.compile
    def forward(gate: mx.array, up: mx.array) -> mx.array:
        # gelu's tanh form is x * sigmoid(2u): (1 + tanh u) / 2 is sigmoid(2u).
        wide = gate.astype(mx.float32)
        opening = sigmoid(GELU_SLOPE * (wide + GELU_CUBE * wide * wide * wide))
        return (wide * opening).astype(gate.dtype) * up

    @mx.compile
    def gradient(gate: mx.array, up: mx.array, cotangent: mx.array) -> tuple[mx.array, mx.array]:
        wide = gate.astype(mx.float32)
        square = wide * wide
        opening = sigmoid(GELU_SLOPE * (wide + GELU_CUBE * square * wide))
        gelu = wide * opening
        slope = opening + gelu * (1 - opening) * GELU_SLOPE * (1 + 3 * GELU_CUBE * square)
        return cotangent * up * slope.astype(gate.dtype), cotangent * gelu.astype(gate.dtype)

    return differentiable(forward, lambda primals, cotangent, _: gradient(primals[0], primals[1], cotangent))


def cross_entropy(raw: mx.array, targets: mx.array, cap: float, kernels: Kernels) -> mx.array:
    """Compute the cross-entropy in nats under softcapped logits: raw float32 logits [N, V], targets [N] -> [N].

    cap: below 80, so that no exponential of a capped logit overflows.
    """
    return _cross_entropy(cap, kernels)(raw, targets)


@lru_cache
def _cross_entropy(cap: float, kernels: Kernels) -> BinaryFunction:
    exp, softcap = kernels.exp, kernels.softcap

    @mx.compile
    def powers(raw: mx.array) -> mx.array:
        # No maximum is subtracted: capped logits are far below what overflows.
        return exp(softcap(raw, cap))

    @mx.compile
    def gradient(raw: mx.array, total: mx.array, hit: mx.array, cotangent: mx.array) -> mx.array:
        capped = softcap(raw, cap)
        return cotangent * (exp(capped) / total - hit.astype(mx.float32)) * (1 - (capped / cap) ** 2)

    def loss(raw: mx.array, targets: mx.array) -> mx.array:
        total = powers(raw).sum(axis=-1)
        chosen = mx.take_along_axis(raw, targets[:, None], axis=-1).squeeze(-1)
        return mx.log(total) - softcap(chosen, cap)

    def pullback(primals: Arrays, cotangent: mx.array, _: mx.array) -> Arrays:
        raw, targets = primals
        total = powers(raw).sum(axis=-1, keepdims=True)
        hit = mx.arange(raw.shape[-1]) == targets[:, None]
        return gradient(raw, total, hit, cotangent[:, None]), mx.zeros_like(targets)

    return differentiable(loss, pullback)
