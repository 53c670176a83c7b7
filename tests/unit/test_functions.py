"""The elementwise functions of the CPU against float64 numpy, the tiles of the experts against a plain loop."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import numpy.typing as npt
import pytest
from tiny import tiny_config

from mlx_diffgemma.device import cpu
from mlx_diffgemma.device.cpu import attention, exp, softcap, softmax, tile_height
from mlx_diffgemma.model import functions
from mlx_diffgemma.model.experts import Experts, tiled
from mlx_diffgemma.model.kernels import CPU_KERNELS, PLAIN_KERNELS

Array = npt.NDArray[np.float64]
Masks = mx.array | str | None
CAP = 30.0
geglu = partial(functions.geglu, kernels=CPU_KERNELS)
cross_entropy = partial(functions.cross_entropy, cap=CAP, kernels=CPU_KERNELS)
EXTREMES = (-1e6, -1e3, -87.5, -87.0, -30.0, -3.0, -1.0, -1e-3, 0.0, 1e-6, 0.5, 1.0, 3.0, 30.0, 87.0, 87.5, 1e3, 1e6)
ROUNDINGS = 4e-7
"""What three or four roundings of float32 (6e-8 each) and the polynomial of exp (3e-7) come to, relatively."""


@pytest.fixture(autouse=True)
def on_the_cpu() -> Iterator[None]:
    """These functions have a form of their own there, whatever this machine's device is."""
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


def normal(shape: tuple[int, ...], seed: int = 0, scale: float = 1.0) -> Array:
    """float32 numbers, held in float64."""
    return (scale * np.random.default_rng(seed).standard_normal(shape)).astype(np.float32).astype(np.float64)


def as_mlx(values: Array) -> mx.array:
    return mx.array(values.astype(np.float32))


def as_numpy(array: mx.array) -> Array:
    return np.array(array.astype(mx.float32)).astype(np.float64)


def slopes(function: Callable[..., Array], arguments: list[Array], cotangent: Array, step: float = 1e-5) -> list[Array]:
    """Gradients of (function(*arguments) * cotangent).sum() by central differences in float64, good to 1e-9."""
    found = [np.zeros_like(argument) for argument in arguments]
    for argument, gradient in zip(arguments, found, strict=True):
        for place in np.ndindex(argument.shape):
            value = argument[place]
            argument[place] = value + step
            above = (function(*arguments) * cotangent).sum()
            argument[place] = value - step
            below = (function(*arguments) * cotangent).sum()
            argument[place] = value
            gradient[place] = (above - below) / (2 * step)
    return found


def gradients(function: Callable[..., mx.array], arguments: list[Array], cotangent: Array) -> list[Array]:
    """The same by MLX, with the gradient that the function brings."""
    _, made = mx.vjp(function, [*map(as_mlx, arguments)], [as_mlx(cotangent)])
    return [as_numpy(each) for each in made]


def assert_close(found: Array, expected: Array, relative: float, absolute: float) -> None:
    np.testing.assert_allclose(found, expected, rtol=relative, atol=absolute)


def gelu_times(gate: Array, up: Array) -> Array:
    inner = math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)
    return 0.5 * gate * (1 + np.tanh(inner)) * up


