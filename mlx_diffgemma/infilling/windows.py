"""Which part of a template one canvas holds. Pure: only numbers and token ids.

    token parts --split_leading_text--> text that is only read, and the parts from where a canvas begins
                --next_window---------> Window: the parts of one canvas, and the rest
    Window, a length for each gap --lay_out--> Layout: what is pinned at which position

`capacity` is the number of positions of a canvas.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from mlx_diffgemma.infilling.boundaries import PinnedTokens, TokenGap, TokenPart

_GAP_RESERVE = 8
"""A gap of unknown length needs an eighth of a canvas, to be denoised together with the parts before it."""
_RESERVE_AFTER = 4
"""A canvas begins with text before a gap only if a quarter of it is left for what follows the gap."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """The parts of one canvas, and the parts after them, of which the canvas may show the beginning."""

    parts: tuple[TokenPart, ...]
    rest: tuple[TokenPart, ...]
    unfinished: bool = False
    """its last gap goes on as the first part of the rest"""

    @property
    def gaps(self) -> list[TokenGap]:
        """The gaps, in order."""
        return [part for part in self.parts if isinstance(part, TokenGap)]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A canvas for a window with a chosen length for each gap."""

    slots: tuple[int | None, ...]
    """a pinned token, or None at a free position, for every position"""
    length: int
    """how many leading positions belong to the window; the others show text that follows, and are decided later"""
    spans: tuple[tuple[int, int], ...]
    """the positions of each gap: the first, and the one after the last"""
    rest: tuple[TokenPart, ...]
    """what remains after the window; if long gaps push some of its text out of the canvas, that text too"""

    @property
    def free(self) -> int:
        """The number of free positions."""
        return sum(stop - start for start, stop in self.spans)

    @property
    def pinned(self) -> tuple[bool, ...]:
        """For each position of the window, whether it is pinned."""
        return tuple(slot is not None for slot in self.slots[: self.length])

    @property
    def free_spans(self) -> list[tuple[int, int]]:
        """The range of each gap among the free positions alone."""
        ends = [0]
        for start, stop in self.spans:
            ends.append(ends[-1] + stop - start)
        return list(pairwise(ends))


def split_leading_text(
    parts: Sequence[TokenPart], capacity: int, position: int
) -> tuple[PinnedTokens, tuple[TokenPart, ...]]:
    """Split off the text that is only read, and never in a canvas; the next canvas begins with the other parts.

    position: the number of tokens of the answer before `parts`.

    A canvas begins where it would if the model had written the text before it: at a multiple of `capacity`, as in
    training. If that leaves too little of the canvas for the gap and what follows, it begins at the gap.
    """
    if not parts or isinstance(parts[0], TokenGap):
        return (), tuple(parts)
    text, rest = parts[0], tuple(parts[1:])
    if not rest:
        return text, ()
    kept = (position + len(text)) % capacity
    is_roomy = kept + positions_needed(rest[0], capacity) + capacity // _RESERVE_AFTER <= capacity
    is_roomy = is_roomy or (position == 0 and fits(parts, capacity))
    if not is_roomy or not 0 < kept <= len(text):
        return text, rest
    return text[:-kept], (text[-kept:], *rest)


def fits(parts: Sequence[TokenPart], capacity: int) -> bool:
    """Return whether a whole template fits in one canvas."""
    return sum(positions_needed(part, capacity) for part in parts) <= capacity


