"""The layout of the output: names, shapes and byte offsets of every tensor, computed before a byte is written.

Because the offsets are known, a tensor can be written in chunks, in any order and by several threads, and a resumed
conversion gives the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from mlx_diffgemma.checkpoint.safetensors import ITEM_BYTES

ALIGNMENT = 8
"""The first tensor of a file starts at a multiple of this many bytes."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tensor of the output; `dtype` has the name that safetensors uses."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """The number of bytes in the file."""
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One safetensors file: its header, and the offset of each tensor, counted from the start of the file."""

    name: str
    entries: tuple[Entry, ...]
    header: bytes
    offsets: dict[str, int]
    size: int


def group_into_shards(entries: Iterable[Sequence[Entry]], max_bytes: int) -> list[list[Sequence[Entry]]]:
    """Fill shards in order with at most `max_bytes` of tensors each. The entries of one parameter stay together.

    A parameter that is larger than `max_bytes` gets a shard of its own.
    """
    shards: list[list[Sequence[Entry]]] = []
    filled = max_bytes
    for together in entries:
        size = sum(entry.nbytes for entry in together)
        if filled + size > max_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(together)
        filled += size
    return shards


def lay_out(shards: Iterable[Iterable[Sequence[Entry]]]) -> list[Shard]:
    """Name the shards and compute the offset of every tensor."""
    flat = [[entry for together in groups for entry in together] for groups in shards]
    return [_shard(f"model-{i:05}-of-{len(flat):05}.safetensors", entries) for i, entries in enumerate(flat, 1)]


def index_contents(shards: Iterable[Shard]) -> dict[str, Any]:
    """Return the contents of model.safetensors.index.json."""
    placed = {entry.name: (shard.name, entry.nbytes) for shard in shards for entry in shard.entries}
    total = sum(size for _, size in placed.values())
    return {"metadata": {"total_size": total}, "weight_map": {name: placed[name][0] for name in sorted(placed)}}


def _shard(name: str, entries: Iterable[Entry]) -> Shard:
    # The widest values come first, so that every tensor starts at a multiple of its own width.
    ordered = sorted(entries, key=lambda entry: -ITEM_BYTES[entry.dtype])
    table: dict[str, Any] = {"__metadata__": {"format": "mlx"}}
    position = 0
    for entry in ordered:
        span = [position, position + entry.nbytes]
        table[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": span}
        position += entry.nbytes
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    start = 8 + len(text)
    return Shard(
        name=name,
        entries=tuple(ordered),
        header=len(text).to_bytes(8, "little") + text,
        offsets={entry.name: start + table[entry.name]["data_offsets"][0] for entry in ordered},
        size=start + position,
    )
