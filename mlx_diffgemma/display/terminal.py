"""Events on a terminal: finished text goes to stdout, the canvas is drawn below it on stderr.

Between two frames the hidden cursor is at the top left of the frame, and the next frame overwrites the last one from
there. So no rows are counted: a terminal that is resized moves the cursor together with its text, and a line that
something else prints (a warning) pushes the frame down instead of tearing it.
"""

from __future__ import annotations

import os
import signal
import termios
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType, TracebackType
from typing import TextIO

from mlx_diffgemma.display.cells import Ink, InkedText, ScreenRow, printable, split_last_row
from mlx_diffgemma.display.frame import View, advance, render, summary
from mlx_diffgemma.events import BlockCommitted, Event, Stats

# Terminals that know these two show all that is between them at once; others ignore them.
BEGIN_FRAME, END_FRAME = "\x1b[?2026h", "\x1b[?2026l"
# Terminals differ in the widths of some characters: a row that is too wide must be clipped and not become two.
NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
ERASE_ROW, ERASE_BELOW = "\x1b[K", "\x1b[J"
# In two parts, from the top left of the frame: tmux copies a screen that is erased at once into its history.
ERASE_FRAME = f"\x1b7{ERASE_ROW}\x1b[B{ERASE_BELOW}\x1b8"

_COLORED = {Ink.FINISHED: "", Ink.PINNED: "", Ink.CHANGED: "1;32", Ink.NOISE: "2", Ink.THOUGHT: "2", Ink.STATUS: "2"}
_UNCOLORED = {**_COLORED, Ink.CHANGED: "1"}
"""Inks as terminal attributes, with colours and without them (NO_COLOR); bold and dim are no colours."""


