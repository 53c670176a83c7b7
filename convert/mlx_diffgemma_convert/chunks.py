"""Convert one chunk of one parameter: read some rows, check them, quantize them, write them, measure the error.

    rows of the source -> values -> (finite?) -> quantized rows -> bytes at their offsets
                                                              \\-> sampled rows, dequantized -> error

Quantization works row by row, so the chunks of a tensor give the same bits as the whole tensor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import numpy as np

from mlx_diffgemma.checkpoint.safetensors import ITEM_BYTES
from mlx_diffgemma.errors import WeightsError
from mlx_diffgemma_convert.plan import Parameter
from mlx_diffgemma_convert.values import MLX_DTYPES, QuantizedValues, dequantize, read_stored, read_values
from mlx_diffgemma_convert.writer import ShardFile

CHUNK_BYTES = 16 << 20
"""Bytes of values per chunk: enough to keep a device busy, and few enough that the allocator reuses the memory (it maps
blocks above 32 MiB anew each time)."""

ERROR_STRIDE = 61
"""The error is measured on every 61st row, because dequantizing all rows would double the time. The stride is a prime,
so that different rows are sampled in each expert."""

BIT_VIEWS = {"BF16": (mx.int16, mx.uint16), "F16": (mx.int16, mx.uint16), "F32": (mx.int32, mx.uint32)}
"""Dtype -> the signed and the unsigned integer types that show its bits."""
INFINITY = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F80_0000}
"""Dtype -> the bits of +Inf. The bits of NaN are larger; -Inf and negative NaN have the sign bit in addition."""


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """`count` rows of a parameter, starting at row `first`; rows are counted over all leading axes."""

    parameter: Parameter
    first: int
    count: int

    @property
    def source_bytes(self) -> int:
        """Bytes to read."""
        return self.parameter.source_bytes * self.count // self.parameter.rows


@dataclass(frozen=True, kw_only=True)
class ChunkResult:
    """A chunk that was written, with two sums over its sampled rows: squared errors and squared source values."""

    chunk: Chunk
    squared_error: float
    squared_source: float


def error_note(reference: str) -> str:
    """Say how the errors of a result are measured; `reference` names what the result is compared with."""
    return (
        f"Relative error: norm of the difference to {reference} over its norm, of the worst tensor of the class, "
        f"measured on one row in {ERROR_STRIDE} of every tensor."
    )


def split_into_chunks(parameter: Parameter) -> Iterator[Chunk]:
    """Split a parameter into chunks of about CHUNK_BYTES of values, and of one row at least."""
    rows = max(1, CHUNK_BYTES // (parameter.row_length * ITEM_BYTES[parameter.source.dtype]))
    for first in range(0, parameter.rows, rows):
        yield Chunk(parameter=parameter, first=first, count=min(rows, parameter.rows - first))


def convert_chunk(chunk: Chunk, file: ShardFile) -> ChunkResult:
    """Convert one chunk and write it. Every lazy array is created and evaluated in the calling thread.

    Raises WeightsError for a source that ends early, cannot be read, or holds NaN or Inf; ConvertError for a write that
    fails.
    """
    parameter, source = chunk.parameter, chunk.parameter.source
    if isinstance(source, QuantizedValues) and source.quantization == parameter.quantization:
        # Copied: quantizing dequantized values need not give the same bits.
        _write(chunk, read_stored(source, chunk.first, chunk.count), file)
        return ChunkResult(chunk=chunk, squared_error=0.0, squared_source=0.0)
    values = read_values(source, chunk.first, chunk.count)  # [rows, row_length]
    rounded = values.astype(MLX_DTYPES[parameter.dtype])
    if not is_finite(rounded, parameter.dtype):
        raise WeightsError(_not_finite(chunk, values))
    stored = quantize(rounded, parameter)
    _write(chunk, stored, file)
    squared_error, squared_source = _errors(chunk, values, stored)
    return ChunkResult(chunk=chunk, squared_error=squared_error, squared_source=squared_source)


def quantize(values: mx.array, parameter: Parameter) -> tuple[mx.array, ...]:
    """Quantize rows as the parameter demands, in the dtypes of its entries.

    [rows, row_length] -> (weight, scales) or (weight, scales, biases), or (values,) where it is not quantized
    """
    quantization = parameter.quantization
    if quantization is None:
        return (values,)
    stored = mx.quantize(values, group_size=quantization.group_size, bits=quantization.bits, mode=quantization.mode)
    return tuple(array.astype(MLX_DTYPES[entry.dtype]) for array, entry in zip(stored, parameter.entries, strict=True))


def is_finite(values: mx.array, dtype: str) -> bool:
    """Return whether no value is NaN or Inf.

    Read as integers, NaN and Inf are the largest values: the positive ones among the signed integers, the negative ones
    among the unsigned integers. Two maxima need no temporary array and take a tenth of the time of mx.isfinite.
    """
    signed, unsigned = BIT_VIEWS[dtype]
    sign_bit = 1 << (8 * signed.size - 1)
    positive = cast("int", mx.max(values.view(signed)).item())
    negative = cast("int", mx.max(values.view(unsigned)).item())
    return positive < INFINITY[dtype] and negative < INFINITY[dtype] + sign_bit


def _write(chunk: Chunk, arrays: tuple[mx.array, ...], file: ShardFile) -> None:
    mx.eval(arrays)  # pyright: ignore[reportUnknownMemberType]
    for entry, array in zip(chunk.parameter.entries, arrays, strict=True):
        start = chunk.first * (entry.nbytes // chunk.parameter.rows)
        file.write(entry.name, start, np.asarray(array.view(mx.uint8)).data)


def _errors(chunk: Chunk, values: mx.array, stored: tuple[mx.array, ...]) -> tuple[float, float]:
    """Sum the squared error and the squared source values over the rows whose number is a multiple of ERROR_STRIDE."""
    rows = slice(-chunk.first % ERROR_STRIDE, None, ERROR_STRIDE)
    wanted = values[rows].astype(mx.float32)
    if wanted.size == 0:
        return 0.0, 0.0
    sampled = [array[rows] for array in stored]
    quantization = chunk.parameter.quantization
    result = sampled[0] if quantization is None else dequantize(sampled, quantization)
    error = mx.sum(mx.square(result.astype(mx.float32) - wanted))
    total = mx.sum(mx.square(wanted))
    return cast("float", error.item()), cast("float", total.item())


def _not_finite(chunk: Chunk, values: mx.array) -> str:
    """Say why the rounded values of a chunk are not finite, and what to do."""
    name, dtype = chunk.parameter.name, chunk.parameter.dtype
    if is_finite(values, chunk.parameter.source.dtype):
        return f"{name} holds values beyond the range of {dtype}: convert it with --dtype bfloat16"
    files = ", ".join(sorted({part.file.name for part in chunk.parameter.source.parts}))
    return (
        f"{name} in {files} holds NaN or Inf: download the checkpoint again, or use one that was saved earlier in the "
        "training"
    )
