"""Which part of a template stands in a canvas, and how long its gaps may be. Pure: numbers and ids only.

    pieces  -> window: the pieces of one canvas, every hole with a longest length, and the pieces that remain
    hole    -> grid: the lengths to try
    window, a length per hole -> Layout: what is pinned where
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain

from mlx_diffgemma.joints import Hole, Piece, Run

RESERVE = 8
"""A hole of unknown length must find this part of a canvas free, to be denoised together with what is before it."""
LENGTHS = 8
"""Lengths to try in one hole, at most."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """What one canvas decides: holes and the runs around them; and what remains, of which it may see the beginning."""

    pieces: tuple[Piece, ...]
    rest: tuple[Piece, ...]
    unfinished: bool = False
    """Its last hole goes on in the rest."""

    @property
    def holes(self) -> list[Hole]:
        """The gaps, in order."""
        return [piece for piece in self.pieces if isinstance(piece, Hole)]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A window with lengths chosen: `slots` has tokens and None where it is free, of which `length` are decided.

    spans: where each hole begins and ends among the slots.
    """

    slots: tuple[int | None, ...]
    length: int
    spans: tuple[tuple[int, int], ...]

    @property
    def free(self) -> int:
        """Free slots."""
        return sum(stop - start for start, stop in self.spans)

    @property
    def pinned(self) -> tuple[bool, ...]:
        """Which of the decided slots are pinned."""
        return tuple(slot is not None for slot in self.slots[: self.length])

    @property
    def free_spans(self) -> list[tuple[int, int]]:
        """The same, counted among the free slots."""
        ends = [0]
        for start, stop in self.spans:
            ends.append(ends[-1] + stop - start)
        return list(zip(ends[:-1], ends[1:], strict=True))


def fits(pieces: Sequence[Piece], room: int) -> bool:
    """Whether a whole template can stand in one canvas of `room` positions."""
    return sum(needed(piece, room) for piece in pieces) <= room


def window(pieces: Sequence[Piece], room: int) -> Window:
    """The pieces that stand in a canvas of `room` positions; they begin with a hole, or fit.

    Of a hole that is too long, or open, as much stands there as there is room for. Any but the first that is such, or
    does not fit whole, waits for a canvas of its own. Holes of unknown length share what is left.
    """
    taken: list[Piece] = []
    rest = list(pieces)
    left, first, unfinished = room, True, False
    while rest and left:
        piece = rest.pop(0)
        own = min(left, needed(piece, room))
        if not isinstance(piece, Hole):
            taken.append(piece[:left])
            rest[:0] = [piece[left:]] if len(piece) > left else []
        elif not first and (piece.open or needed(piece, room) > left):
            rest.insert(0, piece)
            break
        elif piece.open or piece.least > left:
            own = left if piece.most is None else min(left, piece.most)
            taken.append(replace(piece, least=min(piece.least, own), most=own))
            rest[:0] = remainder = _remainder(piece, own)
            unfinished = bool(remainder)
        else:
            taken.append(piece)
        first = first and not isinstance(piece, Hole)
        left -= own
    return Window(pieces=_bounded(taken, room, left), rest=tuple(rest), unfinished=unfinished)


def needed(piece: Piece, room: int) -> int:
    """Positions that a piece must find free in a canvas of `room`; more, where it needs several."""
    if not isinstance(piece, Hole):
        return len(piece)
    return max(piece.least, room // RESERVE) if piece.most is None or piece.open else piece.most


def _remainder(hole: Hole, cut: int) -> list[Piece]:
    """What is left of a hole whose first `cut` tokens stand in a canvas of their own, if anything is."""
    if hole.most is not None and hole.most <= cut:
        return []
    most = None if hole.most is None else hole.most - cut
    return [replace(hole, least=max(0, hole.least - cut), most=most, healed=False)]


def _bounded(taken: Sequence[Piece], room: int, left: int) -> tuple[Piece, ...]:
    """The pieces with a longest length for every hole."""
    unknown = sum(isinstance(piece, Hole) and piece.most is None for piece in taken)
    share = left // max(1, unknown)
    return tuple(
        replace(piece, most=min(room, piece.most or needed(piece, room) + share)) if isinstance(piece, Hole) else piece
        for piece in taken
    )


def grid(hole: Hole) -> list[int]:
    """Lengths to try in a hole that is bounded: all of them if they are few, else evenly spaced by their ratio."""
    assert hole.most is not None
    # An open hole is ended by its end token.
    if hole.open:
        return [hole.most]
    span = hole.most - hole.least
    if span < LENGTHS:
        return list(range(hole.least, hole.most + 1))
    steps = (round(hole.least * (hole.most / hole.least) ** (step / (LENGTHS - 1))) for step in range(LENGTHS))
    # Short lengths are rounded to the same one; then it is the next.
    lengths: list[int] = []
    for length in steps:
        lengths.append(max(length, lengths[-1] + 1 if lengths else 0))
    return lengths


def layout(window: Window, lengths: Sequence[int], room: int, pad: int) -> Layout:
    """The slots of a canvas of `room` positions; what the window leaves free shows what stands behind it.

    Behind the end of a text that is padding, as in training.
    """
    remaining = iter(lengths)
    slots: list[int | None] = []
    spans: list[tuple[int, int]] = []
    for piece in window.pieces:
        if isinstance(piece, Hole):
            count = next(remaining)
            spans.append((len(slots), len(slots) + count))
            slots += [None] * count
        else:
            slots += piece
    length = len(slots)
    behind: Run = tuple(chain(*[piece for piece in window.rest[:1] if not isinstance(piece, Hole)]))
    if not window.rest and not window.holes[-1].open:
        behind = (pad,) * (room - length)
    slots += behind[: room - length]
    return Layout(slots=tuple(slots), length=length, spans=tuple(spans))
