"""Which part of a template stands in a canvas, and how long its gaps may be. Pure: numbers and ids only.

pieces  -> given: what is only read, and the pieces from where a canvas begins
        -> window: the pieces of one canvas, every hole with a longest length, and the pieces that remain
hole    -> grid: the lengths to try -> nearer: those next to the best
window, a length per hole -> Layout: what is pinned where
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mlx_diffgemma.infilling.boundaries import Hole, Piece, Run

RESERVE = 8
"""A hole must find this part of a canvas free, or its least length, to be denoised together with what is before it."""
CONTEXT = 4
"""This part of a canvas must be left behind a hole, or else no text before the hole stands there."""
LENGTHS, NEARER = 16, 8
"""Lengths to try in one hole, at most, and then between those next to the best."""


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

    spans: where each hole begins and ends among the slots. rest: what remains behind the decided slots; more than of
    the window, where the lengths are such that not all of its text fits.
    """

    slots: tuple[int | None, ...]
    length: int
    spans: tuple[tuple[int, int], ...]
    rest: tuple[Piece, ...]

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
        return list(pairwise(ends))


def leading_text(pieces: Sequence[Piece], room: int, position: int) -> tuple[Run, tuple[Piece, ...]]:
    """The text before the first hole that is only read, and the pieces from there on.

    position: of the first piece in the answer. A canvas begins where it would if the model had written all that is
    before it: every `room` tokens. It has seen few others in training. Where that leaves too little room for the hole
    and what is behind it, the canvas begins at the hole.
    """
    if not pieces or isinstance(pieces[0], Hole):
        return (), tuple(pieces)
    run, rest = pieces[0], tuple(pieces[1:])
    if not rest:
        return run, ()
    kept = (position + len(run)) % room
    roomy = kept + needed(rest[0], room) + room // CONTEXT <= room or (position == 0 and fits(pieces, room))
    if not roomy or not 0 < kept <= len(run):
        return run, rest
    return run[:-kept], (run[-kept:], *rest)


def fits(pieces: Sequence[Piece], room: int) -> bool:
    """Whether a whole template can stand in one canvas of `room` positions."""
    return sum(needed(piece, room) for piece in pieces) <= room


def window(pieces: Sequence[Piece], room: int) -> Window:
    """The pieces that stand in a canvas of `room` positions, from where `given` has it begin.

    Of a hole that is too long, or open, as much stands there as there is room for. Any but the first that is such, or
    does not fit, waits for a canvas of its own.
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
    return max(piece.least, min(room // RESERVE, piece.most or room))


def _remainder(hole: Hole, cut: int) -> list[Hole]:
    """What is left of a hole whose first `cut` tokens stand in a canvas of their own, if anything is."""
    if hole.most is not None and hole.most <= cut:
        return []
    most = None if hole.most is None else hole.most - cut
    return [replace(hole, least=max(0, hole.least - cut), most=most, healed=False)]


def _bounded(taken: Sequence[Piece], room: int, left: int) -> tuple[Piece, ...]:
    """The pieces with a longest length for every hole, such that all can stand before the last run begins.

    Holes of unknown length share what is `left`, or half of the canvas: then less is seen of the text behind them.
    """
    holes = [piece for piece in taken if isinstance(piece, Hole)]
    unknown = sum(hole.most is None for hole in holes)
    budget = hole_budget(taken, room)
    share = max(left, budget // 2) // max(1, unknown)
    spare = budget - sum(hole.least for hole in holes)
    return tuple(
        replace(piece, most=min(piece.least + spare, piece.most or needed(piece, room) + share))
        if isinstance(piece, Hole)
        else piece
        for piece in taken
    )


def hole_budget(pieces: Sequence[Piece], room: int) -> int:
    """Positions that the holes of a window may take together: all but those of the runs before the last hole."""
    last = max(place for place, piece in enumerate(pieces) if isinstance(piece, Hole))
    return room - sum(len(piece) for piece in pieces[:last] if not isinstance(piece, Hole))


def grids(window: Window) -> list[list[int]]:
    """The lengths to try in each hole of a window."""
    *closed, last = window.holes
    assert last.most is not None
    # An open hole is ended by its end token; one that goes on takes what there is.
    is_given = last.open or window.unfinished
    return [*map(grid, closed), [last.most] if is_given else grid(last)]


def grid(hole: Hole) -> list[int]:
    """Lengths to try in a hole that is bounded: all of them if they are few, else evenly spaced by their ratio."""
    lengths = possible(hole)
    if len(lengths) <= LENGTHS:
        return list(lengths)
    first, last = lengths[0], lengths[-1]
    wanted = (round(first * (last / first) ** (step / (LENGTHS - 1))) for step in range(LENGTHS))
    # Short lengths are rounded to the same one; then it is the next.
    places: list[int] = []
    for length in wanted:
        place = max(bisect_left(lengths, length), places[-1] + 1 if places else 0)
        if place < len(lengths):
            places.append(place)
    return [lengths[place] for place in places]


def possible(hole: Hole) -> Sequence[int]:
    """The lengths that a bounded hole may have: of them, those in which its text can match."""
    assert hole.most is not None
    if hole.automaton is None:
        return range(hole.least, hole.most + 1)
    return hole.automaton.lengths(hole.state, hole.least, hole.most)


def middle(grids: Sequence[Sequence[int]], budget: int) -> tuple[int, ...]:
    """A length of each grid, from its middle, or as far before it as the budget asks; the shortest always fit."""
    for place in range(LENGTHS // 2, 0, -1):
        chosen = tuple(lengths[min(place, len(lengths) // 2)] for lengths in grids)
        if sum(chosen) <= budget:
            return chosen
    return tuple(lengths[0] for lengths in grids)


def nearer(lengths: Sequence[int], tried: Sequence[int], best: int) -> list[int]:
    """Of all lengths those between the best of those tried and the ones next to it."""
    below = max((length for length in tried if length < best), default=best)
    above = min((length for length in tried if length > best), default=best)
    between = [length for length in lengths if below < length < above and length != best]
    every = -(-len(between) // NEARER) or 1
    return between[every // 2 :: every]


def arrange(window: Window, lengths: Sequence[int], room: int, pad: int) -> Layout:
    """The slots of a canvas of `room` positions, within the window's `hole_budget`.

    What the window leaves free shows the text behind it; behind the end of the text is padding, as in training.
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
    rest = window.rest
    behind: Run = tuple(token for token in slots[room:] if token is not None)
    length = min(len(slots), room)
    if rest and not isinstance(rest[0], Hole):
        behind, rest = (*behind, *rest[0]), rest[1:]
    slots = [*slots[:length], *behind]
    if not rest and not window.holes[-1].open:
        slots += [pad] * (room - len(slots))
    return Layout(
        slots=tuple(slots[:room]), length=length, spans=tuple(spans), rest=(behind, *rest) if behind else rest
    )
