"""Stop strings in a text that grows: where the first one is, and what cannot be shown before that is decided."""

from __future__ import annotations

from collections.abc import Sequence
from typing import AnyStr, NamedTuple


class Match(NamedTuple):
    """Where a stop string was found: from `start` up to `end`."""

    start: int
    end: int


def first_match(text: AnyStr, stops: Sequence[AnyStr]) -> Match | None:
    """Return the match that ends first and, of those that end there, starts first; None if there is none.

    Works on texts and on bytes. No stop string is empty.
    """
    found = [Match(start, start + len(stop)) for stop in stops if (start := text.find(stop)) >= 0]
    return min(found, key=lambda match: (match.end, match.start), default=None)


def undecided_length(text: AnyStr, stops: Sequence[AnyStr]) -> int:
    """Return how long the longest end of a text is with which a stop string begins that is not complete."""
    longest = min(len(text), max(map(len, stops), default=1) - 1)
    lengths = range(longest, 0, -1)
    return next((length for length in lengths if any(stop[:length] == text[-length:] for stop in stops)), 0)


class UntilStop:
    """Passes the text of an answer on up to the first stop string, each part once and as soon as it is decided."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = stops
        self.held = ""
        """what is not passed on yet"""
        self._is_over = False

    def take(self, text: str, *, last: bool) -> str:
        """Take what is added to the answer, and return what is decided. last: the answer ends here."""
        if self._is_over:
            return ""
        text, self.held = self.held + text, ""
        match = first_match(text, self._stops)
        if match is not None:
            self._is_over = True
            return text[: match.start]
        shown = len(text) - (0 if last else undecided_length(text, self._stops))
        self.held = text[shown:]
        return text[:shown]

    def cut(self, pieces: tuple[str, ...], thought: int) -> tuple[str, tuple[str, ...]]:
        """Return what is held and the pieces of a draft, with nothing from the first stop string on.

        The first `thought` pieces are thinking.
        """
        match = first_match(self.held + "".join(pieces[thought:]), self._stops)
        if match is None:
            return self.held, pieces
        room = max(0, match.start - len(self.held))
        kept: list[str] = list(pieces[:thought])
        for piece in pieces[thought:]:
            kept.append(piece[:room])
            room -= len(kept[-1])
        return self.held[: match.start], tuple(kept)
