"""Draft: what a step needs of its raw logits, in one pass over them.

The package reads them four times: for maxima, for weights, which it stores, for their sums, and for the terms of the
entropy. This kernel reads a group of 64 neighbouring tokens at once, softcaps them, and leaves three numbers: the
largest logit, the sum of the weights exp(l - largest), and the sum of the weights times l - largest. Groups are then
added up by `combined`, whose arrays are 64 times smaller.

Predicted: 5 % of a step on M5, 1 to 2 % on M1 to M4, and 0.8 GB less at its peak, at 262,144 tokens.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

WIDTH = 64
"""Tokens of a group: two for each thread of a simdgroup."""

Floats: TypeAlias = NDArray[np.float32]

_SOURCE = """
    uint group = thread_position_in_grid.x / 32;
    uint lane = thread_index_in_simdgroup;
    uint row = group / GROUPS;
    float cap = limits[0];
    float heat = temperature[row];
    uint at = group * 64 + lane;
    float one = cap * precise::tanh(float(raw[at]) / cap) / heat;
    float other = cap * precise::tanh(float(raw[at + 32]) / cap) / heat;
    float largest = simd_max(max(one, other));
    float weight = precise::exp(one - largest);
    float second = precise::exp(other - largest);
    float total = simd_sum(weight + second);
    float term = simd_sum(weight * (one - largest) + second * (other - largest));
    if (lane == 0) {
        highest[group] = largest;
        weights[group] = total;
        terms[group] = term;
    }
"""


class Groups(NamedTuple):
    """Three numbers of every group [N, G], float32."""

    highest: mx.array
    weights: mx.array
    terms: mx.array


@lru_cache
def _kernel() -> Any:
    return mx.fast.metal_kernel(
        name="mlx_diffgemma_groups",
        input_names=["raw", "temperature", "limits"],
        output_names=["highest", "weights", "terms"],
        source=_SOURCE,
    )


def read_groups(raw: mx.array, temperature: mx.array, cap: float) -> Groups:
    """Read raw logits [N, V], V a multiple of 64, with a temperature for each row [N], on Metal."""
    rows, size = raw.shape
    groups = size // WIDTH
    outputs = _kernel()(
        inputs=[raw, temperature, mx.array([cap])],
        template=[("GROUPS", groups)],
        grid=(rows * groups * 32, 1, 1),
        threadgroup=(256, 1, 1),
        output_shapes=[(rows, groups)] * 3,
        output_dtypes=[mx.float32] * 3,
    )
    return Groups(*outputs)


def read_groups_in_numpy(raw: Floats, temperature: Floats, cap: float) -> Groups:
    """Compute the same."""
    cap = np.float32(cap)
    logits = (cap * np.tanh(raw.astype(np.float32) / cap) / temperature[:, None]).astype(np.float32)
    groups = logits.reshape(len(raw), -1, WIDTH)
    highest = groups.max(axis=2)
    distance = groups - highest[..., None]
    weights = np.exp(distance)
    return Groups(*(mx.array(each) for each in (highest, weights.sum(axis=2), (weights * distance).sum(axis=2))))


def combined(groups: Groups) -> tuple[mx.array, mx.array, mx.array]:
    """Return the log-sum-exp, the entropy in nats and the largest logit of each row [N]."""
    largest = groups.highest.max(axis=-1)
    shift = groups.highest - largest[:, None]
    factor = mx.exp(shift)
    total = (factor * groups.weights).sum(axis=-1)
    terms = (factor * (groups.terms + shift * groups.weights)).sum(axis=-1)
    return mx.log(total) + largest, mx.log(total) - terms / total, largest
