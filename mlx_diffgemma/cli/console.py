"""Streams and exit codes of the programs: results on stdout, one line per error or warning on stderr.

Whatever the streams are (a terminal, a file, a pipe, closed, full), a program ends with an exit code and one line at
most.
"""

from __future__ import annotations

import codecs
import io
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import typer

from mlx_diffgemma.cli.habits import in_our_words, instead_of
from mlx_diffgemma.errors import DiffGemmaError

FAILED = 1
MISUSED = 2
"""The exit code of usage errors."""
INTERRUPTED = 130
_LONGEST_ERROR = 800
"""Characters of a line of error."""
_OPTION = re.compile(r"\b([a-z][a-z_]+)=(True\b|False\b)?")
"""An option in a message with the beginning of its value: max_tokens=0."""
_UsageError: Any = typer.BadParameter.__base__
"""What typer raises for a command line that it cannot read; it has no public name in all versions."""
_PLAINER = {"·": "|", "…": "...", "–": "-", "━": "#", "─": "-", "’": "'", "“": '"', "”": '"'}
"""What stands for a character that the encoding of a stream lacks; "?" for any other."""
_TEMPORARY = ("TMPDIR", "TMP", "TEMP", "TEMPDIR")
"""Names of the temporary folder in the environment; one that does not exist is not looked for."""
_PLAIN = "mlx_diffgemma.plain"
"""The name of the error handler that does it."""


@contextmanager
def reported(*, debug: bool, quiet: bool = False, flags: Mapping[str, str] | None = None) -> Generator[None]:
    """Run a program's body: an expected failure prints `error: ...` and exits with 1, Ctrl-C exits with 130.

    debug: let the exception through, with its traceback, and print what only a search for a fault needs. quiet: no
    warnings and no download bars. flags: how options are called on the command line.
    """
    if quiet:
        # huggingface_hub reads this when it is imported, which happens later.
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logger = logging.getLogger("mlx_diffgemma")
    logger.handlers = [handler]
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if debug else logging.INFO)
    # It warns where it cannot keep its cache, for which a picture is no worse.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    try:
        yield
    except DiffGemmaError as error:
        if debug:
            raise
        complain(_with_flags(str(error), flags or {}))
        raise SystemExit(FAILED) from None
    except OSError as error:
        # A file that cannot be read or written has an error with its name; without a name the output is meant.
        if debug or error.filename is None:
            raise
        complain(f"{error.filename}: {error.strerror}")
        raise SystemExit(FAILED) from None
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def _with_flags(message: str, flags: Mapping[str, str]) -> str:
    """Return a message that begins with options and their values as it is said of a command line.

    Errors in files name options as the files do, and begin with the name of the file.
    """
    first = _OPTION.match(message)
    if first is None or first[1] not in flags:
        return message

    def said(found: re.Match[str]) -> str:
        flag, value = flags.get(found[1]), found[2]
        if flag is None:
            return found[0]
        # A flag has no value on a command line.
        return flag if value == "True" else f"--no-{flag[2:]}" if value == "False" else f"{flag} {value or ''}"

    return _OPTION.sub(said, message)


@contextmanager
def _written_output() -> Generator[None]:
    """Say in one line that stdout cannot be written, or nothing if its reader is gone (`| head`)."""
    try:
        yield
    except OSError as error:
        if error.filename is not None:
            raise
        # Python would report the error again while flushing at exit, so stdout is replaced by a stream that leads
        # nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if not isinstance(error, BrokenPipeError):
            complain(f"the output cannot be written: {error.strerror}")
        raise SystemExit(FAILED) from None


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


class _Forgiving(io.FileIO):
    """A file whose writes never fail: what a full disk, or a pipe without a reader, does not take is lost."""

    def write(self, data: Any, /) -> int:
        """Write, or drop what cannot be written."""
        try:
            return super().write(data) or 0
        except OSError:
            return memoryview(data).nbytes


