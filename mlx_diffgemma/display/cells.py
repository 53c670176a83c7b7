"""How a terminal breaks text into rows of cells.

    spans of text, each in one ink -> wrap -> rows

A row breaks where a terminal breaks a long line: after so many cells, not between words. So nothing moves when a block
is finished and its rows become ordinary text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import Enum, auto
from itertools import groupby
from typing import NamedTuple

from wcwidth import iter_graphemes, wcswidth

_TAB = 8
_REPLACEMENT = "\ufffd"

# Escape sequences and overrides of the writing direction would let a model rewrite the screen around its text.
_HOSTILE = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_PRINTABLE: dict[int, str | None] = {code: _REPLACEMENT for code in _HOSTILE if chr(code) not in "\n\t"}
_PRINTABLE[ord("\r")] = None


class Ink(Enum):
    """How a character is drawn."""

    FINISHED = auto()
    """text of finished blocks, and of accepted positions whose token did not change in the last step"""
    PINNED = auto()
    """text that the caller wrote: it is around the gaps of a template"""
    CHANGED = auto()
    """an accepted position that was noise a step ago, or had another token"""
    NOISE = auto()
    """a position that is not accepted"""
    THOUGHT = auto()
    """the model's thinking"""
    STATUS = auto()
    """words of the program itself"""


class InkedText(NamedTuple):
    """Text in one ink."""

    text: str
    ink: Ink


class ScreenRow(NamedTuple):
    """One row of the screen: no newline, tabs as blanks, `cells` wide."""

    spans: tuple[InkedText, ...]
    cells: int

    @property
    def text(self) -> str:
        """The row without its inks."""
        return "".join(span.text for span in self.spans)


def printable(text: str) -> str:
    """Replace what could move the cursor or turn the writing direction; newlines and tabs stay."""
    return text.translate(_PRINTABLE)


def graphemes(text: str) -> Iterator[tuple[str, int]]:
    """Yield each character together with its marks (or emoji joined to it), and its width in cells.

    A newline and a tab are characters of width 0.
    """
    for grapheme in iter_graphemes(text):
        # wcswidth has -1 for control characters.
        yield grapheme, max(0, wcswidth(grapheme))


def wrap(spans: Iterable[InkedText], width: int) -> list[ScreenRow]:
    """Break printable text into the rows that a terminal `width` cells wide makes of it."""
    spans = list(spans)
    text = "".join(span.text for span in spans)
    inks = [span.ink for span in spans for _ in span.text]
    starts = _row_starts(text, width)
    ends = [*starts[1:], len(text)]
    return [_row(text[start:end], inks[start:end], width) for start, end in zip(starts, ends, strict=True)]


def split_last_row(text: str, width: int) -> tuple[str, str]:
    """Split printable text into the rows that are full and the last row, which later text continues."""
    last = _row_starts(text, width)[-1]
    return text[:last], text[last:]


def _row_starts(text: str, width: int) -> list[int]:
    """Return the index in `text` of every row's first character."""
    starts, index, column = [0], 0, 0
    for grapheme, cells in graphemes(text):
        begin, index = index, index + len(grapheme)
        if grapheme == "\n":
            starts.append(index)
            column = 0
            continue
        step = _cursor_step(grapheme, cells, column, width)
        if column and column + step > width:
            starts.append(begin)
            column = 0
        column += step
    return starts


def _row(text: str, inks: list[Ink], width: int) -> ScreenRow:
    """Build one row; a character has the ink of its first code point."""
    drawn: list[InkedText] = []
    index = column = 0
    for grapheme, cells in graphemes(text.removesuffix("\n")):
        step = _cursor_step(grapheme, cells, column, width)
        drawn.append(InkedText(" " * step if grapheme == "\t" else grapheme, inks[index]))
        index += len(grapheme)
        column += step
    runs = ((ink, "".join(span.text for span in run)) for ink, run in groupby(drawn, lambda span: span.ink))
    return ScreenRow(tuple(InkedText(run, ink) for ink, run in runs), column)


def _cursor_step(grapheme: str, cells: int, column: int, width: int) -> int:
    """Return by how many cells `grapheme` moves the cursor; a tab stops at the last column and never wraps."""
    if grapheme == "\t":
        return min(_TAB - column % _TAB, max(0, width - 1 - column))
    return cells
