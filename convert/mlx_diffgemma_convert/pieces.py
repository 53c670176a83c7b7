"""One piece of one parameter: read some rows, check them, pack them, write them where they belong, measure the error.

    rows of the source -> values -> (finite?) -> packed rows -> bytes at their offsets
                                                           \\-> sampled rows unpacked again -> error

Packing works row by row, so pieces give the same bits as the whole tensor would. What is read goes through ordinary
reads, not a memory map: mapped pages would count as resident memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import mlx.core as mx
import numpy as np

from mlx_diffgemma.errors import WeightsError
from mlx_diffgemma.layout import Source
from mlx_diffgemma.quantization import Quantization
from mlx_diffgemma.safetensors import ITEM_BYTES, TensorInfo
from mlx_diffgemma_convert.plan import Parameter
from mlx_diffgemma_convert.writer import ShardFile

PIECE_BYTES = 16 << 20
"""Source bytes per piece: enough to keep a device busy, little enough that the allocator recycles the memory (above 32
MiB each piece would be mapped anew)."""

ERROR_STRIDE = 61
"""The error is measured on every 61st row: unpacking all of them would double the time. A prime, so that the rows
sampled from one expert are not those sampled from the next."""

MLX_DTYPES = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32}
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
        return self.count * self.parameter.row_length * ITEM_BYTES[self.parameter.source.dtype]


@dataclass(frozen=True, kw_only=True)
class Written:
    """A piece that is done; squared error and squared source are sums over its sampled rows."""

    piece: Piece
    squared_error: float
    squared_source: float


def pieces(parameter: Parameter) -> Iterator[Piece]:
    """Cut a parameter into pieces of about PIECE_BYTES."""
    rows = max(1, PIECE_BYTES // (parameter.row_length * ITEM_BYTES[parameter.source.dtype]))
    for first in range(0, parameter.rows, rows):
        yield Piece(parameter=parameter, first=first, count=min(rows, parameter.rows - first))


def convert_piece(piece: Piece, file: ShardFile) -> Written:
    """Convert one piece and write it. Everything lazy is made and evaluated within the calling thread.

    Raises WeightsError for a source that ends early or cannot be read, and for NaN or Inf; ConvertError for a write
    that fails.
    """
    parameter = piece.parameter
    source = read_rows(parameter.source, piece.first, piece.count)  # [rows, row_length]
    values = source.astype(MLX_DTYPES[parameter.dtype])
    if not is_finite(values, parameter.dtype):
        raise WeightsError(_not_finite(piece, source))
    packed = pack(values, parameter.quantization)
    for entry, array in zip(parameter.entries, packed, strict=True):
        file.write(entry.name, piece.first * (entry.nbytes // parameter.rows), np.asarray(array.view(mx.uint8)).data)
    squared_error, squared_source = _errors(piece, source, packed)
    return Written(piece=piece, squared_error=squared_error, squared_source=squared_source)


def pack(values: mx.array, quantization: Quantization | None) -> tuple[mx.array, ...]:
    """[rows, row_length] -> (values,), or (packed, scales) or (packed, scales, biases), evaluated."""
    if quantization is None:
        packed: tuple[mx.array, ...] = (values,)
    else:
        packed = tuple(
            mx.quantize(values, group_size=quantization.group_size, bits=quantization.bits, mode=quantization.mode)
        )
    mx.eval(packed)  # pyright: ignore[reportUnknownMemberType]
    return packed


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


def read_rows(source: Source, first: int, count: int) -> mx.array:
    """Rows `first` to `first + count` of a source, wherever its parts lie -> [count, row_length] in its own dtype."""
    row_length = source.shape[-1]
    row_bytes = row_length * ITEM_BYTES[source.dtype]
    begin, end = first * row_bytes, (first + count) * row_bytes
    buffer = np.empty(end - begin, np.uint8)
    position = 0
    for part in source.parts:
        low, high = max(begin, position), min(end, position + part.nbytes)
        if low < high:
            _read_exactly(part, low - position, buffer.data[low - begin : high - begin])
        position += part.nbytes
    bits = buffer.view(np.uint32 if source.dtype == "F32" else np.uint16)
    return mx.array(bits.reshape(count, row_length)).view(MLX_DTYPES[source.dtype])


def _read_exactly(part: TensorInfo, start: int, into: memoryview) -> None:
    try:
        with part.file.open("rb", buffering=0) as stream:
            stream.seek(part.offset + start)
            filled = 0
            while filled < len(into):
                read = stream.readinto(into[filled:])
                if not read:
                    raise WeightsError(f"{part.file} ends inside {part.name}: download it again")
                filled += read
    except OSError as error:
        raise WeightsError(f"{part.file} cannot be read at {part.name}: {error.strerror}") from None


def _errors(piece: Piece, source: mx.array, packed: tuple[mx.array, ...]) -> tuple[float, float]:
    """(squared error, squared source) summed over the piece's rows whose number is a multiple of ERROR_STRIDE."""
    rows = slice(-piece.first % ERROR_STRIDE, None, ERROR_STRIDE)
    wanted = source[rows].astype(mx.float32)
    if wanted.size == 0:
        return 0.0, 0.0
    sampled = [array[rows] for array in packed]
    quantization = piece.parameter.quantization
    if quantization is None:
        result = sampled[0]
    else:
        result = mx.dequantize(
            sampled[0],
            scales=sampled[1],
            biases=sampled[2] if quantization.has_biases else None,
            group_size=quantization.group_size,
            bits=quantization.bits,
            mode=quantization.mode,
        )
    error = mx.sum(mx.square(result.astype(mx.float32) - wanted))
    total = mx.sum(mx.square(wanted))
    return cast("float", error.item()), cast("float", total.item())


def _not_finite(piece: Piece, source: mx.array) -> str:
    name, dtype = piece.parameter.name, piece.parameter.dtype
    if is_finite(source, piece.parameter.source.dtype):
        return f"{name} holds values beyond the range of {dtype}: convert it with --dtype bfloat16"
    files = ", ".join(sorted({part.file.name for part in piece.parameter.source.parts}))
    return f"{name} in {files} holds NaN or Inf: download it again, or take an earlier state of the training"
