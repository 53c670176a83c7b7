"""Reading logits over the vocabulary in few passes: what is most likely, how sure, and a draw.

At full size the logits of one canvas are 268 MB: what a step costs here is how often arrays of that size are read and
written. Maxima and sums are therefore taken per group of neighbouring tokens first; everything after that looks at the
groups, and into the few groups that matter. All of it is exact.

    processed [B, C, V] -> in groups [B, C, G, W] -> highest [B, C, G]  -> the best token, the k most likely
                                                  -> weights -> sums [B, C, G] -> entropy, a draw

The CPU gets a few positions at a time, and computes them at once: what it makes of them stays in its caches and uses
the same memory again. These functions are therefore not for what is differentiated or compiled.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import mlx.core as mx

from mlx_diffgemma.model.functions import exp, on_cpu, softcap

PART = 2**18
"""Elements that the CPU is given at once: 1 MB. Fresh memory costs it more than the arithmetic from 16 MB on."""
WIDTH = 64
"""Tokens per group: then the 64 best of 262,144 are found among 4,096 maxima and 4,096 candidates."""
LEAST = 2.0**-30
"""Stands for a random number of zero, which would fall to the first token even where that has no probability."""


class Reading(NamedTuple):
    """What logits [B, C, V] say about every position, each [B, C]."""

    best: mx.array
    """most likely id, int32; of equals the first"""
    drawn: mx.array
    """an id drawn from the distribution, int32"""
    entropy: mx.array
    """nats"""
    total: mx.array
    """log-sum-exp"""
    rarity: mx.array
    """one over the probability of the most likely id"""


@lru_cache
def group_width(vocabulary: int) -> int:
    """The divisor of the vocabulary's size nearest to WIDTH."""
    divisors = (width for width in range(1, vocabulary + 1) if vocabulary % width == 0)
    return min(divisors, key=lambda width: abs(math.log(width / WIDTH)))


def tempered(raw: mx.array, cap: float, temperature: float | list[float]) -> mx.array:
    """softcap(raw) / temperature of projected hidden states [B, C, V], in float32; one temperature, or one per row."""
    # An array: a number would be compiled in, once per step.
    divisor = mx.array(temperature).reshape(-1, 1, 1)

    def capped(part: mx.array) -> tuple[mx.array]:
        return (_softcapped(part, cap, divisor),)

    (result,) = _in_parts(capped, raw)
    return result


@mx.compile
def _softcapped(raw: mx.array, cap: float, temperature: mx.array) -> mx.array:
    return softcap(raw, cap) / temperature


def read(logits: mx.array, uniform: mx.array) -> Reading:
    """Read float32 logits [B, C, V], all finite, with a uniform random number for each position [B, C]."""
    return Reading(*_in_parts(_read, logits, uniform))


def _read(logits: mx.array, uniform: mx.array) -> tuple[mx.array, ...]:
    """The entropy is log Z - sum(w d) / Z, where d is the distance to the highest logit, not the logit.

    So where a position is certain all terms are small, and none is lost to rounding.
    """
    groups = _grouped(logits)
    peaks = groups.max(axis=-1)
    group = mx.argmax(peaks, axis=-1, keepdims=True)
    inside = mx.argmax(_taken(groups, group), axis=-1)
    highest = mx.take_along_axis(peaks, group, axis=-1)
    weights, terms = _weights(logits, highest)
    weights = _grouped(weights)
    sums = weights.sum(axis=-1)
    total = sums.sum(axis=-1)
    log_total = mx.log(total)
    best = (group.squeeze(-1) * groups.shape[-1] + inside).astype(mx.int32)
    entropy = log_total - terms.sum(axis=-1) / total
    drawn = _draw(weights, sums, mx.maximum(uniform, LEAST) * total)
    # The weight of the most likely one is 1.
    return best, drawn, entropy, log_total + highest.squeeze(-1), total


