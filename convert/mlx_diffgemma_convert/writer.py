"""A shard being written: the header first, then bytes at offsets, under a temporary name until it is whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mlx_diffgemma.errors import ConvertError
from mlx_diffgemma_convert.shards import Shard

UNFINISHED = ".unfinished"
"""Suffix of a file that is being written."""

FULL = (errno.ENOSPC, errno.EDQUOT)


class ShardFile:
    """An open shard; `write` may be called from several threads, for different bytes."""

    def __init__(self, descriptor: int, path: Path, shard: Shard) -> None:
        self._descriptor = descriptor
        self._path = path
        self._offsets = shard.offsets

    def write(self, tensor: str, start: int, data: memoryview) -> None:
        """Write `data` from byte `start` of `tensor` on. Raises ConvertError."""
        with writing(self._path):
            _write_all(self._descriptor, data.cast("B"), self._offsets[tensor] + start)


@contextmanager
def shard_file(folder: Path, shard: Shard) -> Generator[ShardFile]:
    """Create a shard; it gets its name when the block ends well and is durable by then, and is removed otherwise.

    Raises ConvertError where the disk is full or refuses.
    """
    unfinished = folder / (shard.name + UNFINISHED)
    with writing(unfinished):
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        with writing(unfinished):
            _write_all(descriptor, memoryview(shard.header), 0)
        yield ShardFile(descriptor, unfinished, shard)
        with writing(unfinished):
            os.fsync(descriptor)
            unfinished.rename(folder / shard.name)
    finally:
        os.close(descriptor)
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Replace a small file: after a crash there is the old text or the new one. Raises ConvertError."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, contents: bytes) -> None:
    """Replace a file: after a crash there are the old contents or the new ones. Raises ConvertError."""
    unfinished = path.with_name(path.name + UNFINISHED)
    with writing(path):
        with unfinished.open("wb") as stream:
            stream.write(contents)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(path)


@contextmanager
def writing(path: Path) -> Generator[None]:
    """Turn what the system says about a write that failed into one ConvertError."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise ConvertError(
                f"the disk is full while writing {path}: free some space and run the same command again, it goes on "
                "where it stopped"
            ) from None
        raise ConvertError(f"{path} cannot be written: {error.strerror or error}") from None


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)
