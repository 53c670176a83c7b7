"""A process that works on items one after another, and is ended when one takes too long."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Literal, TypeAlias

Work: TypeAlias = Callable[[Any], Iterable[object]]
"""What is done with an item: it reports something after each of its parts."""
_MEMORY = 8 << 30
"""Bytes of address space: a constraint that asks for more must not take it from the machine."""
_STARTING = 300.0
"""Seconds until a process is ready."""
_DONE = "done"


@dataclass(frozen=True)
class Ended:
    """The process was ended, or died, while it worked on an item."""

    status: Literal["too slow", "crashed"]
    message: str
    peak_memory: int = 0
    """bytes that the process held at most; 0 if nothing says so any more"""


class WatchedProcess:
    """A process that is started with the first item, and again after it was ended."""

    def __init__(self, make: Callable[[], Work], limit: float) -> None:
        """make: called in the process. limit: seconds that a part of an item may take."""
        self._make, self._limit = make, limit
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None
        self._errors = NamedTemporaryFile(prefix="watched-")  # noqa: SIM115 - open as long as the process may write

    def run(self, item: object) -> Iterator[object]:
        """Yield what the work reports; at last an Ended if its process had to be ended, or died."""
        if self._process is None:
            self._start()
        assert self._connection is not None
        self._connection.send(item)
        while True:
            report = self._next_report(self._limit)
            if report == _DONE:
                return
            yield report
            if isinstance(report, Ended):
                self.close()
                return

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._errors.seek(0)
        self._errors.truncate()
        self._process = context.Process(target=_serve, args=(theirs, self._make, self._errors.name), daemon=True)
        self._process.start()
        theirs.close()
        # The first message says that everything is imported.
        ready = self._next_report(_STARTING)
        if isinstance(ready, Ended):
            self.close()
            sys.exit(f"a process could not be started: {ready.message}")

    def _next_report(self, limit: float) -> object:
        assert self._connection is not None and self._process is not None
        try:
            if self._connection.poll(limit):
                return self._connection.recv()
            return Ended("too slow", f"over {limit:g} s", peak_memory(self._process.pid))
        except (EOFError, ConnectionResetError):
            self._errors.seek(0)
            lines = self._errors.read().decode(errors="replace").split("\n")
            said = [line.strip() for line in lines if line.strip()]
            return Ended("crashed", said[-1] if said else "its process died")


def _serve(connection: Connection, make: Callable[[], Work], error_file: str) -> None:
    """Work on the items that come through the connection, in this process; stderr goes into a file."""
    with Path(error_file).open("r+b") as errors:
        os.dup2(errors.fileno(), 2)
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    work = make()
    connection.send("ready")
    while True:
        for report in work(connection.recv()):
            connection.send(report)
        connection.send(_DONE)


def reset_peak_memory() -> None:
    """Count the peak from now on, where the system can."""
    if sys.platform == "linux":
        gc.collect()
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory(process: int | None = None) -> int:
    """Return the bytes of memory that a process held at most, this one by default; 0 if nothing says so."""
    if sys.platform == "linux":
        # getrusage would count what the parent held before this program was started.
        lines = Path(f"/proc/{process or 'self'}/status").read_text().split("\n")
        found = next((line.split()[1] for line in lines if line.startswith("VmHWM:")), "0")
        return int(found) << 10
    import resource

    return 0 if process else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