def positions_needed(part: TokenPart, capacity: int) -> int:
    """Return how many positions a part needs; more than `capacity` if it needs several canvases."""
    if not isinstance(part, TokenGap):
        return len(part)
    return max(part.min_tokens, min(capacity // _GAP_RESERVE, part.max_tokens or capacity))


def next_window(parts: Sequence[TokenPart], capacity: int) -> Window:
    """Return the window of the next canvas, which begins with `parts`.

    Of a gap that is too long for the canvas, or open, the window holds as much as fits, if it is the first gap. A later
    gap that is open or does not fit waits for a canvas of its own.
    """
    taken: list[TokenPart] = []
    rest = list(parts)
    left, is_first_gap, unfinished = capacity, True, False
    while rest and left:
        part = rest.pop(0)
        count = min(left, positions_needed(part, capacity))
        if not isinstance(part, TokenGap):
            taken.append(part[:left])
            rest[:0] = [part[left:]] if len(part) > left else []
        elif not is_first_gap and (part.open_ended or positions_needed(part, capacity) > left):
            rest.insert(0, part)
            break
        elif part.open_ended or part.min_tokens > left:
            count = left if part.max_tokens is None else min(left, part.max_tokens)
            taken.append(replace(part, min_tokens=min(part.min_tokens, count), max_tokens=count))
            rest[:0] = continued = _gap_after(part, count)
            unfinished = bool(continued)
        else:
            taken.append(part)
        is_first_gap = is_first_gap and not isinstance(part, TokenGap)
        left -= count
    return Window(parts=_with_max_tokens(taken, capacity, left), rest=tuple(rest), unfinished=unfinished)


def _gap_after(gap: TokenGap, count: int) -> list[TokenGap]:
    """Return the rest of a gap whose first `count` tokens are in an earlier canvas: an empty list if there is none."""
    if gap.max_tokens is not None and gap.max_tokens <= count:
        return []
    maximum = None if gap.max_tokens is None else gap.max_tokens - count
    return [replace(gap, min_tokens=max(0, gap.min_tokens - count), max_tokens=maximum, absorbs_space=False)]


def _with_max_tokens(taken: Sequence[TokenPart], capacity: int, left: int) -> tuple[TokenPart, ...]:
    """Give every gap a maximum length, so that the last gap ends inside the canvas.

    Gaps of unknown length divide the `left` positions among them, or half of the gaps' budget if that is more; then the
    canvas shows less of the text after them.
    """
    gaps = [part for part in taken if isinstance(part, TokenGap)]
    unknown = sum(gap.max_tokens is None for gap in gaps)
    budget = gap_budget(taken, capacity)
    extra = max(left, budget // 2) // max(1, unknown)
    spare = budget - sum(gap.min_tokens for gap in gaps)

    def limited(gap: TokenGap) -> TokenGap:
        wanted = gap.max_tokens or positions_needed(gap, capacity) + extra
        return replace(gap, max_tokens=min(gap.min_tokens + spare, wanted))

    return tuple(limited(part) if isinstance(part, TokenGap) else part for part in taken)


def gap_budget(parts: Sequence[TokenPart], capacity: int) -> int:
    """Return how many positions the gaps of a window may have together: all but the text before the last gap."""
    last = max(number for number, part in enumerate(parts) if isinstance(part, TokenGap))
    return capacity - sum(len(part) for part in parts[:last] if not isinstance(part, TokenGap))


def lay_out(window: Window, lengths: Sequence[int], capacity: int, pad: int) -> Layout:
    """Return the canvas of a window with one length for each gap; together they are within the `gap_budget`.

    Positions after the window show the text that follows it, and after the end of the text they are padding, as in
    training.
    """
    remaining_lengths = iter(lengths)
    slots: list[int | None] = []
    spans: list[tuple[int, int]] = []
    for part in window.parts:
        if isinstance(part, TokenGap):
            count = next(remaining_lengths)
            spans.append((len(slots), len(slots) + count))
            slots += [None] * count
        else:
            slots += part
    rest = window.rest
    following: PinnedTokens = tuple(token for token in slots[capacity:] if token is not None)
    length = min(len(slots), capacity)
    if rest and not isinstance(rest[0], TokenGap):
        following, rest = (*following, *rest[0]), rest[1:]
    slots = [*slots[:length], *following]
    if not rest and not window.gaps[-1].open_ended:
        slots += [pad] * (capacity - len(slots))
    return Layout(
        slots=tuple(slots[:capacity]),
        length=length,
        spans=tuple(spans),
        rest=(following, *rest) if following else rest,
    )
