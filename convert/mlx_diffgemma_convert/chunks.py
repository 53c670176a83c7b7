"""One piece of one parameter: read some rows, check them, pack them, write them where they belong, measure the error.

    rows of the source -> values -> (finite?) -> packed rows -> bytes at their offsets
                                                           \\-> sampled rows unpacked again -> error

Packing works row by row, so pieces give the same bits as the whole tensor would.
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
from mlx_diffgemma_convert.values import MLX_DTYPES, Packed, read_stored, read_values, unpack
from mlx_diffgemma_convert.writer import ShardFile

PIECE_BYTES = 16 << 20
"""Bytes of values per piece: enough to keep a device busy, little enough that the allocator recycles the memory (above
32 MiB each piece would be mapped anew)."""

ERROR_STRIDE = 61
"""The error is measured on every 61st row: unpacking all of them would double the time. A prime, so that the rows
sampled from one expert are not those sampled from the next."""

BITS = {"BF16": (mx.int16, mx.uint16), "F16": (mx.int16, mx.uint16), "F32": (mx.int32, mx.uint32)}
INFINITY = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F80_0000}
"""The bit pattern of +Inf; NaN patterns lie above it, and the same with the sign bit set."""


@dataclass(frozen=True, kw_only=True)
class Piece:
    """`count` rows of a parameter from row `first` on, counted over all leading axes."""

    parameter: Parameter
    first: int
    count: int

    @property
    def source_bytes(self) -> int:
        """Bytes to read."""
        return self.parameter.source_bytes * self.count // self.parameter.rows


@dataclass(frozen=True, kw_only=True)
class Written:
    """A piece that is done; squared error and squared source are sums over its sampled rows."""

    piece: Piece
    squared_error: float
    squared_source: float


def error_note(exact: str) -> str:
    """What the errors of a result are, in words; `exact` is what they are errors against."""
    return (
        f"Relative error: norm of the difference to {exact} over its norm, of the worst tensor of the class, measured "
        f"on one row in {ERROR_STRIDE} of every tensor."
    )


def pieces(parameter: Parameter) -> Iterator[Piece]:
    """Cut a parameter into pieces of about PIECE_BYTES of values."""
    rows = max(1, PIECE_BYTES // (parameter.row_length * ITEM_BYTES[parameter.source.dtype]))
    for first in range(0, parameter.rows, rows):
        yield Piece(parameter=parameter, first=first, count=min(rows, parameter.rows - first))


def convert_piece(piece: Piece, file: ShardFile) -> Written:
    """Convert one piece and write it. Everything lazy is made and evaluated within the calling thread.

    Raises WeightsError for a source that ends early or cannot be read, and for NaN or Inf; ConvertError for a write
    that fails.
    """
    parameter, source = piece.parameter, piece.parameter.source
    if isinstance(source, Packed) and source.quantization == parameter.quantization:
        # Packing what was unpacked need not give the same bits again.
        _write(piece, read_stored(source, piece.first, piece.count), file)
        return Written(piece=piece, squared_error=0.0, squared_source=0.0)
    values = read_values(source, piece.first, piece.count)  # [rows, row_length]
    rounded = values.astype(MLX_DTYPES[parameter.dtype])
    if not is_finite(rounded, parameter.dtype):
        raise WeightsError(_not_finite(piece, values))
    packed = pack(rounded, parameter)
    _write(piece, packed, file)
    squared_error, squared_source = _errors(piece, values, packed)
    return Written(piece=piece, squared_error=squared_error, squared_source=squared_source)


def pack(values: mx.array, parameter: Parameter) -> tuple[mx.array, ...]:
    """[rows, row_length] -> (values,), or (packed, scales) or (packed, scales, biases), in the entries' dtypes."""
    quantization = parameter.quantization
    if quantization is None:
        return (values,)
    packed = mx.quantize(values, group_size=quantization.group_size, bits=quantization.bits, mode=quantization.mode)
    return tuple(array.astype(MLX_DTYPES[entry.dtype]) for array, entry in zip(packed, parameter.entries, strict=True))


def _write(piece: Piece, arrays: tuple[mx.array, ...], file: ShardFile) -> None:
    mx.eval(arrays)  # pyright: ignore[reportUnknownMemberType]
    for entry, array in zip(piece.parameter.entries, arrays, strict=True):
        start = piece.first * (entry.nbytes // piece.parameter.rows)
        file.write(entry.name, start, np.asarray(array.view(mx.uint8)).data)


def is_finite(values: mx.array, dtype: str) -> bool:
    """Whether no value is NaN or Inf.

    Read as integers, such values are the largest: the positive ones among the signed, the negative ones among the
    unsigned readings of the bits. Two maxima need no temporary and take a tenth of the time of mx.isfinite.
    """
    signed, unsigned = BITS[dtype]
    sign_bit = 1 << (8 * signed.size - 1)
    positive = cast("int", mx.max(values.view(signed)).item())
    negative = cast("int", mx.max(values.view(unsigned)).item())
    return positive < INFINITY[dtype] and negative < INFINITY[dtype] + sign_bit


def _errors(piece: Piece, values: mx.array, packed: tuple[mx.array, ...]) -> tuple[float, float]:
    """(squared error, squared source) summed over the piece's rows whose number is a multiple of ERROR_STRIDE."""
    rows = slice(-piece.first % ERROR_STRIDE, None, ERROR_STRIDE)
    wanted = values[rows].astype(mx.float32)
    if wanted.size == 0:
        return 0.0, 0.0
    sampled = [array[rows] for array in packed]
    quantization = piece.parameter.quantization
    result = sampled[0] if quantization is None else unpack(sampled, quantization)
    error = mx.sum(mx.square(result.astype(mx.float32) - wanted))
    total = mx.sum(mx.square(wanted))
    return cast("float", error.item()), cast("float", total.item())


def _not_finite(piece: Piece, values: mx.array) -> str:
    name, dtype = piece.parameter.name, piece.parameter.dtype
    if is_finite(values, piece.parameter.source.dtype):
        return f"{name} holds values beyond the range of {dtype}: convert it with --dtype bfloat16"
    files = ", ".join(sorted({part.file.name for part in piece.parameter.source.parts}))
    return f"{name} in {files} holds NaN or Inf: download it again, or take an earlier state of the training"
