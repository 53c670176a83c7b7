"""Where the values of a parameter come from, and how to read some of its rows.

TensorSource       rows as the files hold them; FP8 and NVFP4 multiplied by their scales, in float32
QuantizedValues    quantized rows with their scales and biases    -> dequantized, in float32
AdaptedValues      one of these with a low-rank change added      -> in float32

Rows are counted over all leading axes. Files are read with ordinary reads instead of a memory map, because mapped pages
would count as resident memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_diffgemma.checkpoint.names import TensorSource
from mlx_diffgemma.checkpoint.quantization import Quantization
from mlx_diffgemma.checkpoint.safetensors import ITEM_BYTES, TensorInfo
from mlx_diffgemma.checkpoint.scaled import ScaledTensor
from mlx_diffgemma.errors import WeightsError

MLX_DTYPES = {"BF16": mx.bfloat16, "F16": mx.float16, "F32": mx.float32, "U32": mx.uint32, "U8": mx.uint8}
_RAW_DTYPES = {**MLX_DTYPES, "F8_E4M3": mx.uint8}
"""MLX has no type for FP8, and functions that read its bits."""
UNSIGNED = {1: np.uint8, 2: np.uint16, 4: np.uint32}
"""Bytes per value -> the numpy type that carries its bits; numpy has no bfloat16."""


@dataclass(frozen=True, kw_only=True)
class QuantizedValues:
    """A parameter that the files hold quantized; `stored` is (weight, scales) or (weight, scales, biases)."""

    stored: tuple[TensorSource, ...]
    quantization: Quantization

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values once they are dequantized."""
        *leading, row = self.stored[0].shape
        return (*leading, row * 32 // self.quantization.bits)

    @property
    def dtype(self) -> str:
        """The dtype of the values once they are dequantized."""
        return "F32"

    @property
    def parts(self) -> tuple[TensorInfo, ...]:
        """Every tensor that is read."""
        return tuple(part for source in self.stored for part in source.parts)


@dataclass(frozen=True, kw_only=True)
class AdaptedValues:
    """A linear map and the low-rank change to it.

    base [out, in]: in mlx-lm's shapes a [in, rank], b [rank, out], in PEFT's a [1, rank, in], b [1, out, rank]. A stack
    of experts [E, out, in]: a [E, rank, in], b [E, out, rank].
    """

    base: TensorSource | QuantizedValues
    a: TensorSource
    b: TensorSource
    scale: float

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the values."""
        return self.base.shape

    @property
    def dtype(self) -> str:
        """The dtype in which the change is added."""
        return "F32"

    @property
    def parts(self) -> tuple[TensorInfo, ...]:
        """Every tensor of the base; the tensors of the change are small beside them and not counted."""
        return self.base.parts


Values: TypeAlias = TensorSource | QuantizedValues | AdaptedValues


def read_values(values: Values, first: int, count: int) -> mx.array:
    """Read rows `first` to `first + count` -> [count, row_length] in the dtype of `values`. Raises WeightsError."""
    match values:
        case TensorSource():
            return read_rows(values, first, count)
        case QuantizedValues():
            stored = read_stored(values, first, count)
            # Scales and biases in float32: mx.dequantize would round the values to their dtype.
            wide = [each.astype(mx.float32) if mx.issubdtype(each.dtype, mx.floating) else each for each in stored]
            return dequantize(wide, values.quantization).astype(mx.float32)
        case AdaptedValues():
            return read_values(values.base, first, count).astype(mx.float32) + mx.array(_change(values, first, count))


def read_stored(values: QuantizedValues, first: int, count: int) -> tuple[mx.array, ...]:
    """Read rows as they are stored: (weight, scales) or (weight, scales, biases). Raises WeightsError."""
    return tuple(read_rows(source, first, count) for source in values.stored)


def read_rows(source: TensorSource, first: int, count: int) -> mx.array:
    """Read rows of a source, in one or several parts -> [count, row_length] in its own dtype. Raises WeightsError."""
    row_length = source.shape[-1]
    item_bytes = ITEM_BYTES[source.dtype]
    begin, end = first * row_length * item_bytes, (first + count) * row_length * item_bytes
    buffer = np.empty(end - begin, np.uint8)
    position = 0
    for part in source.parts:
        size = part.size * item_bytes
        low, high = max(begin, position), min(end, position + size)
        if low < high:
            _read_part(part, low - position, buffer.data[low - begin : high - begin])
        position += size
    bits = buffer.view(UNSIGNED[item_bytes])
    return mx.array(bits.reshape(count, row_length)).view(MLX_DTYPES[source.dtype])


def dequantize(stored: Sequence[mx.array], quantization: Quantization) -> mx.array:
    """Dequantize rows: (weight, scales) or (weight, scales, biases) -> [rows, row_length]."""
    weight, scales, *biases = stored
    return mx.dequantize(
        weight,
        scales=scales,
        biases=biases[0] if biases else None,
        group_size=quantization.group_size,
        bits=quantization.bits,
        mode=quantization.mode,
    )


def _change(adapted: AdaptedValues, first: int, count: int) -> npt.NDArray[np.float32]:
    """Compute rows of the low-rank change -> [count, in]. In numpy: a GPU may multiply float32 with fewer bits."""
    if len(adapted.a.shape) == 2:
        a = _float32(adapted.a, 0, adapted.a.shape[0])
        b = _float32(adapted.b, 0, adapted.b.shape[0], adapted.scale)
        return b[:, first : first + count].T @ a.T
    outputs, inputs = adapted.shape[-2:]
    rank = adapted.a.shape[1]
    low, high = first // outputs, math.ceil((first + count) / outputs)
    a = _float32(adapted.a, low * rank, (high - low) * rank).reshape(-1, rank, inputs)
    b = _float32(adapted.b, first, count, adapted.scale)
    # The rows of one chunk can begin and end within an expert.
    edges = [expert * outputs - first for expert in range(low + 1, high)]
    return np.concatenate([rows @ a[i] for i, rows in enumerate(np.split(b, edges))])


def _float32(source: TensorSource, first: int, count: int, factor: float = 1.0) -> npt.NDArray[np.float32]:
    return np.asarray(factor * read_rows(source, first, count).astype(mx.float32))


def _read_part(part: TensorInfo, start: int, into: memoryview) -> None:
    """Fill `into` with the bytes of the values of whole rows, from byte `start` on. Raises WeightsError."""
    if not isinstance(part, ScaledTensor):
        _read_exactly(part, start, into)
        return
    row_bytes = part.shape[-1] * ITEM_BYTES[part.dtype]
    rows = _scaled_rows(part, start // row_bytes, len(into) // row_bytes)
    into[:] = np.asarray(rows.view(mx.uint8)).data.cast("B")


def _scaled_rows(part: ScaledTensor, first: int, count: int) -> mx.array:
    """Compute rows of a tensor in FP8 or NVFP4 -> [count, row_length] in float32. Raises WeightsError."""
    height, width = part.block
    rows, columns = part.shape[-2:] if len(part.shape) > 1 else (1, *part.shape)
    row = np.arange(first, first + count)
    # The scales of one matrix come after those of another, and a matrix begins with a new row of scales.
    at = row // rows * math.ceil(rows / height) + row % rows // height
    scales = _read_raw(part.scales, math.ceil(columns / width), at[0], at[-1] + 1 - at[0])[mx.array(at - at[0])]
    stored = _read_raw(part.stored, part.stored.shape[-1], first, count)
    if part.factor is None:
        scales = scales.astype(mx.float32)
        return mx.from_fp8(stored, mx.float32) * mx.repeat(scales, width, axis=1)[:, :columns]
    factor = _read_raw(part.factor, 1, 0, 1).astype(mx.float32)
    # Products of 4-bit values and FP8 scales are exact in every dtype.
    values = mx.dequantize(stored.view(mx.uint32), scales, group_size=width, bits=4, mode="nvfp4").astype(mx.float32)
    return values / factor if part.divides else values * factor


def _read_raw(info: TensorInfo, row_length: int, first: int, count: int) -> mx.array:
    """Read rows of a tensor, which is seen as one of rows of `row_length` values. Raises WeightsError."""
    item_bytes = ITEM_BYTES[info.dtype]
    buffer = np.empty(count * row_length * item_bytes, np.uint8)
    _read_exactly(info, first * row_length * item_bytes, buffer.data)
    bits = buffer.view(UNSIGNED[item_bytes]).reshape(count, row_length)
    return mx.array(bits).view(_RAW_DTYPES[info.dtype])


def _read_exactly(part: TensorInfo, start: int, into: memoryview) -> None:
    """Fill `into` with the bytes of a tensor from byte `start` on. Raises WeightsError for a file that ends early."""
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
