"""Reading logits over the vocabulary in few passes: the most likely tokens, the entropy, a draw.

At full size the logits of one canvas are 268 MB, and the cost of a step here is how often arrays of that size are read
and written. Maxima and sums are therefore taken per group of neighbouring tokens first; everything after that reads the
groups, and the tokens of the few groups that matter. All of it is exact.

    processed [B, C, V] -> in groups [B, C, G, W] -> maxima [B, C, G] -> the best token, the k most likely
                                                  -> weights -> sums [B, C, G] -> entropy, a draw

On a CPU `read`, `probabilities` and `tempered` compute a few positions at a time (`Kernels.in_parts`), and can be
neither compiled nor differentiated there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import NamedTuple, TypeAlias

import mlx.core as mx

from mlx_diffgemma.model.kernels import Kernels

GROUP_WIDTH = 64
"""Tokens per group: then the 64 best of 262,144 are found among 4,096 maxima and 4,096 candidates."""
MIN_UNIFORM = 2.0**-30
"""Replaces a random number of zero, which would draw the first token even where that has no probability."""

Weights: TypeAlias = Callable[[mx.array, mx.array], tuple[mx.array, mx.array]]


class Reading(NamedTuple):
    """What logits [B, C, V] say about every position, each [B, C]."""

    best: mx.array
    """most likely id, int32; the first of equals"""
    drawn: mx.array
    """an id drawn from the distribution, int32"""
    entropy: mx.array
    """nats"""
    total: mx.array
    """log-sum-exp"""
    inverse_probability: mx.array
    """one over the probability of the most likely id"""


@lru_cache
def group_width(vocabulary: int) -> int:
    """Return the divisor of the vocabulary's size that is nearest to GROUP_WIDTH."""
    divisors = (width for width in range(1, vocabulary + 1) if vocabulary % width == 0)
    return min(divisors, key=lambda width: abs(math.log(width / GROUP_WIDTH)))


def tempered(raw: mx.array, cap: float, temperature: float | list[float], kernels: Kernels) -> mx.array:
    """Compute softcap(raw) / temperature of raw logits [B, C, V], in float32; one temperature, or one per row."""
    softcapped = _tempered(kernels)
    # An array: mx.compile would compile again for every new number.
    divisor = mx.array(temperature).reshape(-1, 1, 1)

    def of(part: mx.array) -> tuple[mx.array]:
        return (softcapped(part, cap, divisor),)

    (result,) = kernels.in_parts(of, raw)
    return result


@lru_cache
def _tempered(kernels: Kernels) -> Callable[[mx.array, float, mx.array], mx.array]:
    softcap = kernels.softcap

    @mx.compile
    def softcapped(raw: mx.array, cap: float, temperature: mx.array) -> mx.array:
        return softcap(raw, cap) / temperature

    return softcapped


def read(logits: mx.array, uniform: mx.array, kernels: Kernels) -> Reading:
    """Read float32 logits [B, C, V], all finite; uniform [B, C] holds a random number in 0 .. 1 for each position."""
    return Reading(*kernels.in_parts(partial(_read, weights_of=_weights(kernels)), logits, uniform))


def _read(logits: mx.array, uniform: mx.array, *, weights_of: Weights) -> Reading:
    """Read all positions together.

    The entropy is log Z - sum(w d) / Z, where d is the distance to the highest logit, not the logit itself: where a
    position is certain all terms are small, and none is lost to rounding.
    """
    groups = _grouped(logits)
    peaks = groups.max(axis=-1)
    group = mx.argmax(peaks, axis=-1, keepdims=True)
    inside = mx.argmax(_of_group(groups, group), axis=-1)
    highest = mx.take_along_axis(peaks, group, axis=-1)
    weights, terms = weights_of(logits, highest)
    weights = _grouped(weights)
    sums = weights.sum(axis=-1)
    total = sums.sum(axis=-1)
    log_total = mx.log(total)
    return Reading(
        best=(group.squeeze(-1) * groups.shape[-1] + inside).astype(mx.int32),
        drawn=_draw(weights, sums, mx.maximum(uniform, MIN_UNIFORM) * total),
        entropy=log_total - terms.sum(axis=-1) / total,
        total=log_total + highest.squeeze(-1),
        # The weight of the most likely token is 1.
        inverse_probability=total,
    )


def _draw(weights: mx.array, sums: mx.array, target: mx.array) -> mx.array:
    """Invert the distribution function, first to the group and then to the token in it -> int32 ids [B, C].

    One random number per position, where adding Gumbel noise takes one per token.
    """
    group, rest = _crossing(sums, target)
    inside, _ = _crossing(_of_group(weights, group[..., None]), rest)
    return (group * weights.shape[-1] + inside).astype(mx.int32)


def _crossing(weights: mx.array, target: mx.array) -> tuple[mx.array, mx.array]:
    """Return the index at which the running sum of weights [.., N] passes target [..], and how far into it.

    Rounding can put the target at the very end; then it is the last index that adds anything.
    """
    ends = mx.cumsum(weights, axis=-1)
    passed = (ends <= target[..., None]).sum(axis=-1)
    last = (ends < ends[..., -1:]).sum(axis=-1)
    index = mx.minimum(passed, last)
    start = mx.take_along_axis(ends - weights, index[..., None], axis=-1).squeeze(-1)
    return index, target - start


def most_likely(logits: mx.array, count: int) -> tuple[mx.array, mx.array]:
    """Return the ids and values of the `count` highest of logits [B, C, V], in no order, each [B, C, count].

    They lie in the `count` groups with the highest maxima: only these are partitioned.
    """
    groups = _grouped(logits)
    width = groups.shape[-1]
    chosen = _highest(groups.max(axis=-1), count)
    candidates = mx.take_along_axis(groups, chosen[..., None], axis=-2).flatten(-2)
    inside = _highest(candidates, count)
    ids = mx.take_along_axis(chosen, inside // width, axis=-1) * width + inside % width
    return ids, mx.take_along_axis(candidates, inside, axis=-1)


def _highest(values: mx.array, count: int) -> mx.array:
    """Return the indices of the `count` highest of [.., N]; all of them if there are no more."""
    size = values.shape[-1]
    if count >= size:
        return mx.broadcast_to(mx.arange(size, dtype=mx.uint32), values.shape)
    return mx.argpartition(values, kth=-count, axis=-1)[..., -count:]


def probabilities(logits: mx.array, kernels: Kernels) -> mx.array:
    """Compute the softmax of float32 logits [B, C, V]."""
    weights_of = _weights(kernels)

    def normalised(part: mx.array) -> tuple[mx.array]:
        weights, _ = weights_of(part, part.max(axis=-1, keepdims=True))
        return (weights / weights.sum(axis=-1, keepdims=True),)

    (result,) = kernels.in_parts(normalised, logits)
    return result


@lru_cache
def _weights(kernels: Kernels) -> Weights:
    """Return the function that computes exp(logits - highest), and that times logits - highest."""
    exp = kernels.exp

    @mx.compile
    def weights(logits: mx.array, highest: mx.array) -> tuple[mx.array, mx.array]:
        distance = logits - highest
        powers = exp(distance)
        return powers, powers * distance

    return weights


def _grouped(logits: mx.array) -> mx.array:
    """[B, C, V] -> [B, C, G, W]"""
    return mx.unflatten(logits, -1, (-1, group_width(logits.shape[-1])))


def _of_group(groups: mx.array, group: mx.array) -> mx.array:
    """Pick one group per position [B, C, 1] of [B, C, G, W] -> [B, C, W]"""
    return mx.take_along_axis(groups, group[..., None], axis=-2).squeeze(-2)
