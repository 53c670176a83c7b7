"""For the converter's tests: tiny sources, a conversion run to its end, tensors by name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_diffgemma_convert.conversion import ConversionOptions, convert
from mlx_diffgemma_convert.output import WriteEvent, WriteFinished
from mlx_diffgemma_convert.recipe import Recipe, make_quantization, make_recipe
from mlx_diffgemma_convert.summary import ClassSummary
from random_checkpoint import write_checkpoint

from mlx_diffgemma.files import read_json

MIXED_4 = make_recipe("mixed", make_quantization("affine", 4, None), {})
SMALL_SHARDS = 60_000
"""A shard size in bytes that gives about eight shards for a tiny checkpoint."""
EXPERTS = re.compile(r"(.+\.experts)\.(gate_up|down)_proj")


def equal(left: mx.array, right: mx.array) -> bool:
    """Return whether two arrays have equal dtypes, shapes and bits."""
    return (
        left.dtype == right.dtype
        and left.shape == right.shape
        and bool(mx.array_equal(left.view(mx.uint8), right.view(mx.uint8)))
    )


def options(source: Path, destination: Path, recipe: Recipe = MIXED_4) -> ConversionOptions:
    """Return the options of one conversion; use dataclasses.replace for the others."""
    return ConversionOptions(source=source, destination=destination, recipe=recipe, name=source.name)


def run(wanted: ConversionOptions) -> dict[str, ClassSummary]:
    """Run a conversion to its end; return the summary of each class."""
    return finish(convert(wanted))


def finish(events: Iterable[WriteEvent]) -> dict[str, ClassSummary]:
    """Run the work to its end; return the summary of each class."""
    *_, last = events
    assert isinstance(last, WriteFinished)
    return {summary.tensor_class: summary for summary in last.summaries}


def tiny_source(folder: Path, *, vision: bool = False, layers: int = 3) -> Path:
    """Write a random checkpoint in Google's layout and return its folder."""
    write_checkpoint(folder, vision=vision, layers=layers)
    return folder


def tensors(folder: Path) -> dict[str, mx.array]:
    """Load every tensor of a folder."""
    return {name: array for file in folder.glob("*.safetensors") for name, array in mx.load(str(file)).items()}


def rewrite(folder: Path, contents: Mapping[str, mx.array]) -> None:
    """Replace a folder's weights by one file without an index."""
    for file in [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]:
        file.unlink()
    mx.save_safetensors(str(folder / "model.safetensors"), dict(contents), metadata={"format": "pt"})


def edit_json(path: Path, changes: Mapping[str, Any]) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps({**read_json(path), **changes}))


def files(folder: Path) -> dict[str, bytes]:
    """Return name -> bytes of every file in a folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def program(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the converter in a process of its own, offline, with lines of 120 columns."""
    return python("-m", "mlx_diffgemma.convert", *map(str, arguments))


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this interpreter in a process of its own."""
    environment = {**os.environ, "COLUMNS": "120", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=environment, check=False)
