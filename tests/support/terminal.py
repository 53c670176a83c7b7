"""Run a program in a pseudo-terminal, and let pyte interpret what it writes."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyte
from pyte.modes import DECAWM
from wcwidth import wcwidth

SCRIPTED = (sys.executable, str(Path(__file__).parent / "scripted.py"), "-m", "scripted")
"""The program `mlx_diffgemma.generate` on a scripted session: see scripted.py."""

TAKE_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""
"""Makes stdin the terminal of the process, so that Ctrl-C reaches it, and becomes the program."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What a program left behind: exit code, all rows on the screen and above it, raw bytes.

    `shots` are the rows at each moment in which a key was typed.
    """

    code: int
    rows: list[str]
    cursor_visible: bool
    echo: bool
    stdout: bytes
    raw: bytes
    shots: list[list[str]]


def environment(**extra: str) -> dict[str, str]:
    """Return this process's environment for a UTF-8 terminal with colours, without the model that a user has named."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "MLX_DIFFGEMMA_MODEL")}
    return {**kept, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **extra}


def run_in_terminal(
    command: Sequence[str],
    size: tuple[int, int],
    env: dict[str, str],
    keys: Sequence[tuple[str, bytes]] = (),
    *,
    piped_stdout: bool = False,
    timeout: float = 120,
) -> Shown:
    """Run `command` in a terminal of `size` (columns, rows), typing each of `keys` once its text is on the screen."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))
    reader, writer = os.pipe() if piped_stdout else (-1, slave)
    process = subprocess.Popen(
        [sys.executable, "-c", TAKE_TERMINAL, *command],
        stdin=slave,
        stdout=writer,
        stderr=slave,
        env=env,
        start_new_session=True,
    )
    screen = _Screen(size)
    try:
        _converse(process, master, screen, list(keys), time.monotonic() + timeout)
        if piped_stdout:
            os.close(writer)
            stdout = os.fdopen(reader, "rb").read()
        else:
            stdout = b""
        echo = bool(termios.tcgetattr(slave)[3] & termios.ECHO)
        return Shown(
            code=process.wait(timeout=5),
            rows=screen.rows(),
            cursor_visible=not screen.terminal.cursor.hidden,
            echo=echo,
            stdout=stdout,
            raw=bytes(screen.raw),
            shots=screen.shots,
        )
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(slave)


def _converse(
    process: subprocess.Popen[bytes], master: int, screen: _Screen, keys: list[tuple[str, bytes]], deadline: float
) -> None:
    """Read until the process has ended and nothing is left, typing on the way."""
    while True:
        ended = process.poll() is not None
        while select.select([master], [], [], 0.02)[0]:
            screen.feed(os.read(master, 65536))
        if ended:
            return
        if keys and any(keys[0][0] in row for row in screen.terminal.display):
            screen.shots.append(screen.rows())
            os.write(master, keys.pop(0)[1])
        assert time.monotonic() < deadline, "\n".join(["the program did not end:", *screen.terminal.display])


class _Terminal(pyte.HistoryScreen):
    """Begin a new row for a wide character that does not fit, as terminals do and pyte does not."""

    def draw(self, data: str) -> None:
        for character in data:
            if wcwidth(character) == 2 and self.cursor.x == self.columns - 1 and DECAWM in self.mode:
                self.cursor.x = self.columns
            super().draw(character)


class _Screen:
    def __init__(self, size: tuple[int, int]) -> None:
        self.terminal = _Terminal(*size, history=10_000)
        self.stream = pyte.ByteStream(self.terminal)
        self.raw = bytearray()
        self.shots: list[list[str]] = []

    def feed(self, data: bytes) -> None:
        self.raw += data
        self.stream.feed(data)

    def rows(self) -> list[str]:
        width = self.terminal.columns
        above = ["".join(line[n].data for n in range(width)) for line in self.terminal.history.top]
        rows = [row.rstrip() for row in [*above, *self.terminal.display]]
        while rows and not rows[-1]:
            rows.pop()
        return rows


def plain_rows(text: str, size: tuple[int, int]) -> list[str]:
    """Return the rows of a terminal to which `text` was written at once."""
    screen = _Screen(size)
    screen.feed(text.replace("\n", "\r\n").encode())
    return screen.rows()
