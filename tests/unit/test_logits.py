"""Reading logits in groups and parts against the plain formulas over the whole vocabulary."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import mlx.core as mx
import numpy as np
import pytest

from mlx_diffgemma.device.parts import in_parts
from mlx_diffgemma.model import kernels
from mlx_diffgemma.model.kernels import CPU_KERNELS, PLAIN_KERNELS, Kernels, default_kernels
from mlx_diffgemma.model.logits import FORBIDDEN, ProcessedLogits, Reading, group_width

KERNELS = default_kernels()
SIZES = (262_144, 65_536, 880, 64, 97, 1)
"""The release, the benchmark's, the demo, the fixtures, a prime, and nothing to choose from."""


def random_logits(size: int, positions: int = 3, scale: float = 12.0) -> mx.array:
    return scale * mx.random.normal((1, positions, size), key=mx.random.key(size))


def read(logits: mx.array, targets: mx.array, kernels: Kernels = KERNELS) -> Reading:
    return ProcessedLogits.of(logits, kernels).read(targets)


def softmax(logits: mx.array) -> np.ndarray:
    """In float64."""
    exact = np.array(logits).astype(np.float64)
    powers = np.exp(exact - exact.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def uniform(shape: tuple[int, ...]) -> mx.array:
    return mx.random.uniform(shape=shape, key=mx.random.key(5))


@pytest.mark.parametrize("size", SIZES)
def test_best_entropy_and_total_equal_those_in_float64(size: int) -> None:
    """To 1e-5 nats: float32 sums of up to 262,144 terms."""
    logits = random_logits(size)
    reading = read(logits, uniform((1, 3)))
    expected = softmax(logits)
    exact = np.array(logits).astype(np.float64)
    assert reading.best.tolist() == exact.argmax(axis=-1).tolist()
    entropy = -(expected * np.log(np.maximum(expected, 1e-300))).sum(axis=-1)
    assert np.abs(np.array(reading.entropy) - entropy).max() < 1e-5
    total = np.log(np.exp(exact - 60).sum(axis=-1)) + 60
    assert np.abs(np.array(reading.total) - total).max() < 1e-5


def test_entropy_of_a_certain_position_is_zero_and_of_an_even_one_the_logarithm() -> None:
    certain = mx.where(mx.arange(4096) == 77, 75.0, -75.0)
    reading = read(mx.stack([certain, mx.zeros(4096)])[None], uniform((1, 2)))
    assert reading.entropy.tolist()[0] == pytest.approx([0.0, math.log(4096)], abs=1e-6)
    assert reading.best.tolist() == [[77, 0]]
    assert reading.drawn[0, 0].item() == 77


def test_a_forbidden_token_is_never_drawn_and_adds_no_entropy() -> None:
    logits = mx.array([[[-1e9, 1.0, 1.0, -1e9]]])
    draws = {read(logits, mx.array([[share]])).drawn.item() for share in (0.0, 0.3, 0.6, 0.999999)}
    assert draws == {1, 2}
    assert read(logits, uniform((1, 1))).entropy.item() == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("size", [97, 880])
def test_a_draw_inverts_the_distribution_function(size: int) -> None:
    logits = mx.repeat(random_logits(size, positions=1, scale=2.0), 500, axis=1)
    targets = uniform((1, 500))
    ends = np.cumsum(softmax(logits)[0, 0])
    expected = np.searchsorted(ends, np.array(targets)[0], side="right")
    drawn = np.array(read(logits, targets).drawn)[0]
    # A target within rounding of a border may fall on either side of it.
    near = np.abs(ends[None] - np.array(targets)[0][:, None]).min(axis=1) < 1e-6
    assert (drawn == expected)[~near].all()
    assert near.sum() < 10


def test_the_ends_of_the_distribution_are_tokens_that_have_a_probability() -> None:
    logits = mx.where((mx.arange(4096) == 100) | (mx.arange(4096) == 3000), 0.0, -80.0)[None, None]
    assert read(logits, mx.array([[0.0]])).drawn.item() == 100
    assert read(logits, mx.array([[math.nextafter(1.0, 0.0)]])).drawn.item() == 3000


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 8, 64])
def test_the_most_likely_are_the_first_of_a_full_sort(size: int, count: int) -> None:
    logits = random_logits(size)
    ids, values = ProcessedLogits.of(logits, KERNELS).most_likely(count)
    count = min(count, size)
    expected = np.sort(np.array(logits), axis=-1)[..., ::-1][..., :count]
    assert np.array_equal(np.sort(np.array(values), axis=-1)[..., ::-1], expected)
    assert np.array_equal(np.take_along_axis(np.array(logits), np.array(ids), axis=-1), np.array(values))


@pytest.mark.parametrize("size", SIZES)
def test_groups_divide_the_vocabulary(size: int) -> None:
    assert size % group_width(size) == 0


