"""A tensor that is converted in chunks equals the tensor that is converted as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from mlx_diffgemma_convert import chunks as module
from mlx_diffgemma_convert.chunks import ERROR_STRIDE, INFINITY, convert_chunk, is_finite, split_into_chunks
from mlx_diffgemma_convert.plan import Parameter, make_parameter
from mlx_diffgemma_convert.shards import lay_out
from mlx_diffgemma_convert.values import read_rows
from mlx_diffgemma_convert.writer import shard_file

from mlx_diffgemma.checkpoint.names import TensorSource
from mlx_diffgemma.checkpoint.quantization import Quantization
from mlx_diffgemma.checkpoint.safetensors import read_header
from mlx_diffgemma.errors import WeightsError

NAME = "model.decoder.layers.0.experts.down_proj.weight"
SHAPE = (3, 70, 128)
FORMATS = [
    Quantization(bits=4, group_size=64),
    Quantization(bits=5, group_size=32),
    Quantization(bits=6, group_size=128),
    Quantization(bits=8, group_size=64),
    Quantization(bits=4, group_size=32, mode="mxfp4"),
    Quantization(bits=8, group_size=32, mode="mxfp8"),
    Quantization(bits=4, group_size=16, mode="nvfp4"),
]


@pytest.fixture
def weight() -> mx.array:
    return (mx.random.normal(SHAPE, key=mx.random.key(1)) * 0.1).astype(mx.bfloat16)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "CHUNK_BYTES", 11 * 128 * 2)
    yield


def source(folder: Path, **parts: mx.array) -> TensorSource:
    mx.save_safetensors(str(folder / "source.safetensors"), parts)
    infos = {info.name: info for info in read_header(folder / "source.safetensors")}
    return TensorSource(parts=tuple(infos[name] for name in parts), shape=SHAPE)


def convert(folder: Path, parameter: Parameter) -> tuple[dict[str, mx.array], float]:
    """Convert one parameter; return the tensors written and the relative error measured."""
    (shard,) = lay_out([[parameter.entries]])
    with shard_file(folder, shard) as file:
        done = [convert_chunk(chunk, file) for chunk in split_into_chunks(parameter)]
    error = math.sqrt(sum(result.squared_error for result in done) / sum(result.squared_source for result in done))
    return mx.load(str(folder / shard.name)), error


def equal(left: mx.array, right: mx.array) -> bool:
    """Return whether two arrays have the same dtype, shape and bits."""
    return left.dtype == right.dtype and bool(mx.array_equal(left.view(mx.uint8), right.view(mx.uint8)))


@pytest.mark.parametrize("quantization", FORMATS, ids=str)
def test_chunks_give_the_bits_of_the_whole(tmp_path: Path, weight: mx.array, quantization: Quantization) -> None:
    parameter = make_parameter(NAME, source(tmp_path, whole=weight), quantization, "BF16")
    assert len(list(split_into_chunks(parameter))) == 20
    written, error = convert(tmp_path, parameter)
    settings = {"group_size": quantization.group_size, "bits": quantization.bits, "mode": quantization.mode}
    whole = mx.quantize(weight, **settings)
    assert len(written) == len(whole) == (3 if quantization.has_biases else 2)
    for entry, expected in zip(parameter.entries, whole, strict=True):
        assert equal(written[entry.name], expected)
    unpacked = mx.dequantize(*whole, **settings)
    rows = slice(None, None, ERROR_STRIDE)
    sampled = weight.reshape(-1, 128)[rows].astype(mx.float32)
    difference = unpacked.reshape(-1, 128)[rows].astype(mx.float32) - sampled
    assert error == pytest.approx((mx.linalg.norm(difference) / mx.linalg.norm(sampled)).item(), rel=1e-5)
    assert 0.001 < error < 0.2


def test_rows_are_read_across_parts(tmp_path: Path, weight: mx.array) -> None:
    parts = {f"expert{i}": weight[i] for i in range(3)}
    assert equal(read_rows(source(tmp_path, **parts), 60, 100), weight.reshape(-1, 128)[60:160])


@pytest.mark.parametrize(("dtype", "name"), [(mx.float16, "F16"), (mx.float32, "F32"), (mx.bfloat16, "BF16")])
def test_values_are_cast_as_a_whole_tensor_would_be(tmp_path: Path, dtype: mx.Dtype, name: str) -> None:
    wide = mx.random.normal(SHAPE, key=mx.random.key(2))
    written, error = convert(tmp_path, make_parameter(NAME, source(tmp_path, whole=wide), None, name))
    assert equal(written[NAME], wide.astype(dtype))
    assert (error == 0) == (dtype == mx.float32)


@pytest.mark.parametrize(("dtype", "array_dtype"), [("BF16", mx.bfloat16), ("F16", mx.float16), ("F32", mx.float32)])
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
def test_one_bad_value_among_many_is_found(dtype: str, array_dtype: mx.Dtype, bad: float) -> None:
    values = np.linspace(-3e4, 3e4, 1000, dtype=np.float32).reshape(10, 100)
    assert is_finite(mx.array(values).astype(array_dtype), dtype)
    values[7, 31] = bad
    assert not is_finite(mx.array(values).astype(array_dtype), dtype)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_every_16_bit_pattern_is_judged_as_numpy_judges_it(dtype: str) -> None:
    bits = np.arange(65_536, dtype=np.uint16)
    exponent = INFINITY[dtype]
    expected = (bits & exponent) != exponent
    kind = mx.bfloat16 if dtype == "BF16" else mx.float16
    found = [is_finite(mx.array(bits[i : i + 1]).view(kind), dtype) for i in range(0, 65_536, 97)]
    assert found == expected[::97].tolist()


@pytest.mark.parametrize("bad", [math.nan, -math.inf])
def test_the_tensor_with_a_bad_value_is_named(tmp_path: Path, weight: mx.array, bad: float) -> None:
    weight[2, 69, 127] = bad
    parameter = make_parameter(NAME, source(tmp_path, whole=weight), FORMATS[0], "BF16")
    with pytest.raises(WeightsError, match=rf"{NAME} in source.safetensors holds NaN or Inf"):
        convert(tmp_path, parameter)
    assert [file.name for file in tmp_path.iterdir()] == ["source.safetensors"]


def test_a_value_too_large_for_float16_is_told_from_a_damaged_one(tmp_path: Path, weight: mx.array) -> None:
    weight[0, 0, 0] = 1e20
    parameter = make_parameter(NAME, source(tmp_path, whole=weight), None, "F16")
    with pytest.raises(WeightsError, match="beyond the range of F16: convert it with --dtype bfloat16"):
        convert(tmp_path, parameter)


def test_a_file_that_shrinks_while_it_is_read_is_named(tmp_path: Path, weight: mx.array) -> None:
    parameter = make_parameter(NAME, source(tmp_path, whole=weight), FORMATS[0], "BF16")
    with (tmp_path / "source.safetensors").open("r+b") as stream:
        stream.truncate(20_000)
    with pytest.raises(WeightsError, match="ends inside whole: download it again"):
        convert(tmp_path, parameter)
