"""A row on a terminal that says how much of some work is done.

It goes to stderr alone and is erased at the end, whatever ends the work; stdout stays the results'. Without a terminal
there is no row. The cursor waits at its beginning, so that a line that something else prints goes over it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Protocol, TextIO, TypeVar

from mlx_diffgemma.display.cells import Ink, InkedText, printable, wrap
from mlx_diffgemma.display.terminal import ERASE_ROW, is_screen

_Item = TypeVar("_Item")
_BAR = 20
"""Cells of the bar itself."""
_PAUSE = 0.05
"""Seconds between two drawings at least."""


class Progress(Protocol):
    """Passes items on and shows what is being done with them, and how many of their number have passed."""

    def __call__(self, doing: str, items: Iterable[_Item], total: int, /) -> Iterable[_Item]: ...


def no_progress(_doing: str, items: Iterable[_Item], _total: int, /) -> Iterable[_Item]:
    """Pass items on and show nothing: a Progress."""
    return items


def bar_row(label: str, done: int, total: int, *, width: int, left: float | None = None, unit: str = "") -> str:
    """Return the row in at most `width` cells: label, count, bar and the seconds that are left, as far as they fit.

    left: None if nothing is known about the time. A total of 0 is unknown: the row is the label.
    """
    count = f"  {done:,}/{total:,}{unit}" if total else ""
    row = wrap([InkedText(printable(label), Ink.STATUS)], max(1, width - len(count)))[0].text
    if not total:
        return row
    full = _BAR * min(done, total) // total
    parts = [count, "  " + "━" * full + "─" * (_BAR - full)]
    if left is not None:
        parts.append(f"  {_clock_time(left)} left")
    for part in parts:
        if len(row) + len(part) > width:
            break
        row += part
    return row


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Bar:
    """A context in which the row of some work is shown."""

    def __init__(
        self,
        label: str,
        total: int,
        stderr: TextIO,
        *,
        done: int = 0,
        unit: str = "",
        shown: bool = True,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """total: 0 if it is unknown. done: what was done before, which says nothing about the speed. unit: of both."""
        self._label, self._total, self._done, self._unit = label, total, done, unit
        self._before = done
        self._stderr = stderr
        self._shown = shown and is_screen(stderr)
        self._clock = clock
        self._began = clock()
        self._drawn = -_PAUSE

    def __enter__(self) -> Bar:
        self._draw()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._erase()

    def passing(self, doing: str, items: Iterable[_Item], total: int, /) -> Iterator[_Item]:
        """Pass items on and count them, as a Progress does; afterwards the row still says what was done."""
        self._label, self._total, self._before, self._began = doing, total, 0, self._clock()
        for done, item in enumerate(items):
            self.show(done)
            yield item
        self._done = total
        self._draw()

    def show(self, done: int, label: str | None = None) -> None:
        """Show how much is done, and a new label."""
        self._done, self._label = done, self._label if label is None else label
        if self._clock() - self._drawn >= _PAUSE:
            self._draw()

    @contextmanager
    def hidden(self) -> Generator[None]:
        """Take the row off the screen while something else is printed."""
        self._erase()
        yield
        self._draw()

    def _draw(self) -> None:
        if not self._shown:
            return
        self._drawn = self._clock()
        advanced = self._done - self._before
        left = (self._drawn - self._began) / advanced * (self._total - self._done) if advanced > 0 else None
        # The last cell stays free: a terminal would break the row after it.
        width = (os.get_terminal_size(self._stderr.fileno()).columns or 80) - 1
        row = bar_row(self._label, self._done, self._total, width=width, left=left, unit=self._unit)
        self._stderr.write(f"\x1b[2m{row}\x1b[m{ERASE_ROW}\r")
        self._stderr.flush()

    def _erase(self) -> None:
        if self._shown:
            self._stderr.write(f"\r{ERASE_ROW}")
            self._stderr.flush()
