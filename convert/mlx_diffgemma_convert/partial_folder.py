"""DST.partial: the folder that a result is written to, with a record of the finished shards, until it becomes DST.

reserve(DST)           -> DST.partial/, locked, with progress.json; an interrupted run with equal options is resumed
record_shard(shard)    -> one more shard that a later run need not write
publish(DST)           -> DST.partial becomes DST; a folder that it replaces is deleted last
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlx_diffgemma.errors import ConfigError, ConvertError, ModelNotFoundError
from mlx_diffgemma.files import read_json, unfinished_files
from mlx_diffgemma.model.config import MODEL_TYPE
from mlx_diffgemma_convert.shards import Shard
from mlx_diffgemma_convert.summary import readable_size
from mlx_diffgemma_convert.writer import write_errors, write_text

PROGRESS = "progress.json"
"""The record of a run: its fingerprint, and the finished shards with the relative error of each parameter."""


@dataclass(kw_only=True)
class PartialFolder:
    """A reserved DST.partial. `finished`: name of a finished shard -> relative error of each of its parameters."""

    path: Path
    fingerprint: str
    finished: dict[str, dict[str, float]] = field(default_factory=dict[str, "dict[str, float]"])
    started_over: bool = False


def check_destination(source: Path, destination: Path, *, overwrite: bool) -> None:
    """Refuse a destination that must not be replaced. Raises ConvertError that says why."""
    with write_errors(destination):
        _check_destination(source.resolve(), destination.resolve(), overwrite=overwrite)


def _check_destination(source: Path, destination: Path, *, overwrite: bool) -> None:
    if source.is_relative_to(destination) or source == _partial(destination):
        raise ConvertError(f"{destination} holds the source {source}: choose another folder for the result")
    replaced = _replaced(destination)
    if replaced.exists() and not _is_model(replaced):
        raise ConvertError(f"{replaced} is in the way: move it elsewhere")
    if (destination / PROGRESS).exists() and _is_model(destination):
        # The last run was killed after it renamed the folder and before it tidied up.
        _tidy(destination)
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    if not _is_model(destination):
        raise ConvertError(f"{destination} exists and is not a DiffusionGemma folder: choose another name")
    if not overwrite:
        raise ConvertError(f"{destination} exists already: add --overwrite to replace it, or choose another name")


@contextmanager
def reserve(destination: Path, fingerprint: str, shards: Mapping[str, Shard]) -> Generator[PartialFolder]:
    """Create or resume DST.partial, and lock it against a second conversion until the block ends.

    The files of a run with another fingerprint are deleted, and `started_over` is then true. Raises ConvertError.
    """
    path = _partial(destination)
    with write_errors(path):
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY)
    try:
        with write_errors(path):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConvertError(f"another conversion is writing {path}: wait for it to end") from None
        yield _resume(path, fingerprint, shards)
    finally:
        os.close(descriptor)


def record_shard(folder: PartialFolder, shard: Shard, errors: dict[str, float]) -> None:
    """Record that `shard` is finished, and the errors of its parameters. Raises ConvertError."""
    folder.finished[shard.name] = errors
    _save(folder)


def check_space(folder: PartialFolder, shards: Mapping[str, Shard], other_bytes: int) -> None:
    """Check that the disk can hold the result. Raises ConvertError that names the bytes needed and the bytes free."""
    needed = other_bytes + sum(shard.size for name, shard in shards.items() if name not in folder.finished)
    free = shutil.disk_usage(folder.path).free
    if free < needed:
        raise ConvertError(
            f"{folder.path.parent} has {readable_size(free)} free, and the conversion needs {readable_size(needed)}: "
            "free some space, choose another disk or, if the result is quantized, fewer bits"
        )


def publish(folder: PartialFolder, destination: Path) -> None:
    """Rename DST.partial to DST; an old DST is deleted once the new one has its name. Raises ConvertError."""
    replaced = _replaced(destination)
    with write_errors(destination):
        if replaced.exists():
            shutil.rmtree(replaced)
        if destination.exists():
            destination.rename(replaced)
        folder.path.rename(destination)
    _tidy(destination)


def _tidy(destination: Path) -> None:
    """Delete what only a running conversion needs: the replaced folder, then the record."""
    replaced = _replaced(destination)
    with write_errors(destination):
        if replaced.exists():
            shutil.rmtree(replaced)
        (destination / PROGRESS).unlink()


def _resume(path: Path, fingerprint: str, shards: Mapping[str, Shard]) -> PartialFolder:
    """Keep the finished shards of an earlier run with the same fingerprint, and delete everything else."""
    saved = _saved(path)
    folder = PartialFolder(path=path, fingerprint=fingerprint, started_over=saved.fingerprint not in ("", fingerprint))
    with write_errors(path):
        for file in path.iterdir() if folder.started_over else unfinished_files(path):
            if not file.is_file():
                raise ConvertError(f"{file} was not made by a conversion: move it elsewhere")
            file.unlink()
    for name, errors in saved.finished.items():
        file = path / name
        if name in shards and file.exists() and file.stat().st_size == shards[name].size:
            folder.finished[name] = errors
    _save(folder)
    return folder


def _saved(path: Path) -> PartialFolder:
    """Read progress.json. Raises ConvertError for a folder without a valid record.

    A new folder has an empty record, and so has that of a run that was killed while it wrote its first one.
    """
    if set(path.iterdir()) == set(unfinished_files(path)):
        return PartialFolder(path=path, fingerprint="")
    try:
        raw = read_json(path / PROGRESS)
        return PartialFolder(path=path, fingerprint=str(raw["fingerprint"]), finished=dict(raw["done"]))
    except (ModelNotFoundError, ConfigError, KeyError, TypeError, ValueError):
        raise ConvertError(f"{path} is in the way, it was not left by a conversion: move it elsewhere") from None


def _save(folder: PartialFolder) -> None:
    contents = {"fingerprint": folder.fingerprint, "done": folder.finished}
    write_text(folder.path / PROGRESS, json.dumps(contents, indent=1) + "\n")


def _partial(destination: Path) -> Path:
    return destination.with_name(destination.name + ".partial")


def _replaced(destination: Path) -> Path:
    return destination.with_name(destination.name + ".replaced")


def _is_model(folder: Path) -> bool:
    try:
        return read_json(folder / "config.json").get("model_type") == MODEL_TYPE
    except (ModelNotFoundError, ConfigError):
        return False
