"""Streams and exit codes of the programs: one line per error or warning on stderr, a terminal left as it was."""

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
_LONGEST_ERROR = 800
"""Characters of a line of error."""


@contextmanager
def reported(*, debug: bool, quiet: bool = False) -> Generator[None]:
    """Run a program's body: an expected failure prints `error: ...` and exits with 1, Ctrl-C exits with 130.

    debug: let the exception through, with its traceback. quiet: no warnings and no download bars.
    """
    if quiet:
        # huggingface_hub reads this when it is imported, which happens later.
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
        # A file that cannot be read or written has an error with its name; without a name the output is meant.
        if debug or error.filename is not None:
            raise
        # A closed pipe (`| head`) is no error. Python would report it again while flushing at exit, so stdout is
        # replaced by a stream that leads nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            complain(f"the output cannot be written: {error.strerror}")
        raise SystemExit(FAILED) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def open_streams() -> None:
    """Open the standard streams that a program was started without (`<&-`, a daemon), so that they lead nowhere.

    Otherwise the first files that the program opens would become its standard streams.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
        if descriptor > 0 and getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, "w", closefd=False))


def run_program(app: typer.Typer, name: str) -> None:
    """Run a program on the command line's arguments, and leave the terminal as it was however the program ends."""
    open_streams()
    signal.signal(signal.SIGTERM, _terminate)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # If the encoding lacks a character of the answer, only that character is lost.
        sys.stdout.reconfigure(errors="replace")
    try:
        app(prog_name=name)
    finally:
        # A second Ctrl-C must not interrupt the interpreter's shutdown.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _terminate(number: int, _frame: FrameType | None) -> None:
    """Exit through the usual cleanup, so that the terminal is restored."""
    raise SystemExit(128 + number)


def stdout_line(line: str) -> None:
    """Write one line to stdout; on a terminal without control characters."""
    from mlx_diffgemma.display.cells import printable

    sys.stdout.write((printable(line) if sys.stdout.isatty() else line) + "\n")
    sys.stdout.flush()


def complain(message: str) -> None:
    """Print an expected failure on stderr; line breaks in the message become spaces, a long middle is left out."""
    line = " ".join(message.split())
    if len(line) > _LONGEST_ERROR:
        # What is wrong is said at the beginning, what to do at the end; a value between them may be of any length.
        line = f"{line[: _LONGEST_ERROR - 200]} ... {line[-200:]}"
    print(f"error: {line}", file=sys.stderr)  # noqa: T201


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = " ".join(record.getMessage().split())
        # This line may overwrite a longer status line.
        erase = "\x1b[K" if sys.stderr.isatty() else ""
        return erase + (message if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {message}")
