"""Reading and writing files: errors name the file, and no file is ever half written."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from mlx_diffgemma.errors import ConfigError, DataError, DiffGemmaError, ModelNotFoundError

LFS_POINTER = b"version https://git-lfs.github.com/spec/"
"""The first bytes of a file that git-lfs leaves in place of a large one that was not downloaded."""
_TEMPORARY = ".partial-"
"""The beginning of the names of files that are being written."""
_NAME_END = 50
"""How many characters of a file's name are in that of its temporary file."""


class JsonLine(NamedTuple):
    """One line of a file with a JSON value per line."""

    number: int
    """the number of the line, counted from 1; blank lines count"""
    where: str
    """file and line, for messages of errors"""
    value: object


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Yield a temporary path for the block to write; it is renamed to `path` if the block succeeds, else deleted.

    The temporary path is in the folder of `path` and has its suffix, because some libraries choose a format by suffix.
    The file is flushed to the disk before it is renamed. It gets the permissions of a new file: a block that wants
    those of the old file sets them. Raises OSError, which names the file.
    """
    # A name has at most 255 bytes, and `path` may use them all.
    temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{path.name[-_NAME_END:]}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        # A full disk has no name of its own, and the temporary name says nothing to anybody.
        if error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def unfinished_files(folder: Path) -> Iterator[Path]:
    """Yield the temporary files in `folder` that `replacing` left there when its process was killed."""
    yield from folder.glob(f"{_TEMPORARY}*")


def home_expanded(path: str | Path, error: type[DiffGemmaError]) -> Path:
    """Return a path whose ~ is replaced with a home folder. Raises `error` for a user that is unknown or has none."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise error(f"no such folder: {path} (there is no home folder for ~: give the whole path)") from None


def read_json(path: Path) -> dict[str, Any]:
    """Parse a file of a model that holds a JSON object.

    Raises ModelNotFoundError for a file that is missing, ConfigError for one that is damaged or cannot be read.
    """
    try:
        contents = path.read_bytes()
        if contents.startswith(LFS_POINTER):
            raise ConfigError(f"{path} is a pointer of git-lfs, not the file itself: run `git lfs pull` there")
        parsed = json.loads(contents.decode("utf-8-sig"))
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path.parent} has no {path.name}: is it the folder of a model?") from None
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not valid JSON: {error}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    if not isinstance(parsed, dict):
        raise ConfigError(f"{path} must hold a JSON object, not a {type(parsed).__name__}")
    return cast("dict[str, Any]", parsed)


def json_lines(path: Path) -> Iterator[JsonLine]:
    """Parse a file with one JSON value per line, and yield the lines that are not blank.

    Only a newline ends a line; a byte order mark is ignored. Raises DataError that names the file and the line.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return parsed_lines(data, str(path))


def parsed_lines(data: bytes, path: str) -> Iterator[JsonLine]:
    """Parse the content of a file as `json_lines` does; `path` names it in messages. Raises DataError."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # Positions in the error are those in `error.object`: the bytes after the byte order mark.
        number = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {number}: not UTF-8 text ({error.reason})") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            if number == 1 and line.lstrip().startswith("["):
                raise DataError(
                    f"{path} begins as a JSON array: it needs one object per line, as `jq -c '.[]' FILE` writes them"
                )
            try:
                value: object = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not valid JSON: {error}") from None
            yield JsonLine(number, where, value)
