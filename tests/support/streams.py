"""Run a program's `main` in this process with stdout and stderr each a terminal, a file, a pipe, or closed.

A process per combination would spend seconds on importing MLX.
"""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import sys
import termios
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO
from unittest.mock import patch

from in_process import exit_code, restored

KINDS = ("terminal", "file", "pipe", "closed")


@dataclass(kw_only=True)
class Stream:
    """What a program is given as one of its streams, and what it wrote; None is a closed one."""

    text: TextIO | None = None
    written: bytearray = field(default_factory=bytearray)


@dataclass(frozen=True, kw_only=True)
class Left:
    """What a program left: its exit code and what is in its streams."""

    code: int
    stdout: str
    stderr: str


def call_on(
    main: Callable[[], object], *arguments: object, folder: Path, stdout: str, stderr: str, env: Mapping[str, str]
) -> Left:
    """Call `main` on streams of these kinds; `folder` gets their files."""
    with _stream(stdout, folder / "stdout") as out, _stream(stderr, folder / "stderr") as err:
        streams = {"stdin": None, "stdout": out.text, "stderr": err.text}
        command = ["program", *map(str, arguments)]
        with patch.multiple(sys, argv=command, **streams), patch.dict(os.environ, env, clear=True), restored():
            code = exit_code(main)
    return Left(code=code, stdout=out.written.decode(), stderr=err.written.decode())


@contextmanager
def _stream(kind: str, file: Path) -> Iterator[Stream]:
    """Yield a stream; it holds what was written at the end."""
    stream = Stream()
    if kind == "closed":
        yield stream
        return
    if kind == "file":
        with file.open("w", encoding="utf-8") as stream.text:
            yield stream
        stream.written += file.read_bytes()
        return
    reader, writer = os.pipe() if kind == "pipe" else pty.openpty()
    if kind == "terminal":
        fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    thread = threading.Thread(target=_drain, args=(reader, stream.written))
    thread.start()
    with os.fdopen(writer, "w", encoding="utf-8") as stream.text:
        yield stream
    thread.join()
    os.close(reader)


def _drain(reader: int, written: bytearray) -> None:
    """Read to the end, which a terminal reports as an error."""
    try:
        while data := os.read(reader, 65536):
            written += data
    except OSError:
        return
