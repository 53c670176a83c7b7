"""Run a program's `main` in this process: a new process would spend seconds on importing MLX and transformers."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from unittest.mock import patch


def call(
    main: Callable[[], object],
    *arguments: object,
    stdin: bytes = b"",
    env: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
) -> subprocess.CompletedProcess[bytes]:
    """Call `main` as a console script would, and return its exit code and what it wrote.

    The process is afterwards as it was: streams, arguments, environment, signal handlers, and the package's logging.
    Closed streams, terminals and Ctrl-C need a real process.
    """
    command = ["program", *map(str, arguments)]
    stdout, stderr = io.BytesIO(), io.BytesIO()
    streams = {
        "stdin": io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"),
        "stdout": io.TextIOWrapper(stdout, encoding=encoding, write_through=True),
        "stderr": io.TextIOWrapper(stderr, encoding=encoding, errors="backslashreplace", write_through=True),
    }
    environment = os.environ if env is None else env
    with patch.multiple(sys, argv=command, **streams), patch.dict(os.environ, environment, clear=True), restored():
        code = exit_code(main)
        for stream in streams.values():
            stream.flush()
    return subprocess.CompletedProcess(command, code, stdout.getvalue(), stderr.getvalue())


def call_for_text(
    main: Callable[[], object], *arguments: object, stdin: bytes = b"", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """`call` with decoded output."""
    done = call(main, *arguments, stdin=stdin, env=env)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def exit_code(main: Callable[[], object]) -> int:
    """Return what the interpreter would exit with, printing what it would print."""
    try:
        main()
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except Exception:  # noqa: BLE001 - the interpreter prints any
        traceback.print_exc()
        return 1
    return 0


@contextmanager
def restored() -> Iterator[None]:
    """Put signal handlers and the logger of `mlx_diffgemma` back at the end."""
    signals = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    logger = logging.getLogger("mlx_diffgemma")
    handlers, level = logger.handlers, logger.level
    try:
        yield
    finally:
        for number, handler in signals.items():
            signal.signal(number, handler)
        logger.handlers = handlers
        logger.setLevel(level)
