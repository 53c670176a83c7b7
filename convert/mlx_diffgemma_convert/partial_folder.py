"""The life of a conversion on disk: DST.partial with a record of what is done, and DST once all of it is.

reserve(DST)  -> DST.partial/, locked, with progress.json; a record of the same work is taken up again
record(shard) -> one more shard that a later run need not redo
publish(DST)  -> DST.partial becomes DST; a replaced DST disappears last
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
from mlx_diffgemma.files import read_json
from mlx_diffgemma.model.config import MODEL_TYPE
from mlx_diffgemma_convert.shards import Shard
from mlx_diffgemma_convert.summary import size
from mlx_diffgemma_convert.writer import UNFINISHED, write_text, writing

PROGRESS = "progress.json"


@dataclass(kw_only=True)
class Job:
    """A reserved DST.partial. `done`: finished shard -> relative error of each of its parameters."""

    folder: Path
    fingerprint: str
    done: dict[str, dict[str, float]] = field(default_factory=dict[str, "dict[str, float]"])
    started_over: bool = False


def check_destination(source: Path, destination: Path, *, overwrite: bool) -> None:
    """Refuse what must not be replaced. Raises ConvertError saying why."""
    with writing(destination):
        _check_destination(source.resolve(), destination.resolve(), overwrite=overwrite)


def _check_destination(source: Path, destination: Path, *, overwrite: bool) -> None:
    if source.is_relative_to(destination) or source == _partial(destination):
        raise ConvertError(f"{destination} holds the source {source}: choose another folder for the result")
    replaced = _replaced(destination)
    if replaced.exists() and not _is_model(replaced):
        raise ConvertError(f"{replaced} is in the way: move it elsewhere")
    if (destination / PROGRESS).exists() and _is_model(destination):
        # The last run was cut off between giving the folder its name and tidying up.
        _tidy(destination)
    if not destination.exists() or (destination.is_dir() and not any(destination.iterdir())):
        return
    if not _is_model(destination):
        raise ConvertError(f"{destination} exists and is no DiffusionGemma folder: choose another name")
    if not overwrite:
        raise ConvertError(f"{destination} exists already: add --overwrite to replace it, or choose another name")


@contextmanager
def reserve(destination: Path, fingerprint: str, shards: Mapping[str, Shard]) -> Generator[Job]:
    """Create or take up DST.partial and hold it against a second conversion until the block ends.

    A record of other options or other sources is discarded, and `Job.started_over` says so. Raises ConvertError.
    """
    folder = _partial(destination)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        with writing(folder):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ConvertError(f"another conversion is writing {folder}: wait for it to end") from None
        yield _take_up(folder, fingerprint, shards)
    finally:
        os.close(descriptor)


def record(job: Job, shard: Shard, errors: dict[str, float]) -> None:
    """Note that `shard` is finished. Raises ConvertError."""
    job.done[shard.name] = errors
    _save(job)


def check_space(job: Job, shards: Mapping[str, Shard], other_bytes: int) -> None:
    """Refuse to start what cannot fit. Raises ConvertError naming what is needed and what is free."""
    needed = other_bytes + sum(shard.size for name, shard in shards.items() if name not in job.done)
    free = shutil.disk_usage(job.folder).free
    if free < needed:
        raise ConvertError(
            f"{job.folder.parent} has {size(free)} free, and the conversion needs {size(needed)}: free some space, "
            "choose another disk or, where the result is quantized, fewer bits"
        )


def publish(job: Job, destination: Path) -> None:
    """Give the finished folder its name; a folder of that name goes once the new one is there. Raises ConvertError."""
    replaced = _replaced(destination)
    with writing(destination):
        if replaced.exists():
            shutil.rmtree(replaced)
        if destination.exists():
            destination.rename(replaced)
        job.folder.rename(destination)
    _tidy(destination)


def _tidy(destination: Path) -> None:
    """Remove what only an unfinished conversion needs: the folder that was replaced, then the record."""
    replaced = _replaced(destination)
    with writing(destination):
        if replaced.exists():
            shutil.rmtree(replaced)
        (destination / PROGRESS).unlink()


def _take_up(folder: Path, fingerprint: str, shards: Mapping[str, Shard]) -> Job:
    saved = _saved(folder)
    job = Job(folder=folder, fingerprint=fingerprint, started_over=saved.fingerprint not in ("", fingerprint))
    with writing(folder):
        for file in folder.iterdir() if job.started_over else folder.glob(f"*{UNFINISHED}"):
            if not file.is_file():
                raise ConvertError(f"{file} is in the way, no conversion made it: move it elsewhere")
            file.unlink()
    for name, errors in saved.done.items():
        file = folder / name
        if name in shards and file.exists() and file.stat().st_size == shards[name].size:
            job.done[name] = errors
    _save(job)
    return job


def _saved(folder: Path) -> Job:
    """What progress.json says, or an empty job for a new folder; anything else there is not ours to write into."""
    if not any(folder.iterdir()):
        return Job(folder=folder, fingerprint="")
    try:
        raw = read_json(folder / PROGRESS)
        return Job(folder=folder, fingerprint=str(raw["fingerprint"]), done=dict(raw["done"]))
    except (ModelNotFoundError, ConfigError, KeyError, TypeError, ValueError):
        raise ConvertError(f"{folder} is in the way, it was not left by a conversion: move it elsewhere") from None


def _save(job: Job) -> None:
    contents = {"fingerprint": job.fingerprint, "done": job.done}
    write_text(job.folder / PROGRESS, json.dumps(contents, indent=1) + "\n")


def _partial(destination: Path) -> Path:
    return destination.with_name(destination.name + ".partial")


def _replaced(destination: Path) -> Path:
    return destination.with_name(destination.name + ".replaced")


def _is_model(folder: Path) -> bool:
    try:
        return read_json(folder / "config.json").get("model_type") == MODEL_TYPE
    except (ModelNotFoundError, ConfigError):
        return False
