"""The checkpoints of the comparison: one folder for all programs, made if it is missing."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from random_checkpoint import write_checkpoint
from random_packed import write_packed

from mlx_diffgemma.checkpoint.hub import model_folder

MARGIN = 1.25
"""The peak memory of a program as a multiple of its weights."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One checkpoint: the function that makes it (None: it is in the package), its default prefixes and canvas."""

    name: str
    make: Callable[[Path], None] | None
    prefixes: tuple[int, ...]
    canvas: int


SHAPES = {
    shape.name: shape
    for shape in (
        Shape(name="demo", make=None, prefixes=(0, 1024), canvas=32),
        Shape(
            name="mid",
            make=lambda folder: write_checkpoint(folder, layers=8, width="bench", calm=True),
            prefixes=(0, 1024, 8192, 32768),
            canvas=256,
        ),
        Shape(
            name="wide",
            make=lambda folder: write_checkpoint(folder, layers=2, width="full", calm=True),
            prefixes=(0, 1024),
            canvas=256,
        ),
        Shape(
            name="full",
            make=lambda folder: write_packed(folder, layers=30, width="full", bits=4),
            prefixes=(0, 1024, 8192, 32768),
            canvas=256,
        ),
    )
}
"""demo: the model in the package. mid: the release's proportions, for a CPU. wide: a sliding and a full layer of the
release with its vocabulary. full: the whole release, in 4 bits."""


def folder_of(shape: Shape, scratch: Path) -> Path:
    """Return the folder of a checkpoint; a missing one is made under another name and renamed when it is complete."""
    if shape.make is None:
        return model_folder(shape.name)
    folder = scratch / shape.name
    if not folder.exists():
        unfinished = scratch / f"{shape.name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        shape.make(unfinished)
        unfinished.rename(folder)
    return folder


def weights_bytes(folder: Path, dtype: str) -> int:
    """Return the bytes of a folder's weights in memory; bf16 files take twice their size in float32."""
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    packed = '"quantization"' in (folder / "config.json").read_text()
    return size * 2 if dtype == "float32" and not packed else size
