"""What a terminal shows below the finished text, as rows of cells: pure, so that tests compare exact text.

    event -> advance(view, event) -> View -> rows(view, width, height, seconds) -> [Row, ...]

Rows break exactly where a terminal breaks a long line, by cells and not by words: so nothing moves when a block
is finished and its rows become ordinary text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from enum import Enum, auto
from itertools import groupby
from typing import NamedTuple

from rich.cells import cell_len

from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event, Finished, GapFilled, Prefilled

TAB = 8
JOINER = "\u200d"
REPLACEMENT = "\ufffd"

SHIMMERING, SETTLING = "▓▒▓", "▒░░"
"""Glyphs of noise whose most likely token still changes, and of noise whose does not."""
WORD = 12
"""Cells of noise drawn for one position at most: a token can be a long run of blanks or dashes."""

# Escape sequences and overrides of the writing direction would let a model rewrite the screen around its text.
_HOSTILE = [*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_PRINTABLE: dict[int, str | None] = {code: REPLACEMENT for code in _HOSTILE if chr(code) not in "\n\t"}
_PRINTABLE[ord("\r")] = None


class Ink(Enum):
    """How a character is drawn."""

    SETTLED = auto()
    PINNED = auto()
    CHANGED = auto()
    NOISE = auto()
    THOUGHT = auto()
    STATUS = auto()


class InkedText(NamedTuple):
    """A run of text in one ink."""

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


NOTHING = InkedText("", Ink.SETTLED)


@dataclass(frozen=True, kw_only=True)
class View:
    """All that a frame is drawn from.

    tail: finished text of a row that is not full yet; the canvas goes on right after it.
    canvas: one span per position, up to the end of the answer. accepted: positions accepted in the last step.
    status: the parts of the status line, most important first. committed: tokens of the finished blocks.
    """

    tail: InkedText = NOTHING
    canvas: tuple[InkedText, ...] = ()
    accepted: tuple[bool, ...] = ()
    status: tuple[str, ...] = ("reading the prompt",)
    committed: int = 0

    @property
    def tokens(self) -> int:
        """Finished tokens and those settled so far."""
        return self.committed + sum(span.ink not in (Ink.NOISE, Ink.PINNED) for span in self.canvas)


def printable(text: str) -> str:
    """`text` without what could move the cursor or turn the writing direction; newlines and tabs stay."""
    return text.translate(_PRINTABLE)


def advance(view: View, event: Event) -> View:
    """The view after `event`. The tail is left alone: it changes with what the display prints."""
    match event:
        case Prefilled(done=done, total=total):
            return replace(view, status=(f"reading the prompt {done}/{total}",))
        case CanvasStarted(block=block):
            return replace(view, canvas=_static(event), accepted=(), status=(f"block {block + 1}",))
        case Denoised():
            canvas = _canvas(event, view.accepted)
            return replace(view, canvas=canvas, accepted=event.accepted, status=_status(event))
        case BlockCommitted(tokens=tokens, steps=steps):
            # Text that was given is nothing that the model has written.
            written = len(tokens) - sum(span.ink is Ink.PINNED for span in view.canvas) if steps else 0
            return replace(view, canvas=(), accepted=(), committed=view.committed + written)
        case GapFilled() | Finished():
            return view


def _status(event: Denoised) -> tuple[str, ...]:
    free = [sure for n, sure in enumerate(event.accepted) if not (event.pinned and event.pinned[n])]
    settled = sum(free) / max(1, len(free))
    return (
        f"block {event.block + 1}",
        f"step {event.step}/{event.max_steps}",
        f"entropy {event.mean_entropy:.3f}",
        f"settled {settled:.0%}",
    )


def _static(event: CanvasStarted) -> tuple[InkedText, ...]:
    """A canvas before its first step: random tokens have random lengths. What is pinned stands there already."""
    return tuple(
        InkedText(printable(event.pieces[n]), Ink.PINNED)
        if event.pinned and event.pieces and event.pinned[n]
        else InkedText(_noise(" " * (token % 5), n, True), Ink.NOISE)
        for n, token in enumerate(event.canvas)
    )


def _canvas(event: Denoised, before: tuple[bool, ...]) -> tuple[InkedText, ...]:
    """One span per position; text is new to the eye where its token changed and where noise was a step ago."""
    pieces = event.pieces or ("",) * len(event.best)
    length = len(pieces) if event.end is None or not event.accepted[event.end] else event.end
    spans: list[InkedText] = []
    for n, piece in enumerate(pieces[:length]):
        if event.pinned and event.pinned[n]:
            spans.append(InkedText(printable(piece), Ink.PINNED))
        elif not event.accepted[n]:
            spans.append(InkedText(_noise(piece, n, event.changed[n]), Ink.NOISE))
        elif event.changed[n] or not (n < len(before) and before[n]):
            spans.append(InkedText(printable(piece), Ink.CHANGED))
        else:
            spans.append(InkedText(printable(piece), Ink.THOUGHT if n < event.thought else Ink.SETTLED))
    return tuple(spans)


def _noise(piece: str, position: int, changed: bool) -> str:
    """Unreadable text in the shape of `piece`, so that a canvas keeps its shape when noise snaps into text.

    A leading blank and newlines at the end stay: they make words and lines. Every position has a pattern of its own.
    """
    line = piece.rstrip("\n")
    body = line.strip(" ") or line[1:]
    blank = " " if line[:1] == " " and line != body else ""
    cells = max(1, min(WORD, sum(_cells(body[start:end]) for start, end in clusters(body))))
    glyphs = SHIMMERING if changed else SETTLING
    noise = "".join(glyphs[(position * 7 + n * 5 + (position * n) % 11) % 3] for n in range(cells))
    return blank + noise + piece[len(line) :]


def rows(view: View, width: int, height: int, seconds: float) -> list[ScreenRow]:
    """The frame on a terminal of `width` x `height` cells, `seconds` into the generation.

    At most height - 1 rows, the last one the status line; of a canvas that is taller, the window around its first
    row that is not settled.
    """
    room = max(1, height - 1) - 1
    spans = [span for span in (view.tail, *view.canvas) if span.text]
    body = wrap(spans, width) if spans else []
    unsettled = (n for n, row in enumerate(body) if any(span.ink is Ink.NOISE for span in row.spans))
    top = max(0, min(next(unsettled, len(body)) - room // 3, len(body) - room))
    return [*body[top : top + room], _status_row(view, width, seconds)]


def _status_row(view: View, width: int, seconds: float) -> ScreenRow:
    """As many whole parts as fit, always the first one; the last cell stays free."""
    parts = view.status
    if view.tokens and seconds > 0:
        parts = (*parts, f"{view.tokens / seconds:.1f} tok/s")
    line = parts[0][: max(0, width - 1)]
    for part in parts[1:]:
        if len(line) + len(part) + 3 >= width:
            break
        line += f" · {part}"
    return ScreenRow((InkedText(line, Ink.STATUS),), len(line))


def wrap(spans: Iterable[InkedText], width: int) -> list[ScreenRow]:
    """`spans` as the rows a terminal `width` cells wide makes of them."""
    spans = list(spans)
    text = "".join(span.text for span in spans)
    inks = [span.ink for span in spans for _ in span.text]
    starts = _row_starts(text, width)
    return [
        _row(text[start:end], inks[start:end], width)
        for start, end in zip(starts, [*starts[1:], len(text)], strict=True)
    ]


def full_rows(text: str, width: int) -> tuple[str, str]:
    """Split finished text into its full rows and the row that later text goes on in."""
    last = _row_starts(text, width)[-1]
    return text[:last], text[last:]


def _row_starts(text: str, width: int) -> list[int]:
    starts, column = [0], 0
    for start, end in clusters(text):
        if text[start] == "\n":
            starts.append(end)
            column = 0
            continue
        cells = _advance(text[start:end], column, width)
        if column and column + cells > width:
            starts.append(start)
            column = 0
        column += cells
    return starts


def _row(text: str, inks: list[Ink], width: int) -> ScreenRow:
    drawn: list[InkedText] = []
    column = 0
    for start, end in clusters(text.removesuffix("\n")):
        cells = _advance(text[start:end], column, width)
        drawn.append(InkedText(" " * cells if text[start] == "\t" else text[start:end], inks[start]))
        column += cells
    runs = ((ink, "".join(span.text for span in run)) for ink, run in groupby(drawn, lambda span: span.ink))
    return ScreenRow(tuple(InkedText(run, ink) for ink, run in runs), column)


def _advance(cluster: str, column: int, width: int) -> int:
    """Cells by which `cluster` moves the cursor; a tab stops at the last column and never wraps."""
    if cluster == "\t":
        return min(TAB - column % TAB, max(0, width - 1 - column))
    return _cells(cluster)


def _cells(cluster: str) -> int:
    # A family of four is one emoji: terminals that join at all draw every cluster in at most two cells.
    return min(2, cell_len(cluster))


def clusters(text: str) -> Iterator[tuple[int, int]]:
    """Where each character begins and ends, with its marks and joined emoji; newlines and tabs stand alone."""
    start = 0
    for n in range(1, len(text)):
        alone = text[start] in "\n\t" or text[n] in "\n\t"
        if alone or not (text[n - 1] == JOINER or cell_len(text[n]) == 0):
            yield start, n
            start = n
    if text:
        yield start, len(text)
