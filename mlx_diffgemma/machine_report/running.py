"""Run the command of a step in a process of its own, within a time, and read what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_LOOK = 0.05
"""Seconds between two looks at a process."""
_PATIENCE = 20.0
"""Seconds that a process gets to end after it was asked to."""


@dataclass(frozen=True, kw_only=True)
class CommandEnd:
    """How a process ended. code: None if it was killed because it did not end by itself."""

    code: int | None
    seconds: float
    in_time: bool
    output: str
    """what it wrote to stdout"""
    complaint: str
    """the last line on stderr"""
    peak: int
    """most memory that was resident, in bytes"""


def run_command(command: Sequence[str], environment: Mapping[str, str], limit: float, log: Path) -> CommandEnd:
    """Run a command; what it writes to stderr is added to `log`. After `limit` seconds it is asked to end.

    Ctrl-C ends the command too, and is raised again.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell lets its background jobs ignore it, and so would what they start, which is ended by it.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    with tempfile.TemporaryFile() as output, log.open("ab") as errors:
        begin, start = time.monotonic(), errors.tell()
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env={**os.environ, "COLUMNS": "120", **environment},
        )
        try:
            code, peak, in_time = _wait(process, begin + limit)
        except BaseException:
            _end(process)
            raise
        output.seek(0)
        return CommandEnd(
            code=code,
            seconds=time.monotonic() - begin,
            in_time=in_time,
            output=output.read().decode(errors="replace"),
            complaint=_last_line(log, start),
            peak=peak,
        )


def _wait(process: subprocess.Popen[bytes], deadline: float) -> tuple[int | None, int, bool]:
    """Wait for a process, and end it at a deadline -> exit code, peak memory in bytes, whether it was in time."""
    in_time = True
    while True:
        # Not process.wait: the memory of this one process is known to wait4 alone.
        found, status, usage = os.wait4(process.pid, os.WNOHANG)
        if found:
            process.returncode = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
            return process.returncode, peak, in_time
        if time.monotonic() > deadline + (0 if in_time else _PATIENCE):
            process.send_signal(signal.SIGINT if in_time else signal.SIGKILL)
            in_time = False
        time.sleep(_LOOK)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process that Ctrl-C in a terminal may have reached already."""
    if process.returncode is None:
        process.terminate()
        try:
            process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _last_line(log: Path, start: int) -> str:
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def parsed(text: str) -> Any:
    """Return the JSON of a text, or the text if it is none."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
