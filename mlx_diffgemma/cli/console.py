"""What the programs share: errors in one line on stderr, exit codes, and warnings that look alike."""

from __future__ import annotations

import io
import logging
import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

import typer

from mlx_diffgemma.errors import DiffGemmaError

FAILED = 1
INTERRUPTED = 130


@contextmanager
def reported(*, debug: bool, quiet: bool = False) -> Generator[None]:
    """Run a program's body: an expected failure becomes `error: ...` and exit code 1, Ctrl-C exit code 130.

    With `debug` the exception goes through with its traceback. `quiet` drops warnings and download bars, never errors.
    """
    if quiet:
        # huggingface_hub reads this when it is imported, which is later.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logger = logging.getLogger("mlx_diffgemma")
    logger.handlers = [handler]
    logger.setLevel(logging.ERROR if quiet else logging.INFO)
    try:
        yield
    except DiffGemmaError as error:
        if debug:
            raise
        complain(str(error))
        raise SystemExit(FAILED) from None
    except OSError as error:
        # Files have their own errors by now: without a name it is the output that cannot be written.
        if debug or error.filename is not None:
            raise
        # The reader who went away (`| head`) is not told. Python would complain again while flushing at exit, so
        # stdout is pointed at nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            complain(f"the output cannot be written: {error.strerror}")
        raise SystemExit(FAILED) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def open_streams() -> None:
    """Give a program started without stdin, stdout or stderr (`<&-`, a daemon) ones that lead nowhere.

    Otherwise the first files that it opens would take their places.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if descriptor > 0 and getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w", closefd=False))


def run_program(app: typer.Typer, name: str) -> None:
    """Run a program that writes answers, so that it leaves the terminal as it was however it ends."""
    open_streams()
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # An encoding without the answer's characters costs those characters, not the answer.
        sys.stdout.reconfigure(errors="replace")
    try:
        app(prog_name=name)
    finally:
        # A second Ctrl-C must not cut short the interpreter's own leaving.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _terminate(number: int, _frame: FrameType | None) -> None:
    """Leave as from an error, so that the terminal is restored."""
    raise SystemExit(128 + number)


def stdout_line(line: str) -> None:
    """Write one line, harmless on a terminal."""
    from mlx_diffgemma.display.cells import printable

    sys.stdout.write((printable(line) if sys.stdout.isatty() else line) + "\n")
    sys.stdout.flush()


def complain(message: str) -> None:
    """Print an expected failure on stderr, as one line whatever the message holds."""
    print(f"error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = " ".join(record.getMessage().split())
        # A status line may stand where this one goes, and be longer.
        erase = "\x1b[K" if sys.stderr.isatty() else ""
        return erase + (message if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {message}")
