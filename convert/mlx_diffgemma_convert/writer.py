"""Write files: a shard as bytes at offsets under a temporary name, a small file in one go.

No file has its final name before it is complete and on the disk.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from mlx_diffgemma.errors import ConvertError
from mlx_diffgemma.files import replacing
from mlx_diffgemma_convert.shards import Shard

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class ShardFile:
    """An open shard. Several threads may call `write` at once, for different bytes."""

    def __init__(self, descriptor: int, path: Path, shard: Shard) -> None:
        self._descriptor = descriptor
        self._path = path
        self._offsets = shard.offsets

    def write(self, tensor: str, start: int, data: memoryview) -> None:
        """Write `data` into `tensor`, starting at its byte `start`. Raises ConvertError."""
        with write_errors(self._path):
            _write_all(self._descriptor, data.cast("B"), self._offsets[tensor] + start)


@contextmanager
def shard_file(folder: Path, shard: Shard) -> Generator[ShardFile]:
    """Create a shard. If the block succeeds, it is flushed to the disk and named; if the block fails, it is deleted.

    Raises ConvertError for a full disk or any other failure to write.
    """
    path = folder / shard.name
    with write_errors(path), replacing(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            _write_all(descriptor, memoryview(shard.header), 0)
            yield ShardFile(descriptor, path, shard)
        finally:
            os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write or replace a small text file, see write_bytes. Raises ConvertError."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, contents: bytes) -> None:
    """Write or replace a small file: a crash leaves the old contents or the new ones. Raises ConvertError."""
    with write_errors(path), replacing(path) as temporary:
        temporary.write_bytes(contents)


@contextmanager
def write_errors(path: Path) -> Generator[None]:
    """Turn an OSError of a write into a ConvertError that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL_DISK:
            raise ConvertError(
                f"the disk is full while writing {path}: free some space and run the same command again, "
                "it resumes where it stopped"
            ) from None
        raise ConvertError(f"{path} cannot be written: {error.strerror or error}") from None


def _write_all(descriptor: int, data: memoryview, offset: int) -> None:
    written = 0
    while written < len(data):
        written += os.pwrite(descriptor, data[written:], offset + written)