def _prepare() -> None:
    """Make notes that cannot be written cost no result, and characters that an encoding lacks cost no error."""
    open_streams()
    for name in _TEMPORARY:
        # MLX compiles its kernels for the CPU in that folder, and fails without it.
        if not os.path.isdir(os.environ.get(name, "/")):  # noqa: PTH112 - Path("") would be the current folder
            del os.environ[name]
    codecs.register_error(_PLAIN, _plainer)
    stderr = sys.stderr
    buffer = getattr(stderr, "buffer", None)
    # Without a buffer (PYTHONUNBUFFERED) the file itself is in its place.
    if isinstance(getattr(buffer, "raw", buffer), io.FileIO):
        forgiving = io.BufferedWriter(_Forgiving(stderr.fileno(), "w", closefd=False))
        sys.stderr = io.TextIOWrapper(forgiving, encoding=stderr.encoding, line_buffering=True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAIN)


def _plainer(error: UnicodeError) -> tuple[str, int]:
    """Return plainer characters for those that an encoding lacks, and where to go on."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAINER.get(each, "?") for each in error.object[error.start : error.end]), error.end


def run_program(app: typer.Typer, name: str) -> None:
    """Run a program on the command line's arguments, and leave the terminal as it was however the program ends.

    A usage error is one line and exits with 2.
    """
    _prepare()
    signal.signal(signal.SIGTERM, _terminate)
    if signal.getsignal(signal.SIGINT) == signal.SIG_DFL:
        # See `cli.quietly`.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with _written_output():
            code = app(in_our_words(_short(name), sys.argv[1:]), prog_name=name, standalone_mode=False)
            sys.stdout.flush()
    except _UsageError as error:
        _report_misuse(error)
        raise SystemExit(MISUSED) from None
    except (KeyboardInterrupt, typer.Abort):
        raise SystemExit(INTERRUPTED) from None
    finally:
        # A second Ctrl-C must not interrupt the interpreter's shutdown.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise SystemExit(code or 0)


def _short(name: str) -> str:
    """Return the name of a program without that of the project: generate for mlx_diffgemma.generate."""
    return name.replace(".", " ").rpartition(" ")[2]


def _report_misuse(error: Any) -> None:
    """Print a usage error of typer's as our own, or the help page that stands for it."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()
        return
    flag = getattr(error, "option_name", None)
    if instead := instead_of(flag) if isinstance(flag, str) else None:
        complain(f"there is no option {flag}: {instead}")
        return
    from difflib import get_close_matches

    near = get_close_matches(str(flag), getattr(error, "possibilities", None) or (), n=1)
    if near:
        complain(f"no such option: {flag}: did you mean {near[0]}?")
        return
    message = str(error.format_message()).strip().rstrip(".")
    refusal(message[:1].lower() + message[1:])


def refusal(message: str) -> None:
    """Print a usage error on stderr."""
    complain(f"{message} (--help lists all options)")


def _terminate(number: int, _frame: FrameType | None) -> None:
    """Exit through the usual cleanup, so that the terminal is restored."""
    raise SystemExit(128 + number)


def stdout_line(line: str) -> None:
    """Write one line of JSON to stdout; on a terminal without control characters.

    A stream whose encoding lacks a character gets all of them as escapes, so that nothing is lost.
    """
    from mlx_diffgemma.display.cells import printable

    try:
        line.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        line = json.dumps(json.loads(line))
    sys.stdout.write((printable(line) if sys.stdout.isatty() else line) + "\n")
    sys.stdout.flush()


def complain(message: str) -> None:
    """Print an expected failure on stderr; line breaks in the message become spaces, a long middle is left out."""
    line = " ".join(message.split())
    if len(line) > _LONGEST_ERROR:
        # What is wrong is said at the beginning, what to do at the end; a value between them may be of any length.
        line = f"{line[: _LONGEST_ERROR - 200]} ... {line[-200:]}"
    print(f"error: {line}", file=sys.stderr)  # noqa: T201


def interrupted(after: str, *, quiet: bool) -> NoReturn:
    """End the program after Ctrl-C, saying how far it came."""
    if not quiet:
        print(f"interrupted after {after}", file=sys.stderr)  # noqa: T201
    raise SystemExit(INTERRUPTED)


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = " ".join(record.getMessage().split())
        # This line may overwrite a longer status line.
        erase = "\x1b[K" if sys.stderr.isatty() else ""
        return erase + (message if record.levelno < logging.WARNING else f"{record.levelname.lower()}: {message}")
