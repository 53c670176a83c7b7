"""Drafts of Metal kernels: their twins compute what the package computes; on a Mac the kernels what their twins do."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest
from metal.norms import sum_and_norms, sum_and_norms_in_numpy
from metal.vocabulary import Groups, combined, read_groups, read_groups_in_numpy

from mlx_diffgemma.model.kernels import default_kernels
from mlx_diffgemma.model.logits import ProcessedLogits

on_metal = pytest.mark.skipif(not mx.metal.is_available(), reason="a Metal kernel: needs a Mac")
SIZES = [32, 700, 2816]


def numbers(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)


def sum_and_norms_of(size: int) -> list[np.ndarray]:
    return [
        numbers(5, size),
        numbers(5, size, seed=1, scale=30),
        *(1 + numbers(size, seed=2 + each) for each in range(3)),
    ]


@pytest.mark.parametrize("size", SIZES)
def test_the_twin_of_sum_and_norms_is_the_sum_and_its_norms(size: int) -> None:
    values = sum_and_norms_of(size)
    x, a, post, dense, experts = map(mx.array, values)
    h = x + mx.fast.rms_norm(a, post, 1e-6)
    expected = (h, mx.fast.rms_norm(h, dense, 1e-6), mx.fast.rms_norm(h, experts, 1e-6))
    for found, right in zip(sum_and_norms_in_numpy(values[0], values[1], values[2:], eps=1e-6), expected, strict=True):
        np.testing.assert_allclose(found, np.array(right), rtol=2e-5, atol=2e-5)


@on_metal
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
@pytest.mark.parametrize("size", SIZES)
def test_sum_and_norms_is_its_twin(size: int, dtype: mx.Dtype) -> None:
    arrays = [mx.array(each).astype(dtype) for each in sum_and_norms_of(size)]
    rounded = [np.array(each.astype(mx.float32)) for each in arrays]
    tolerance = 2e-5 if dtype == mx.float32 else 2e-2
    computed = sum_and_norms(arrays[0], arrays[1], arrays[2:], eps=1e-6)
    for found, right in zip(
        computed, sum_and_norms_in_numpy(rounded[0], rounded[1], rounded[2:], eps=1e-6), strict=True
    ):
        np.testing.assert_allclose(np.array(found.astype(mx.float32)), right, rtol=tolerance, atol=tolerance)


TEMPERATURES = np.array([0.4, 0.8, 1.0], np.float32)


def raw_logits() -> np.ndarray:
    """Rows of a flat, a usual and a certain position, over 1,024 tokens."""
    raw = numbers(3, 1024) * np.array([[0.1], [6], [6]], np.float32)
    raw[2, 77] = 80
    return raw


def test_groups_of_logits_add_up_to_the_reading_of_all() -> None:
    raw = raw_logits()
    total, entropy, largest = combined(read_groups_in_numpy(raw, TEMPERATURES, 30.0))
    processed = ProcessedLogits(mx.array(raw)[:, None], TEMPERATURES.tolist(), 30.0, default_kernels())
    reading = processed.read(mx.full((3, 1), 0.5))
    np.testing.assert_allclose(np.array(total), np.array(reading.total)[:, 0], rtol=1e-5)
    np.testing.assert_allclose(np.array(entropy), np.array(reading.entropy)[:, 0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.array(largest), np.array(processed.array().max(axis=-1))[:, 0], rtol=1e-5)


@on_metal
@pytest.mark.parametrize("dtype", [mx.float32, mx.bfloat16])
def test_the_kernel_that_reads_groups_is_its_twin(dtype: mx.Dtype) -> None:
    raw = mx.array(raw_logits()).astype(dtype)
    found = read_groups(raw, mx.array(TEMPERATURES), 30.0)
    right: Groups = read_groups_in_numpy(np.array(raw.astype(mx.float32)), TEMPERATURES, 30.0)
    for one, other in zip(found, right, strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), rtol=1e-4, atol=1e-5)
