"""The headers of safetensors files: which tensors a file holds, and where; no tensor is read.

A file is an 8-byte little-endian header length, a JSON header (name -> dtype, shape, byte range), then the tensors.
The headers are read here, not by a loader, so that a damaged or incomplete download is found before gigabytes are read,
and so that the converter can read a tensor in parts.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_diffgemma.errors import WeightsError
from mlx_diffgemma.files import LFS_POINTER

_MAX_HEADER_BYTES = 100_000_000
ITEM_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip
"""dtype, as a header spells it -> bytes per value."""
FLOATS = ("BF16", "F16", "F32")
"""The dtypes of unpacked weights, and of the scales of packed ones."""


def held_bytes(dtype: str, shape: tuple[int, ...], itemsize: int) -> int:
    """Return the bytes of a tensor once it is loaded; floats are then values of `itemsize` bytes."""
    return math.prod(shape) * (itemsize if dtype in FLOATS else ITEM_BYTES[dtype])


@dataclass(frozen=True, kw_only=True)
class TensorInfo:
    """One tensor in one file; its first byte is at `offset` from the start of the file."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The number of bytes in the file."""
        return self.size * ITEM_BYTES[self.dtype]


def read_header(file: Path) -> list[TensorInfo]:
    """Return the tensors of one file in the order of their bytes. Raises WeightsError for a damaged file."""
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            start = stream.read(len(LFS_POINTER))
            if start == LFS_POINTER:
                raise WeightsError(f"{file} is a pointer of git-lfs, not the file itself: run `git lfs pull` there")
            stream.seek(0)
            length = int.from_bytes(stream.read(8), "little")
            if size < 8 or length > min(size - 8, _MAX_HEADER_BYTES):
                raise WeightsError(f"{file} is truncated or not a safetensors file ({size:,} bytes): download it again")
            raw = json.loads(stream.read(length))
        infos = [_info(file, name, entry, 8 + length) for name, entry in raw.items() if name != "__metadata__"]
    except OSError as error:
        raise WeightsError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{file} has a damaged header ({error}): download it again") from None
    infos.sort(key=lambda info: info.offset)
    end = 8 + length
    for info in infos:
        if info.offset < end:
            raise WeightsError(f"{file} has a damaged header ({info.name} overlaps another tensor): download it again")
        end = info.offset + info.nbytes
    if end > size:
        raise WeightsError(f"{file} is truncated ({size:,} of {end:,} bytes are there): download it again")
    return infos


def _info(file: Path, name: str, entry: dict[str, Any], start: int) -> TensorInfo:
    begin, end = entry["data_offsets"]
    if entry["dtype"] not in ITEM_BYTES:
        raise ValueError(f"{name} has the unknown dtype {entry['dtype']}")
    # JSON's true is an int to Python.
    if not all(type(length) is int and length >= 0 for length in entry["shape"]):
        raise ValueError(f"{name} has the shape {entry['shape']}")
    info = TensorInfo(name=name, file=file, dtype=entry["dtype"], shape=tuple(entry["shape"]), offset=start + begin)
    if end - begin != info.nbytes:
        raise ValueError(f"{name} has {end - begin} bytes for shape {info.shape}")
    return info
