"""What the program `mlx_diffgemma models` prints: a line per model, with its size and whether it fits this machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_diffgemma.cli.console import stdout_line
from mlx_diffgemma.errors import ModelNotFoundError
from mlx_diffgemma.files import home_expanded

if TYPE_CHECKING:
    from mlx_diffgemma.checkpoint.listing import LocalModel

_TOKENS = 4096
"""Prompt and answer of the conversation for which memory is counted."""
_HEADS = ("model", "bits", "size", "needs", "fits")


def list_models(folder: Path, *, as_json: bool) -> None:
    """Print the models of this disk, in a table or as one JSON object per line. Raises ModelNotFoundError."""
    from mlx_diffgemma.checkpoint.listing import local_models
    from mlx_diffgemma.device.memory import usable_bytes

    place = home_expanded(folder, ModelNotFoundError)
    if not place.is_dir():
        raise ModelNotFoundError(f"no such folder: {folder}")
    usable = usable_bytes()
    records = [_record(model, usable) for model in local_models(place)]
    if as_json:
        for record in records:
            stdout_line(json.dumps(record, ensure_ascii=False))
        return
    rows = [_HEADS, *map(_row, records)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADS))]
    for row in rows:
        cells = [
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        sys.stdout.write("  ".join(cells).rstrip() + "\n")
    sys.stdout.write(f"usable memory: {_size(usable)}; needs is for {_TOKENS:,} tokens of prompt and answer\n")


def _record(model: LocalModel, usable: int) -> dict[str, Any]:
    from mlx_diffgemma.model.memory import memory_need

    # MLX holds the weights as the files do, but for the vision tower.
    needs = memory_need(model.config, model.nbytes, itemsize=2, tokens=_TOKENS, usable=usable).total
    return {
        "model": model.name,
        "folder": str(model.folder),
        "bits": model.bits or 16,
        "bytes": model.nbytes,
        "needs_bytes": needs,
        "fits": needs <= usable,
    }


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    return (
        record["model"],
        str(record["bits"]),
        _size(record["bytes"]),
        _size(record["needs_bytes"]),
        "yes" if record["fits"] else "no",
    )


def _size(nbytes: int) -> str:
    """Return a number of bytes in powers of 1000, as disks and the Hub count."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"