def is_screen(stream: TextIO) -> bool:
    """Return whether `stream` is a terminal that obeys escape sequences."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def can_draw(stdout: TextIO, stderr: TextIO) -> bool:
    """Return whether both streams are terminals that obey escape sequences and show every character."""
    encodings = {(stream.encoding or "").lower().replace("-", "") for stream in (stdout, stderr)}
    return is_screen(stdout) and is_screen(stderr) and encodings == {"utf8"}


def drawn(
    events: Iterator[Event],
    stdout: TextIO,
    stderr: TextIO,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Event]:
    """Pass `events` on and draw them live; at the end the frame is erased and the terminal shows the finished text."""
    with _hidden_keys(stderr), _Live(stdout, stderr, clock) as live:
        for event in events:
            live.show(event)
            yield event


def written(events: Iterator[Event], stdout: TextIO) -> Iterator[Event]:
    """Pass `events` on and write their text to `stdout` block by block; a pipe gets it unchanged."""
    safe = printable if stdout.isatty() else str
    last = "\n"
    try:
        for event in events:
            if isinstance(event, BlockCommitted) and event.text:
                stdout.write(safe(event.text))
                stdout.flush()
                last = event.text[-1]
            yield event
    finally:
        if last != "\n":
            stdout.write("\n")
            stdout.flush()


class _Live:
    """A terminal with finished text, and the frame below it."""

    def __init__(self, stdout: TextIO, stderr: TextIO, clock: Callable[[], float]) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._clock = clock
        self._began = clock()
        self._inks = _UNCOLORED if os.environ.get("NO_COLOR") else _COLORED
        self._view = View()
        self._width = 0

    def __enter__(self) -> _Live:
        self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._put(ERASE_FRAME)
        self._end_row(self._stdout if self._view.tail.ink is Ink.FINISHED else self._stderr)
        self._put(SHOW_CURSOR)

    def show(self, event: Event) -> None:
        """Draw the frame after `event`; the text of a finished block is printed above the frame."""
        self._view = advance(self._view, event, self._clock() - self._began)
        if isinstance(event, BlockCommitted):
            self._put(BEGIN_FRAME + ERASE_FRAME)
            self._finish(event.thought, Ink.THOUGHT)
            self._finish(event.text, Ink.FINISHED)
        self._draw()

    def _finish(self, text: str, ink: Ink) -> None:
        """Print finished text up to its last row, which stays in the frame: the canvas continues it."""
        if not text:
            return
        if ink is not self._view.tail.ink:
            self._end_row(self._stderr)
            if ink is Ink.FINISHED:
                self._put("\n")
        full, tail = split_last_row(self._view.tail.text + printable(text), self._size()[0])
        self._print(full, ink)
        if full and not full.endswith("\n"):
            # The terminal breaks the row here but the text has no newline: so stdout gets none.
            self._put("\n")
        self._view = replace(self._view, tail=InkedText(tail, ink))

    def _end_row(self, newline: TextIO) -> None:
        """Print the tail and, on the stream `newline`, the end of its row."""
        if self._view.tail.text:
            self._print(self._view.tail.text, self._view.tail.ink)
            newline.write("\n")
            newline.flush()
        self._view = replace(self._view, tail=InkedText("", self._view.tail.ink))

    def _print(self, text: str, ink: Ink) -> None:
        if ink is Ink.FINISHED:
            self._stdout.write(text)
            self._stdout.flush()
        else:
            self._put(self._painted(InkedText(text, ink)))

    def _draw(self) -> None:
        width, height = self._size()
        if width != self._width:
            # A terminal of another width breaks the text into other rows.
            self._width, self._view = width, replace(self._view, rows=0)
        frame = render(self._view, width, height)
        self._view = replace(self._view, rows=len(frame) - 1)
        body = "\r\n".join(self._drawn_row(row, width) for row in frame)
        up = f"\x1b[{len(frame) - 1}A" if len(frame) > 1 else ""
        self._put(f"{BEGIN_FRAME}{HIDE_CURSOR}{NO_WRAP}{body}{ERASE_BELOW}{up}\r{WRAP}{END_FRAME}")

    def _drawn_row(self, row: ScreenRow, width: int) -> str:
        # After a full row the cursor is still on its last cell: erasing the rest of the row would erase that cell.
        rest = ERASE_ROW if row.cells < width else ""
        return "".join(self._painted(span) for span in row.spans) + rest

    def _painted(self, span: InkedText) -> str:
        attributes = self._inks[span.ink]
        return f"\x1b[{attributes}m{span.text}\x1b[m" if attributes else span.text

    def _size(self) -> tuple[int, int]:
        """Return columns and rows as they are now; 80 x 24 for a terminal that does not know its size."""
        columns, lines = os.get_terminal_size(self._stderr.fileno())
        return columns or 80, lines or 24

    def _put(self, text: str) -> None:
        self._stderr.write(text)
        self._stderr.flush()


@contextmanager
def _hidden_keys(terminal: TextIO) -> Generator[None]:
    """Switch the echo of typed keys off: it would move the cursor away from where the next frame begins.

    While the program is suspended (Ctrl-Z) the terminal belongs to the shell: the frame is erased and the cursor is
    visible; the shell itself restores the echo.
    """
    descriptor = terminal.fileno()
    before = termios.tcgetattr(descriptor)
    silent = [*before]
    silent[3] &= ~termios.ECHO

    def suspend(_number: int, _frame: FrameType | None) -> None:
        # Not through the stream: the signal may have arrived while the stream was writing.
        os.write(descriptor, f"{ERASE_FRAME}{WRAP}{END_FRAME}{SHOW_CURSOR}".encode())
        os.kill(os.getpid(), signal.SIGSTOP)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, silent)

    handler = signal.signal(signal.SIGTSTP, suspend)
    termios.tcsetattr(descriptor, termios.TCSADRAIN, silent)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
        signal.signal(signal.SIGTSTP, handler)


def report(stats: Stats, stderr: TextIO) -> None:
    """Print the figures of a generation in one line, on a terminal as far as they fit."""
    if is_screen(stderr):
        line = summary(stats, os.get_terminal_size(stderr.fileno()).columns or 80)
        stderr.write(f"\x1b[2m{line}\x1b[m\n")
    else:
        stderr.write(f"{summary(stats)}\n")
