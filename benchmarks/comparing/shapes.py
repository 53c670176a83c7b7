"""The checkpoints of the comparison: the same folder for every program, made where it is not there yet."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from random_checkpoint import write_checkpoint
from random_packed import write_packed

from mlx_diffgemma.checkpoint.hub import model_folder

MARGIN = 1.25
"""What a program holds at most, as a multiple of its weights: they are small shapes beside their vocabularies."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """One checkpoint: how it is made, None where it lies in the package, and its prefixes and canvas where not said."""

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
release with its vocabulary. full: all of it, in 4 bits."""


def folder_of(shape: Shape, scratch: Path) -> Path:
    """The checkpoint's folder; what is not there is made, under another name until it is whole."""
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
    """Bytes of a folder's weights in memory: bf16 files take twice their size in float32, packed ones their own."""
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    packed = '"quantization"' in (folder / "config.json").read_text()
    return size * 2 if dtype == "float32" and not packed else size