@pytest.mark.parametrize("part", [64, 1000, 2**30])
def test_the_size_of_the_parts_changes_nothing(part: int) -> None:
    targets, raw = uniform((1, 7)), random_logits(880, positions=7, scale=40.0)

    def everything(kernels: Kernels) -> list[mx.array]:
        processed = ProcessedLogits(raw, [0.5], 30.0, kernels)
        return [*processed.read(targets), *processed.most_likely(8), processed.probabilities(mx.bfloat16)]

    whole = everything(CPU_KERNELS)
    smaller = replace(CPU_KERNELS, in_parts=partial(in_parts, part))
    assert all(mx.array_equal(one, other) for one, other in zip(everything(smaller), whole, strict=True))


def test_a_gpu_and_a_cpu_read_the_same_within_rounding() -> None:
    """exp and tanh of both differ by 4e-6 of their values at most."""
    targets, raw = uniform((1, 7)), random_logits(880, positions=7, scale=40.0)
    plain, own = (
        [*logits.read(targets), logits.probabilities(mx.float32), logits.array()]
        for logits in (ProcessedLogits(raw, 0.5, 30.0, kernels) for kernels in (PLAIN_KERNELS, CPU_KERNELS))
    )
    assert all(mx.allclose(one, other, rtol=1e-4, atol=2e-5) for one, other in zip(plain, own, strict=True))


def test_probabilities_are_a_softmax_and_tempered_logits_a_capped_quotient() -> None:
    raw = random_logits(880)
    probabilities = ProcessedLogits.of(raw, KERNELS).probabilities(mx.float32)
    assert np.abs(np.array(probabilities) - softmax(raw)).max() < 1e-6
    expected = 30 * np.tanh(np.array(raw).astype(np.float64) / 30) / 0.4
    assert np.abs(np.array(ProcessedLogits(raw, 0.4, 30.0, KERNELS).array()) - expected).max() < 1e-4


def test_raw_logits_are_read_as_processed_ones_are() -> None:
    """Two rows of different temperatures, in the head's 16 bits."""
    raw = mx.concatenate(
        [
            random_logits(880, scale=20.0),
            random_logits(440, scale=20.0).reshape(1, 3, 440)[..., :1] + random_logits(880),
        ]
    )
    raw, targets = raw.astype(mx.bfloat16), uniform((2, 3))
    lazy = ProcessedLogits(raw, [0.4, 0.8], 30.0, KERNELS)
    whole = ProcessedLogits.of(lazy.array(), KERNELS)
    for one, other in zip(lazy.read(targets), whole.read(targets), strict=True):
        assert mx.allclose(one, other, rtol=1e-5, atol=1e-5).item()
    ids, values = lazy.most_likely(8)
    assert mx.array_equal(values, mx.take_along_axis(lazy.array(), ids, axis=-1)).item()
    assert mx.array_equal(mx.sort(values), mx.sort(whole.most_likely(8)[1])).item()
    assert mx.array_equal(lazy.at(ids), values).item()
    assert mx.array_equal(lazy.at(mx.array([5, 7])), lazy.array()[..., 5:8:2]).item()
    assert mx.array_equal(lazy[1:2, 1:3].array(), lazy.array()[1:2, 1:3]).item()


def test_what_is_forbidden_has_no_probability_and_is_not_among_the_most_likely() -> None:
    raw = random_logits(880, positions=3)
    logits = ProcessedLogits(raw, 0.5, 30.0, KERNELS)
    before = logits.read(uniform((1, 3))).best.tolist()[0]
    logits.forbid(0, 1, [before[1]])
    logits.forbid(0, slice(2, 3), mx.array([before[2], 3]))
    after = logits.read(uniform((1, 3))).best.tolist()[0]
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert after[2] not in (before[2], 3)
    assert logits.array()[0, 1, before[1]].item() == FORBIDDEN
    assert before[1] not in logits.most_likely(8)[0][0, 1].tolist()
    assert logits.probabilities(mx.float32)[0, 2, 3].item() < 1e-30


def test_where_memory_is_short_parts_are_read_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step at once holds the logits and two float32 arrays; in parts two small ones."""
    monkeypatch.setattr(kernels, "PART_LOGITS", 4096 * 8)
    raw, targets = random_logits(4096, positions=64).astype(mx.bfloat16), uniform((1, 64))
    found, held = [], []
    for table in (PLAIN_KERNELS, kernels.sparing(PLAIN_KERNELS)):
        mx.eval(raw, targets)
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        logits = ProcessedLogits(raw, 0.5, 30.0, table)
        results = [*logits.read(targets), *logits.most_likely(8), logits.probabilities(mx.bfloat16)[..., :8]]
        mx.eval(results[:-1])
        held.append((mx.get_peak_memory() - before) / raw.size / 4)
        found.append(results)
    assert all(mx.array_equal(one, other) for one, other in zip(*found, strict=True))
    assert held[1] < 0.6 * held[0]
    assert kernels.sparing(CPU_KERNELS) is CPU_KERNELS
