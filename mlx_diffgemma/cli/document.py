"""A file that is rewritten: read byte for byte, and written only if it still holds what was read."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlx_diffgemma.cli.encoding import codec_of, decoded, encoded
from mlx_diffgemma.cli.replacement import keep_attributes, require_replaceable
from mlx_diffgemma.errors import DocumentError, TemplateError
from mlx_diffgemma.files import replacing

STDIN = "-"


@dataclass(frozen=True, kw_only=True)
class Document:
    """A text and the name of its file; line ends are as in the file, a byte order mark is no part of the text."""

    name: str
    text: str
    data: bytes = b""
    """the content of the file"""
    codec: str = "utf-8"
    """reads and writes it"""


def read_document(name: str, encoding: str | None = None) -> Document:
    """Read a file, or stdin for "-", in UTF-8 or in the encoding. Raises DocumentError if that is not possible."""
    data = sys.stdin.buffer.read() if name == STDIN and sys.stdin is not None else _read(Path(name))
    codec = codec_of(data, encoding)
    shown = "stdin" if name == STDIN else name
    return Document(name=name, text=decoded(data, shown, codec), data=data, codec=codec)


def write_document(document: Document, text: str) -> None:
    """Replace the document's text in its file, in its encoding, completely or not at all; symbolic links are followed.

    Raises DocumentError if the file has changed since it was read, or if something besides its text would be lost, and
    leaves it as it is.
    """
    require_replaceable(document.name)
    content = encoded(text, document.name, document.codec)
    # A link stays a link: the file that it leads to is replaced.
    path = Path(os.path.realpath(document.name))
    try:
        with replacing(path) as beside:
            # As private as the strictest file until it has the file's own permissions.
            beside.touch(mode=0o600)
            beside.write_bytes(content)
            keep_attributes(path, beside)
            if _read(path) != document.data:
                raise DocumentError(f"{document.name} has changed since it was read: it is left as it is")
    except OSError as error:
        raise DocumentError(f"{document.name} cannot be written: {error.strerror}") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DocumentError(f"{path}: no such file") from None
    except OSError as error:
        raise DocumentError(f"{path} cannot be read: {error.strerror}") from None


def differences(document: Document, text: str) -> str:
    """Return a unified diff from the document to `text`, "" if they are equal."""
    before, after = _lines(document.text), _lines(text)
    return "".join(_marked(difflib.unified_diff(before, after, document.name, document.name)))


def _marked(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"


def _lines(text: str) -> list[str]:
    """Return the lines with their ends; only a newline ends a line, unlike in str.splitlines."""
    return re.findall(r"[^\n]*\n|[^\n]+", text)


def lines_span(text: str, wanted: str) -> tuple[int, int]:
    """Return the span of lines "10:20", or of line "10", in characters, without the end of the last line.

    Raises TemplateError if the text has no such lines.
    """
    match = re.fullmatch(r"(\d{1,18})(?::(\d{1,18}))?", wanted)
    if match is None:
        raise TemplateError(f"lines {wanted!r:.60}: give the first and the last, such as 10:20, or one number")
    first, last = int(match[1]), int(match[2] or match[1])
    lines = _lines(text)
    if not 1 <= first <= last <= len(lines):
        asked = f"there is no line {wanted}" if match[2] is None else f"there are no lines {wanted}"
        raise TemplateError(f"{asked}: the text has {len(lines)} line{'s' * (len(lines) != 1)}")
    start = sum(map(len, lines[: first - 1]))
    stop = start + sum(map(len, lines[first - 1 : last]))
    return start, start + len(text[start:stop].removesuffix("\n").removesuffix("\r"))


def characters_span(wanted: str) -> tuple[int, int]:
    """Return the two numbers of "120:180". Raises TemplateError for anything else."""
    match = re.fullmatch(r"(\d{1,18}):(\d{1,18})", wanted)
    if match is None:
        raise TemplateError(f"characters {wanted!r:.60}: give where they begin and end, such as 120:180")
    return int(match[1]), int(match[2])