def probabilities(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def nats(raw: Array, targets: npt.NDArray[np.int64]) -> Array:
    capped = CAP * np.tanh(raw / CAP)
    chosen = np.take_along_axis(capped, targets[:, None], axis=-1).squeeze(-1)
    return np.log(np.exp(capped).sum(axis=-1)) - chosen


def attended(queries: Array, keys: Array, values: Array, mask: npt.NDArray[np.bool_] | None) -> Array:
    shared = queries.shape[1] // keys.shape[1]
    scores = queries @ np.repeat(keys, shared, axis=1).swapaxes(-1, -2)
    if mask is not None:
        scores = np.where(mask, scores, -np.inf)
    return probabilities(scores) @ np.repeat(values, shared, axis=1)


# exp


def test_exp_is_exact_to_three_roundings_over_its_whole_range() -> None:
    """The polynomial and the reduction of the argument leave 3e-7; MLX's own exp leaves 4e-6 here."""
    values = np.linspace(-87, 87, 100_003).astype(np.float32).astype(np.float64)
    assert_close(as_numpy(exp(as_mlx(values))), np.exp(values), ROUNDINGS, 0)


def test_exp_takes_what_is_beyond_87_as_87() -> None:
    found = as_numpy(exp(mx.array([-float("inf"), -1e9, -88.0, 88.0, 1e9, float("inf")])))
    assert_close(found, np.exp(np.array([-87.0] * 3 + [87.0] * 3)), ROUNDINGS, 0)


def test_a_number_that_is_none_is_none_afterwards() -> None:
    """A training finds out by this that it has failed."""
    none, one = mx.array([[float("nan"), 1.0]]), mx.ones((1, 2))
    targets = mx.array([1])
    for found in (
        exp(none),
        softmax(none),
        softcap(none, CAP),
        geglu(none, one),
        cross_entropy(none, targets),
    ):
        assert mx.isnan(found.flatten()[0]).item()


def test_other_devices_take_the_functions_of_mlx() -> None:
    """Both forms of attention and exp give the same within the error of MLX's exp, 4e-6."""
    queries, keys, values = (as_mlx(normal(shape)) for shape in ((1, 4, 3, 8), (1, 2, 5, 8), (1, 2, 5, 8)))
    ours, theirs = (
        [kernels.exp(queries), *(kernels.attention(queries, keys, values, mask) for mask in ("causal", None))]
        for kernels in (CPU_KERNELS, PLAIN_KERNELS)
    )
    assert mx.array_equal(theirs[0], mx.exp(queries))
    for own, other in zip(ours, theirs, strict=True):
        assert_close(as_numpy(own), as_numpy(other), 1e-5, 1e-6)


# geglu


def test_geglu_is_the_tanh_gelu_times_up() -> None:
    """Relative to the result, and absolutely where sigmoid rounds what is next to nothing: there 1e-6 of |gate|."""
    gate, up = (np.array(column) for column in zip(*itertools.product(EXTREMES, (-2.0, 0.0, 1.0, 1e3)), strict=True))
    found = as_numpy(geglu(as_mlx(gate), as_mlx(up)))
    expected = gelu_times(gate.astype(np.float32).astype(np.float64), up)
    np.testing.assert_array_less(np.abs(found - expected), 1e-6 * np.abs(expected) + 1e-6 * np.abs(up) + 1e-30)
    dense = np.linspace(-6, 6, 4001).astype(np.float32).astype(np.float64)
    assert_close(as_numpy(geglu(as_mlx(dense), mx.ones(dense.shape))), gelu_times(dense, np.ones(1)), 1e-6, 1e-6)


def test_the_gradient_of_geglu_is_that_of_its_formula() -> None:
    """Slopes are at most 1.13; 2e-6 is a few roundings of that."""
    gate = np.array([*np.linspace(-8, 8, 65), -1e3, -87.0, 87.0, 1e3])
    arguments = [gate, normal(gate.shape)]
    cotangent = normal(gate.shape, seed=1)
    expected = slopes(gelu_times, arguments, cotangent)
    for found, wanted in zip(gradients(geglu, arguments, cotangent), expected, strict=True):
        assert_close(found, wanted, 2e-6, 5e-6)


def test_geglu_of_bfloat16_is_bfloat16_with_its_gradient() -> None:
    """A bfloat16 has 8 bits: rounding the gelu and then the product is off by at most 2 / 256."""
    gate, up = (mx.array(normal((4, 33), seed, 2.0).astype(np.float32)).astype(mx.bfloat16) for seed in (0, 1))
    found = geglu(gate, up)
    slope = mx.grad(lambda gate: geglu(gate, up).sum().astype(mx.float32))(gate)
    assert found.dtype == slope.dtype == mx.bfloat16
    assert_close(as_numpy(found), gelu_times(as_numpy(gate), as_numpy(up)), 2 / 256, 1e-6)


# softmax


@pytest.mark.parametrize(
    "row",
    [
        [0.0] * 7,
        [87.0] * 7,
        [-1e9] * 7,
        [-87.0, 87.0, 0.0, 1.0, -1.0, 50.0, 86.0],
        [-1e9, -1e9, -1e9, 3.0, -1e9, -1e9, -1e9],
        [1e6, 1e6 - 1, -1e6, 0.0, 0.0, 0.0, 0.0],
        [-5.0, -4.0, -3.0, -2.0, -1.0, -0.5, 0.0],
    ],
)
def test_softmax_is_exact_for_every_kind_of_row(row: list[float]) -> None:
    """What is more than 87 below the highest has 1.6e-38 instead of less: nothing beside a float32 of 1."""
    scores = np.array([row])
    found = as_numpy(softmax(as_mlx(scores)))
    assert_close(found, probabilities(scores), 1e-6, 1e-37)
    assert found.sum() == pytest.approx(1, abs=1e-6)
    if len(set(row)) == 1:
        assert len(set(found.flatten())) == 1


def test_the_gradient_of_softmax_is_that_of_its_formula() -> None:
    """Probabilities are at most 1; 1e-6 is a few roundings of that."""
    scores = normal((5, 9), scale=3)
    scores[1], scores[2, :-1], scores[3] = 0.0, -200.0, np.linspace(-87, 87, 9)
    cotangent = normal((5, 9), seed=1)
    expected = slopes(probabilities, [scores], cotangent)[0]
    assert_close(gradients(softmax, [scores], cotangent)[0], expected, 1e-6, 1e-6)


# softcap and cross-entropy


def test_softcap_is_the_tanh_that_it_stands_for() -> None:
    """2 * sigmoid - 1 cancels near 0: what is left of a rounding there, times the cap, is 8e-6."""
    values = np.array([*EXTREMES, *np.linspace(-200, 200, 5001)]).astype(np.float32).astype(np.float64)
    found = as_numpy(softcap(as_mlx(values), CAP))
    assert_close(found, CAP * np.tanh(values / CAP), 0, 8e-6)
    assert np.abs(found).max() <= CAP


RAW = {
    "ordinary": normal((6, 11), scale=4),
    "all equal": np.zeros((2, 11)) + 3.0,
    "certain": np.where(np.arange(11) == 4, 1e4, -1e4)[None],
    "certain and wrong": np.where(np.arange(11) == 5, 1e4, -1e4)[None],
    "at 87": np.linspace(-87, 87, 11)[None],
    "all far below": np.full((1, 11), -1e6),
    "all far above": np.full((1, 11), 1e6),
}


@pytest.mark.parametrize("kind", RAW)
def test_cross_entropy_is_that_of_the_capped_logits(kind: str) -> None:
    """Two terms of up to 30 nats, each off by the 8e-6 of softcap; a slope is at most 1, off by a few roundings."""
    raw = RAW[kind]
    targets = np.full(raw.shape[0], 4)
    found = cross_entropy(as_mlx(raw), mx.array(targets))
    assert_close(as_numpy(found), nats(raw, targets), 1e-6, 2e-5)
    cotangent = normal((raw.shape[0],), seed=1)
    expected = slopes(lambda raw: nats(raw, targets), [raw.copy()], cotangent)[0]
    made = gradients(lambda raw: cross_entropy(raw, mx.array(targets)), [raw], cotangent)[0]
    assert_close(made, expected, 1e-5, 1e-5)


# attention

SHAPES = ((2, 4, 5, 8), (2, 2, 9, 8), (2, 2, 9, 6))
"""Queries, keys and values: four heads of two groups, five queries of nine keys."""
SEEN = np.random.default_rng(3).random((5, 9)) < 0.5
SEEN[:, 0] = True
ONLY_ONE = np.zeros((2, 1, 1, 9), bool)
ONLY_ONE[0, ..., 7] = ONLY_ONE[1, ..., 2] = True
MASKS: dict[str, tuple[Masks, npt.NDArray[np.bool_] | None]] = {
    "none": (None, None),
    "causal": ("causal", np.arange(4, 9)[:, None] >= np.arange(9)),
    "bool": (mx.array(SEEN), SEEN),
    "one key": (mx.array(ONLY_ONE), ONLY_ONE),
}


@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize("kind", MASKS)
def test_grouped_attention_equals_its_formula(kind: str, scale: float) -> None:
    """Scores of magnitude s have a rounding of s * 6e-8, and so have the probabilities: 20 * 20 * 8 * 6e-8 = 2e-4."""
    mask, literal = MASKS[kind]
    arguments = [normal(shape, seed, scale if seed < 2 else 1.0) for seed, shape in enumerate(SHAPES)]
    found = attention(*map(as_mlx, arguments), mask)
    tolerance = 1e-6 if scale == 1 else 2e-4
    assert_close(as_numpy(found), attended(*arguments, literal), tolerance, 2 * tolerance)


@pytest.mark.parametrize("kind", MASKS)
def test_the_gradients_of_attention_are_those_of_its_formula(kind: str) -> None:
    """Sums of nine products of numbers of order 1 to 10."""
    mask, literal = MASKS[kind]
    arguments = [normal(shape, seed) for seed, shape in enumerate(SHAPES)]
    cotangent = normal((2, 4, 5, 6), seed=9)
    expected = slopes(lambda *given: attended(*given, literal), arguments, cotangent)
    found = gradients(lambda *given: attention(*given, mask), arguments, cotangent)
    for made, wanted in zip(found, expected, strict=True):
        assert_close(made, wanted, 1e-5, 1e-5)


@pytest.mark.parametrize("kind", MASKS)
def test_attention_in_parts_is_attention(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two queries of one group at a time: five are three parts, in each of two groups. The same up to rounding."""
    arguments = [normal(shape, seed) for seed, shape in enumerate(SHAPES)]
    mask, cotangent = MASKS[kind][0], normal((2, 4, 5, 6), seed=9)
    whole = attention(*map(as_mlx, arguments), mask)
    slope = gradients(lambda *given: attention(*given, mask), arguments, cotangent)
    monkeypatch.setattr(cpu, "MAX_SCORES", 1)
    monkeypatch.setattr(cpu, "MIN_QUERIES", 2)
    assert_close(as_numpy(attention(*map(as_mlx, arguments), mask)), as_numpy(whole), 1e-6, 1e-6)
    for made, wanted in zip(
        gradients(lambda *given: attention(*given, mask), arguments, cotangent), slope, strict=True
    ):
        assert_close(made, wanted, 1e-5, 1e-5)


def test_the_scores_of_a_long_prefix_are_not_held_together() -> None:
    queries, keys = mx.zeros((1, 4, 512, 8)), mx.zeros((1, 2, 16_384, 8))
    mx.eval(queries, keys, attention(queries, keys, keys, None))
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    mx.eval(attention(queries, keys, keys, None))
    scores = 4 * 512 * 16_384 * 4
    # MLX holds what the ten operations make that it has under way at most: arrays of 4 MB each, some of several steps.
    assert mx.get_peak_memory() - before < 25 * 4 * cpu.MAX_SCORES < scores


def test_a_key_that_nobody_sees_does_not_matter() -> None:
    arguments = [normal(shape, seed) for seed, shape in enumerate(SHAPES)]
    first = attention(*map(as_mlx, arguments), MASKS["one key"][0])
    for changed in arguments[1:]:
        changed[0, :, :7], changed[0, :, 8:] = 1e4, -1e4
    second = attention(*map(as_mlx, arguments), MASKS["one key"][0])
    assert_close(as_numpy(second), as_numpy(first), 1e-6, 1e-6)


def test_attention_of_bfloat16_is_bfloat16() -> None:
    """Inputs and result have 8 bits, and the probabilities are rounded to them: 4 / 256 of values of order 1."""
    arguments = [as_mlx(normal(shape, seed)).astype(mx.bfloat16) for seed, shape in enumerate(SHAPES)]
    found = attention(*arguments, "causal")
    assert found.dtype == mx.bfloat16
    exact = attended(*map(as_numpy, arguments), MASKS["causal"][1])
    assert_close(as_numpy(found), exact, 4 / 256, 4 / 256)


# tiles of experts

CHOICES = {
    "one pair": ([3], 5),
    "every expert": ([4, 0, 3, 1, 2, 0, 4, 4, 1, 0, 2, 3, 3], 5),
    "one expert has all": ([2] * 11, 5),
    "first and last have none": ([1, 3, 1, 2, 3, 1, 2, 2], 5),
    "one expert exists": ([0] * 6, 1),
    "random": (np.random.default_rng(0).integers(0, 16, 200).tolist(), 16),
}


@pytest.mark.parametrize("height", [1, 2, 4, 16])
@pytest.mark.parametrize("kind", CHOICES)
def test_every_pair_is_in_one_row_of_a_tile_of_its_expert(kind: str, height: int) -> None:
    chosen, experts = CHOICES[kind]
    pairs, places, of_tile = (array.tolist() for array in tiled(mx.array(chosen), experts, height))
    assert len(pairs) == len(of_tile) * height
    assert of_tile == sorted(of_tile)
    assert set(of_tile) <= set(range(experts))
    assert sorted(pair for pair in pairs if pair != len(chosen)) == list(range(len(chosen)))
    assert [pairs[place] for place in places] == list(range(len(chosen)))
    assert [of_tile[place // height] for place in places] == chosen


def test_one_row_per_tile_needs_no_padding() -> None:
    pairs, _, of_tile = tiled(mx.array([2, 0, 2, 1]), 3, 1)
    assert sorted(pairs.tolist()) == [0, 1, 2, 3]
    assert of_tile.tolist() == [0, 1, 2, 2]


def test_padding_stands_behind_the_pairs_of_an_expert() -> None:
    pairs, places, of_tile = tiled(mx.array([2, 0, 2, 0, 0, 2]), 3, 2)
    assert pairs.tolist() == [1, 3, 4, 6, 0, 2, 5, 6, 6, 6, 6, 6]
    assert places.tolist() == [4, 0, 5, 1, 2, 6]
    assert of_tile.tolist() == [0, 0, 2, 2, 2, 2]


def test_only_the_many_rows_of_a_training_batch_on_the_cpu_are_tiled() -> None:
    assert [tile_height(pairs, 4) for pairs in (1, 511, 512, 100_000)] == [1, 1, 64, 64]
    assert PLAIN_KERNELS.tile_height(100_000, 4) == 1


CONFIG = tiny_config()


def mixture(hidden: mx.array, weights: mx.array, gate_up: mx.array, down: mx.array, indices: mx.array) -> mx.array:
    """Every expert for every token, weighted by 0 where it was not chosen, with MLX's own functions and gradients."""
    total = mx.zeros_like(hidden)
    for expert in range(CONFIG.num_experts):
        gate, up = mx.split(hidden @ gate_up[expert].T, 2, axis=-1)
        out = (nn.gelu_approx(gate) * up) @ down[expert].T
        total = total + (weights * (indices == expert)).sum(axis=-1, keepdims=True) * out
    return total


@pytest.mark.parametrize(("tokens", "height"), [(1, 1), (1, 4), (37, 1), (37, 4), (400, None)])
def test_experts_and_their_gradients_equal_a_slow_loop(tokens: int, height: int | None) -> None:
    """float32 sums of 32 and 16 products in another order; results are of order 1, gradients of weights of order 10."""
    kernels = CPU_KERNELS
    if height is None:
        assert tile_height(2 * tokens, CONFIG.num_experts) > 1
    else:
        kernels = replace(CPU_KERNELS, tile_height=lambda pairs, experts: height)
    keys = mx.random.split(mx.random.key(0), 6)
    experts = Experts(CONFIG, kernels)
    sizes = experts.gate_up_proj.weight.shape, experts.down_proj.weight.shape
    arguments = [
        mx.random.normal((tokens, CONFIG.hidden_size), key=keys[0]),
        mx.random.uniform(0.1, 1.0, (tokens, 2), key=keys[1]),
        mx.random.normal(sizes[0], key=keys[2]) / 5,
        mx.random.normal(sizes[1], key=keys[3]) / 4,
    ]
    # The last expert gets nothing.
    order = mx.random.uniform(shape=(tokens, CONFIG.num_experts - 1), key=keys[4])
    indices = mx.argsort(order, axis=-1)[:, :2]
    cotangent = mx.random.normal((tokens, CONFIG.hidden_size), key=keys[5])

    def fast(hidden: mx.array, weights: mx.array, gate_up: mx.array, down: mx.array) -> mx.array:
        experts.gate_up_proj.weight, experts.down_proj.weight = gate_up, down
        return experts(hidden, weights, indices)

    def slow(*given: mx.array) -> mx.array:
        return mixture(*given, indices)

    assert_close(as_numpy(fast(*arguments)), as_numpy(slow(*arguments)), 1e-5, 1e-5)
    found, expected = (mx.vjp(function, arguments, [cotangent])[1] for function in (fast, slow))
    for made, wanted in zip(found, expected, strict=True):
        assert_close(as_numpy(made), as_numpy(wanted), 1e-4, 1e-4)
    assert mx.abs(found[2][-1]).max().item() == mx.abs(found[3][-1]).max().item() == 0


def test_a_gpu_reads_whole_chunks_at_any_length_and_divides_the_rest() -> None:
    """Behind 32k tokens a CPU stores the scores of 256 tokens at a time; Metal fuses the attention of 2,048."""
    gpu, own = PLAIN_KERNELS.chunk_length, CPU_KERNELS.chunk_length
    assert [gpu(5000, before) for before in (0, 30_000, 100_000)] == [2048, 2048, 2048]
    assert [own(5000, before) for before in (0, 30_000, 100_000)] == [2048, 512, 256]
    assert [gpu(1500, before) for before in (0, 30_000)] == [1500, 512]
    assert gpu(100, 100_000) == own(100, 100_000) == 100
