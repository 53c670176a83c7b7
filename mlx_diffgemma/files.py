"""Reading and writing files so that an error names the file, and so that no file is ever half written."""

from __future__ import annotations

import json
import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

from mlx_diffgemma.errors import ConfigError, DataError, ModelNotFoundError


class JsonLine(NamedTuple):
    """One line of a file of JSON lines."""

    number: int
    """counted from 1, blank lines included"""
    where: str
    """file and line, for messages"""
    value: object


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Yield the name of a temporary file; it becomes `path` when the block succeeds, and is deleted when it fails.

    The temporary file is in the folder of `path` and has its suffix, because some libraries choose a format by suffix.
    It is on the disk before it is renamed. Raises OSError.
    """
    temporary = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Parse a JSON object. Raises ModelNotFoundError where the file is absent, ConfigError where it is broken."""
    try:
        parsed = json.loads(path.read_text(encoding="utf-8-sig"))
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
    """Parse a file with one JSON value per line; blank lines are skipped.

    Only a newline ends a line, and a byte order mark is ignored. Raises DataError that names the file and the line.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        # `error.object` holds the bytes that were decoded: the file without its byte order mark.
        number = error.object[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, line {number}: not UTF-8 text ({error.reason})") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            where = f"{path}, line {number}"
            try:
                value: object = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{where}: not valid JSON: {error}") from None
            yield JsonLine(number, where, value)
