"""Events on a terminal: finished text goes to stdout, the canvas is drawn below it on stderr.

Between two frames the cursor rests, hidden, at the top left of what is drawn. The next frame overwrites the last one
from there, so nothing counts rows: a terminal that is resized carries the cursor along with its text, and a line
that something else prints (a warning) pushes the drawing down instead of tearing it.
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

from mlx_diffgemma.display.frame import Ink, InkedText, ScreenRow, View, advance, full_rows, printable, rows, wrap
from mlx_diffgemma.events import BlockCommitted, Event, Stats

# A terminal that knows them shows what is between these two at once; others ignore them.
BEGIN_FRAME, END_FRAME = "\x1b[?2026h", "\x1b[?2026l"
# Where the terminal draws a character wider than we count, a row must be clipped and not become two.
NO_WRAP, WRAP = "\x1b[?7l", "\x1b[?7h"
HIDE_CURSOR, SHOW_CURSOR = "\x1b[?25l", "\x1b[?25h"
ERASE_ROW, ERASE_BELOW = "\x1b[K", "\x1b[J"
# Row by row from the top left of the frame: tmux keeps a copy of a screen that is erased at once in its history.
ERASE_FRAME = f"\x1b7{ERASE_ROW}\x1b[B{ERASE_BELOW}\x1b8"

COLORED = {Ink.SETTLED: "", Ink.PINNED: "", Ink.CHANGED: "1;32", Ink.NOISE: "2", Ink.THOUGHT: "2", Ink.STATUS: "2"}
PLAIN = {**COLORED, Ink.CHANGED: "1"}
"""Inks as terminal attributes, with colour and under NO_COLOR; bold and dim are no colours."""


def is_screen(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that obeys escape sequences."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def can_draw(stdout: TextIO, stderr: TextIO) -> bool:
    """Whether both are terminals that can be drawn on, with every character."""
    encodings = {(stream.encoding or "").lower().replace("-", "") for stream in (stdout, stderr)}
    return is_screen(stdout) and is_screen(stderr) and encodings == {"utf8"}


def drawn(
    events: Iterator[Event],
    stdout: TextIO,
    stderr: TextIO,
    clock: Callable[[], float] = time.perf_counter,
) -> Iterator[Event]:
    """Draw `events` live while passing them on; in the end the terminal shows the text and is as it was before."""
    with _keys_unseen(stderr), _Live(stdout, stderr, clock) as live:
        for event in events:
            live.show(event)
            yield event


def written(events: Iterator[Event], stdout: TextIO) -> Iterator[Event]:
    """Write the text of `events` to `stdout` block by block while passing them on: byte for byte into a pipe."""
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
    """The rows below the finished text, and the text as it is finished."""

    def __init__(self, stdout: TextIO, stderr: TextIO, clock: Callable[[], float]) -> None:
        self._stdout = stdout
        self._stderr = stderr
        self._clock = clock
        self._began = clock()
        self._inks = PLAIN if os.environ.get("NO_COLOR") else COLORED
        self._view = View()

    def __enter__(self) -> _Live:
        self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._put(ERASE_FRAME)
        text = self._view.tail.ink is Ink.SETTLED
        self._end_row(self._stdout if text else self._stderr)
        self._put(SHOW_CURSOR)

    def show(self, event: Event) -> None:
        """Draw the frame after `event`; what it finishes moves above the frame."""
        self._view = advance(self._view, event)
        if isinstance(event, BlockCommitted):
            self._put(BEGIN_FRAME + ERASE_FRAME)
            self._finish(event.thought, Ink.THOUGHT)
            self._finish(event.text, Ink.SETTLED)
        self._draw()

    def _finish(self, text: str, ink: Ink) -> None:
        """Print the rows that `text` fills. The row it ends in stays in the frame, for the canvas to go on in."""
        if not text:
            return
        if ink is not self._view.tail.ink:
            self._end_row(self._stderr)
            if ink is Ink.SETTLED:
                self._put("\n")
        full, tail = full_rows(self._view.tail.text + printable(text), self._size()[0])
        self._print(full, ink)
        if full and not full.endswith("\n"):
            # The terminal breaks the row here, the text does not: so stdout gets no newline.
            self._put("\n")
        self._view = replace(self._view, tail=InkedText(tail, ink))

    def _end_row(self, newline: TextIO) -> None:
        if self._view.tail.text:
            self._print(self._view.tail.text, self._view.tail.ink)
            newline.write("\n")
            newline.flush()
        self._view = replace(self._view, tail=InkedText("", self._view.tail.ink))

    def _print(self, text: str, ink: Ink) -> None:
        if ink is Ink.SETTLED:
            self._stdout.write(text)
            self._stdout.flush()
        else:
            self._put(self._painted(InkedText(text, ink)))

    def _draw(self) -> None:
        width, height = self._size()
        frame = rows(self._view, width, height, self._clock() - self._began)
        body = "\r\n".join(self._drawn_row(row, width) for row in frame)
        up = f"\x1b[{len(frame) - 1}A" if len(frame) > 1 else ""
        self._put(f"{BEGIN_FRAME}{HIDE_CURSOR}{NO_WRAP}{body}{ERASE_BELOW}{up}\r{WRAP}{END_FRAME}")

    def _drawn_row(self, row: ScreenRow, width: int) -> str:
        # At the end of a full row the cursor is still on its last cell: erasing the rest would erase that.
        rest = ERASE_ROW if row.cells < width else ""
        return "".join(self._painted(span) for span in row.spans) + rest

    def _painted(self, span: InkedText) -> str:
        attributes = self._inks[span.ink]
        return f"\x1b[{attributes}m{span.text}\x1b[m" if attributes else span.text

    def _size(self) -> tuple[int, int]:
        """Columns and rows, asked for every frame; a terminal that does not say has the classic 80 x 24."""
        columns, lines = os.get_terminal_size(self._stderr.fileno())
        return columns or 80, lines or 24

    def _put(self, text: str) -> None:
        self._stderr.write(text)
        self._stderr.flush()


@contextmanager
def _keys_unseen(terminal: TextIO) -> Generator[None, None, None]:
    """Keep what is typed off the screen: it would move the cursor from where the next frame begins.

    While the program is suspended the terminal is the shell's, with a visible cursor; the shell looks after the echo.
    """
    descriptor = terminal.fileno()
    before = termios.tcgetattr(descriptor)
    silent = [*before]
    silent[3] &= ~termios.ECHO

    def suspend(_number: int, _frame: FrameType | None) -> None:
        # Not through the stream: the signal may have come while it was writing.
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


@contextmanager
def passing_note(text: str, stderr: TextIO) -> Generator[None, None, None]:
    """Show one line on a terminal while something takes its time, and nothing afterwards."""
    if not is_screen(stderr):
        yield
        return
    room = max(1, os.get_terminal_size(stderr.fileno()).columns - 1)
    note = wrap([InkedText(printable(text), Ink.STATUS)], room)[0].text
    stderr.write(f"\x1b[2m{note}\x1b[m\r")
    stderr.flush()
    try:
        yield
    finally:
        stderr.write(f"\r{ERASE_ROW}")
        stderr.flush()


def report(stats: Stats, stderr: TextIO) -> None:
    """Print `summary` in one line."""
    line = summary(stats)
    stderr.write(f"\x1b[2m{line}\x1b[m\n" if is_screen(stderr) else f"{line}\n")


def summary(stats: Stats) -> str:
    """The figures of a generation in one line."""
    blocks = f"{stats.blocks} block" + "s" * (stats.blocks != 1)
    peak = stats.peak_memory / 1e9
    return " · ".join(
        (
            f"{stats.tokens} tokens in {blocks}",
            f"{stats.steps / max(1, stats.blocks):.1f} steps/block",
            f"{stats.tokens_per_forward:.1f} tokens/forward",
            f"prefill {stats.prefill_seconds:.2f} s",
            f"first block {stats.seconds_to_first_block:.2f} s",
            f"{stats.seconds_per_step:.3f} s/step",
            f"{stats.tokens_per_second:.1f} tok/s",
            f"peak {peak:.2f} GB" if peak >= 0.1 else f"peak {peak * 1000:.0f} MB",
        )
    )
