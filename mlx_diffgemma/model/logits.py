"""Reading logits over the vocabulary in few passes: the most likely tokens, the entropy, a draw.

At full size the logits of one canvas are 268 MB in float32, and the cost of a step here is how often arrays of that
size are read and written. So they are kept as the head gives them, and softcapped and divided by the temperature where
they are read. Maxima and sums are taken per group of neighbouring tokens first; everything after that reads the groups,
and the tokens of the few groups that matter. All of it is exact.

    raw [B, C, V] -> in groups [B, C, G, W] -> maxima [B, C, G] -> the best token, the k most likely
                                            -> weights -> sums [B, C, G] -> entropy, a draw

On a CPU, and where memory is short, a few positions are computed at a time (`Kernels.in_parts`); what does so can be
neither compiled nor differentiated there.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple, TypeAlias

import mlx.core as mx

from mlx_diffgemma.model.kernels import Kernels

GROUP_WIDTH = 64
"""Tokens per group: then the 64 best of 262,144 are found among 4,096 maxima and 4,096 candidates."""
MIN_UNIFORM = 2.0**-30
"""Replaces a random number of zero, which would draw the first token even where that has no probability."""

FORBIDDEN = -1e9
"""The logit of a token that a position cannot have. It is finite: infinity times the probability zero is no number."""


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


class ProcessedLogits:
    """The float32 logits [B, C, V] of one step after softcap and temperature, computed where they are read."""

    def __init__(
        self, raw: mx.array, temperature: float | list[float] | mx.array, cap: float | None, kernels: Kernels
    ) -> None:
        """raw: logits [B, C, V], all finite. temperature: one, or one per row. cap: None if there is no softcap."""
        self.raw = raw
        # An array: mx.compile would compile again for every new number.
        self._temperature = mx.broadcast_to(mx.array(temperature).reshape(-1, 1, 1), (raw.shape[0], 1, 1))
        self._cap = cap
        self._kernels = kernels
        self._functions = _functions(kernels, cap)
        # The maximum of every group [B, C, G], once it is known.
        self._peaks: mx.array | None = None

    @classmethod
    def of(cls, processed: mx.array, kernels: Kernels) -> ProcessedLogits:
        """Return float32 logits [B, C, V] as they are."""
        return cls(processed, 1.0, None, kernels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """B, C and V."""
        rows, positions, size = self.raw.shape
        return rows, positions, size

    def __getitem__(self, where: tuple[slice, slice]) -> ProcessedLogits:
        """Return those of some rows and positions."""
        rows, positions = where
        return ProcessedLogits(self.raw[rows, positions], self._temperature[rows], self._cap, self._kernels)

    def forbid(self, row: int, positions: int | slice, tokens: mx.array | list[int]) -> None:
        """Let some positions of a row not have some tokens: their logits are FORBIDDEN."""
        self.raw[row, positions, tokens] = -mx.inf
        self._peaks = None

    def array(self) -> mx.array:
        """Compute them all: float32 [B, C, V]."""
        return self._functions.processed(self.raw, self._temperature)

    def at(self, tokens: mx.array) -> mx.array:
        """Compute those of the tokens [B, C, N], or of the same tokens [N] at every position -> [B, C, N]."""
        chosen = self.raw[..., tokens] if tokens.ndim == 1 else mx.take_along_axis(self.raw, tokens, axis=-1)
        return self._functions.processed(chosen, self._temperature)

    def read(self, uniform: mx.array) -> Reading:
        """Read every position; uniform [B, C] holds a random number in 0 .. 1 for each."""

        def read(raw: mx.array, uniform: mx.array) -> tuple[mx.array, ...]:
            return _read(raw, uniform, self._temperature, self._functions)

        *fields, self._peaks = self._kernels.in_parts(read, self.raw, uniform)
        return Reading(*fields)

    def most_likely(self, count: int) -> tuple[mx.array, mx.array]:
        """Return the ids and logits of the `count` most likely tokens, in no order, each [B, C, count].

        They lie in the `count` groups with the highest maxima: only these are partitioned.
        """

        def find(raw: mx.array, peaks: mx.array) -> tuple[mx.array, mx.array]:
            groups = _grouped(raw)
            width = groups.shape[-1]
            chosen = _highest(peaks, count)
            candidates = mx.take_along_axis(groups, chosen[..., None], axis=-2).flatten(-2)
            inside = _highest(candidates, count)
            ids = mx.take_along_axis(chosen, inside // width, axis=-1) * width + inside % width
            return ids, mx.take_along_axis(candidates, inside, axis=-1)

        if self._peaks is None:
            self._peaks = _grouped(self.raw).max(axis=-1)
        ids, raw = self._kernels.in_parts(find, self.raw, self._peaks)
        return ids, self._functions.processed(raw, self._temperature)

    def probabilities(self, dtype: mx.Dtype) -> mx.array:
        """Compute the softmax [B, C, V] of these logits rounded to a dtype, in that dtype, as the reference does."""
        powers = _rounded_powers(self._kernels, self._cap, dtype)

        def normalised(raw: mx.array) -> tuple[mx.array]:
            highest = self._functions.processed(raw.max(axis=-1, keepdims=True), self._temperature)
            weights = powers(raw, highest, self._temperature)
            return ((weights / weights.sum(axis=-1, keepdims=True)).astype(dtype),)

        (result,) = self._kernels.in_parts(normalised, self.raw)
        return result


Processing: TypeAlias = Callable[[mx.array, mx.array], mx.array]
"""raw logits [B, C, N], temperatures [B, 1, 1] -> float32 logits [B, C, N]"""


def _processing(kernels: Kernels, cap: float | None) -> Processing:
    softcap = kernels.softcap

    def processed(raw: mx.array, temperature: mx.array) -> mx.array:
        capped = raw.astype(mx.float32) if cap is None else softcap(raw, cap)
        return mx.where(raw == -mx.inf, FORBIDDEN, capped / temperature)

    return processed


class _Functions(NamedTuple):
    """Compiled functions of raw logits [B, C, N] and temperatures [B, 1, 1]."""

    processed: Processing
    weights: Callable[[mx.array, mx.array, mx.array], tuple[mx.array, mx.array]]
    """raw, the highest logit [B, C, 1], temperature -> exp(logits - highest), and that times logits - highest"""


@lru_cache
def _functions(kernels: Kernels, cap: float | None) -> _Functions:
    exp, processed = kernels.exp, _processing(kernels, cap)

    def weights(raw: mx.array, highest: mx.array, temperature: mx.array) -> tuple[mx.array, mx.array]:
        distance = processed(raw, temperature) - highest
        powers = exp(distance)
        return powers, powers * distance

    return _Functions(mx.compile(processed), mx.compile(weights))


@lru_cache
def _rounded_powers(
    kernels: Kernels, cap: float | None, dtype: mx.Dtype
) -> Callable[[mx.array, mx.array, mx.array], mx.array]:
    """Return the function exp(logits - highest) of raw logits, highest and temperature, both rounded to a dtype."""
    exp, processed = kernels.exp, _processing(kernels, cap)

    @mx.compile
    def powers(raw: mx.array, highest: mx.array, temperature: mx.array) -> mx.array:
        rounded = processed(raw, temperature).astype(dtype).astype(mx.float32)
        return exp(rounded - highest.astype(dtype).astype(mx.float32))

    return powers


def _read(raw: mx.array, uniform: mx.array, temperature: mx.array, functions: _Functions) -> tuple[mx.array, ...]:
    """Return the fields of the Reading of raw logits, and the maximum of every group.

    The entropy is log Z - sum(w d) / Z, where d is the distance to the highest logit, not the logit itself: where a
    position is certain all terms are small, and none is lost to rounding.
    """
    groups = _grouped(raw)
    peaks = groups.max(axis=-1)
    group = mx.argmax(peaks, axis=-1, keepdims=True)
    inside = mx.argmax(_of_group(groups, group), axis=-1)
    highest = functions.processed(mx.take_along_axis(peaks, group, axis=-1), temperature)
    weights, terms = functions.weights(raw, highest, temperature)
    weights = _grouped(weights)
    sums = weights.sum(axis=-1)
    total = sums.sum(axis=-1)
    log_total = mx.log(total)
    best = (group.squeeze(-1) * groups.shape[-1] + inside).astype(mx.int32)
    drawn = _draw(weights, sums, mx.maximum(uniform, MIN_UNIFORM) * total)
    entropy = log_total - terms.sum(axis=-1) / total
    # The weight of the most likely token is 1, so the total is one over its probability.
    return best, drawn, entropy, log_total + highest.squeeze(-1), total, peaks


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


def _highest(values: mx.array, count: int) -> mx.array:
    """Return the indices of the `count` highest of [.., N]; all of them if there are no more."""
    size = values.shape[-1]
    if count >= size:
        return mx.broadcast_to(mx.arange(size, dtype=mx.uint32), values.shape)
    return mx.argpartition(values, kth=-count, axis=-1)[..., -count:]


def _grouped(logits: mx.array) -> mx.array:
    """[B, C, V] -> [B, C, G, W]"""
    return mx.unflatten(logits, -1, (-1, group_width(logits.shape[-1])))


def _of_group(groups: mx.array, group: mx.array) -> mx.array:
    """Pick one group per position [B, C, 1] of [B, C, G, W] -> [B, C, W]"""
    return mx.take_along_axis(groups, group[..., None], axis=-2).squeeze(-2)