def _draw(weights: mx.array, sums: mx.array, target: mx.array) -> mx.array:
    """Inversion of the distribution function, first to the group and then to the token in it -> int32 ids [B, C].

    One random number per position, where adding Gumbel noise takes one per token.
    """
    group, rest = _crossed(sums, target)
    inside, _ = _crossed(_taken(weights, group[..., None]), rest)
    return (group * weights.shape[-1] + inside).astype(mx.int32)


def _crossed(weights: mx.array, target: mx.array) -> tuple[mx.array, mx.array]:
    """Where the running sum of weights [.., N] passes target [..] -> that index, and how far into it.

    Rounding can put the target at the very end; then it is the last index that adds anything.
    """
    ends = mx.cumsum(weights, axis=-1)
    passed = (ends <= target[..., None]).sum(axis=-1)
    last = (ends < ends[..., -1:]).sum(axis=-1)
    index = mx.minimum(passed, last)
    start = mx.take_along_axis(ends - weights, index[..., None], axis=-1).squeeze(-1)
    return index, target - start


def most_likely(logits: mx.array, count: int) -> tuple[mx.array, mx.array]:
    """The `count` highest of logits [B, C, V], in no order -> ids and logits [B, C, count].

    They lie in the `count` groups with the highest maxima, which is all that is partitioned.
    """

    def highest(part: mx.array) -> tuple[mx.array, mx.array]:
        groups = _grouped(part)
        width = groups.shape[-1]
        chosen = _highest(groups.max(axis=-1), count)
        candidates = mx.take_along_axis(groups, chosen[..., None], axis=-2).flatten(-2)
        inside = _highest(candidates, count)
        ids = mx.take_along_axis(chosen, inside // width, axis=-1) * width + inside % width
        return ids, mx.take_along_axis(candidates, inside, axis=-1)

    ids, values = _in_parts(highest, logits)
    return ids, values


def _highest(values: mx.array, count: int) -> mx.array:
    """Indices of the `count` highest of [.., N], all of them where there are no more."""
    size = values.shape[-1]
    if count >= size:
        return mx.broadcast_to(mx.arange(size, dtype=mx.uint32), values.shape)
    return mx.argpartition(values, kth=-count, axis=-1)[..., -count:]


def probabilities(logits: mx.array) -> mx.array:
    """The softmax of float32 logits [B, C, V]."""

    def normalised(part: mx.array) -> tuple[mx.array]:
        weights, _ = _weights(part, part.max(axis=-1, keepdims=True))
        return (weights / weights.sum(axis=-1, keepdims=True),)

    (result,) = _in_parts(normalised, logits)
    return result


@mx.compile
def _weights(logits: mx.array, highest: mx.array) -> tuple[mx.array, mx.array]:
    distance = logits - highest
    weights = exp(distance)
    return weights, weights * distance


def _grouped(logits: mx.array) -> mx.array:
    """[B, C, V] -> [B, C, G, W]"""
    return mx.unflatten(logits, -1, (-1, group_width(logits.shape[-1])))


def _taken(groups: mx.array, group: mx.array) -> mx.array:
    """[B, C, G, W], one group per position [B, C, 1] -> [B, C, W]"""
    return mx.take_along_axis(groups, group[..., None], axis=-2).squeeze(-2)


def _parts(logits: mx.array) -> list[slice]:
    """The positions of [B, C, V] that are looked at together: a few on the CPU, on other devices all."""
    rows, length, size = logits.shape
    step = max(1, PART // (rows * size)) if on_cpu() else length
    return [slice(start, start + step) for start in range(0, length, step)]


def _in_parts(function: Callable[..., tuple[mx.array, ...]], *arrays: mx.array) -> tuple[mx.array, ...]:
    """function(arrays), each [B, C, ..], a few positions at a time."""
    parts = _parts(arrays[0])
    if len(parts) == 1:
        return function(*arrays)
    results: list[tuple[mx.array, ...]] = []
    for here in parts:
        results.append(function(*(array[:, here] for array in arrays)))
        mx.eval(results[-1])
    return tuple(mx.concatenate(list(field), axis=1) for field in zip(*results, strict=True))
