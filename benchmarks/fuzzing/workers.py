"""Cases are run in a process that is watched: one for many cases, or one for each.

A case that goes on for 10 seconds gets Ctrl-C every 5 seconds, as a user would press it; after 60 its process is ended.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

from in_process import call

from fuzzing.cases import Case, case_of
from fuzzing.judging import TRACEBACK, Outcome
from fuzzing.sandbox import contents, set_up

PROGRAMS = ("generate", "infill", "edit", "train", "bench", "convert", "fuse")
_PATIENCE, _AGAIN, _LIMIT = 10.0, 5.0, 60.0
"""Seconds until Ctrl-C, until the next one, and until the process is ended."""
_HANGS = f"hangs: it went on for {_LIMIT:.0f} seconds"
_MEMORY = 16 << 30
"""Bytes of address space: a file that asks for more must not take it from the machine."""


def environment(home: Path) -> dict[str, str]:
    """Return the environment of all cases: folders of their own for what a user's home holds, and no network."""
    own = {name: str(home / name) for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME", "MPLCONFIGDIR")}
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLX_DIFFGEMMA")}
    return {**kept, **own, "HF_HUB_OFFLINE": "1", "PYTHONHASHSEED": "0", "COLUMNS": "80"}


class Worker:
    """A process that runs cases in `folder`, one after another; it is started again if it had to be ended."""

    def __init__(self, originals: Path, folder: Path) -> None:
        self._originals, self._folder = originals, folder
        self._process: multiprocessing.process.BaseProcess | None = None
        self._connection: Connection | None = None

    def run(self, name: str) -> Outcome:
        """Return what comes of a case; one that hangs is run again, because MLX may have compiled kernels for it."""
        outcome = self._run(name)
        return outcome if outcome.stderr != _HANGS else self._run(name)

    def _run(self, name: str) -> Outcome:
        if self._process is None or not self._process.is_alive():
            self._start()
        assert self._connection is not None
        begin = time.monotonic()
        self._connection.send(name)
        try:
            if self._connection.poll(_LIMIT):
                return self._connection.recv()
            message = _HANGS
        except EOFError:
            message = "its process died"
        self.close()
        return Outcome(code=None, stderr=message, before={}, after={}, seconds=time.monotonic() - begin)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()
        self._process = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._originals, self._folder), daemon=True)
        self._process.start()
        theirs.close()
        # The first message says that everything is imported.
        self._connection.recv()


def _serve(connection: Connection, originals: Path, folder: Path) -> None:
    """Run the cases whose names come through the connection, in this process."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    for name in PROGRAMS:
        importlib.import_module(f"mlx_diffgemma.{name}")
    connection.send("ready")
    while True:
        connection.send(run_here(case_of(connection.recv(), originals), originals, folder))


def run_here(case: Case, originals: Path, folder: Path) -> Outcome:
    """Run a case in this process, in `folder`."""
    set_up(originals, folder, case.changed)
    before, here = contents(folder), Path.cwd()
    main = importlib.import_module(f"mlx_diffgemma.{case.program}").main
    os.chdir(folder)
    tempfile.tempdir = str(folder / "tmp")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    before_alarm = signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    signal.setitimer(signal.ITIMER_REAL, _PATIENCE, _AGAIN)
    begin = time.monotonic()
    try:
        done = call(main, *case.words, stdin=case.stdin)
        code, stdout, stderr = done.returncode, done.stdout, done.stderr
    except KeyboardInterrupt:
        code, stdout, stderr = 1, b"", f"{TRACEBACK}: Ctrl-C".encode()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before_alarm)
        os.chdir(here)
        tempfile.tempdir = None
    return Outcome(
        code=code,
        stdout=stdout.decode(errors="replace"),
        stderr=stderr.decode(errors="replace"),
        before=before,
        after=contents(folder),
        seconds=time.monotonic() - begin,
    )


def run_in_process(case: Case, originals: Path, folder: Path, home: Path) -> Outcome:
    """Run a case in a process of its own, in `folder`."""
    set_up(originals, folder, case.changed)
    before, begin = contents(folder), time.monotonic()
    command = [sys.executable, "-m", f"mlx_diffgemma.{case.program}", *case.words]
    wanted = {**environment(home), "PYTHONPATH": os.pathsep.join(sys.path)}
    outcome = Outcome(code=None, before=before, after=before, seconds=0)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=wanted, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        for wait in (_LIMIT / 2, _LIMIT / 4, _LIMIT / 4):
            try:
                streams = process.communicate(case.stdin, timeout=wait)
                stdout, stderr = (each.decode(errors="replace") for each in streams)
                outcome = replace(outcome, code=process.returncode, stdout=stdout, stderr=stderr)
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
        else:
            process.kill()
            outcome = replace(outcome, stderr=_HANGS)
    return replace(outcome, after=contents(folder), seconds=time.monotonic() - begin)
