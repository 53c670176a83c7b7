"""Which lengths of a gap to try: a few that cover its range first, then those around the best. Pure.

Every length costs a canvas that is denoised for some steps. So a gap of up to 16 possible lengths is tried in all of
them, and a gap of more is first tried in 16 lengths, evenly spaced by their ratio (1, 2, 3, 5, 8, ...), because the
difference between 2 and 3 tokens matters more than that between 102 and 103.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from mlx_diffgemma.infilling.boundaries import TokenGap
from mlx_diffgemma.infilling.windows import Window

_MAX_COARSE_LENGTHS = 16
_MAX_LENGTHS_AROUND = 8


def possible_lengths(gap: TokenGap) -> Sequence[int]:
    """Return the lengths that a gap with a maximum may have: those in which its text can match, ascending."""
    assert gap.max_tokens is not None
    if gap.automaton is None:
        return range(gap.min_tokens, gap.max_tokens + 1)
    return gap.automaton.lengths(gap.state, gap.min_tokens, gap.max_tokens)


def coarse_lengths(gap: TokenGap) -> list[int]:
    """Return the lengths to try first in a gap with a maximum: all possible ones, or some evenly spaced by ratio."""
    lengths = possible_lengths(gap)
    if len(lengths) <= _MAX_COARSE_LENGTHS:
        return list(lengths)
    ratio = lengths[-1] / lengths[0]
    wanted = (round(lengths[0] * ratio ** (step / (_MAX_COARSE_LENGTHS - 1))) for step in range(_MAX_COARSE_LENGTHS))
    # Short lengths are rounded to the same number; each such length is replaced by the next possible one.
    chosen: list[int] = []
    for length in wanted:
        index = max(bisect_left(lengths, length), chosen[-1] + 1 if chosen else 0)
        if index < len(lengths):
            chosen.append(index)
    return [lengths[index] for index in chosen]


def coarse_lengths_per_gap(window: Window) -> list[list[int]]:
    """Return the lengths to try first in each gap of a window.

    The last gap has only one length if it is open, because its end token ends it, or if it goes on in the next canvas.
    """
    *others, last = window.gaps
    assert last.max_tokens is not None
    is_fixed = last.open_ended or window.unfinished
    return [*map(coarse_lengths, others), [last.max_tokens] if is_fixed else coarse_lengths(last)]


def middle_lengths(lengths_per_gap: Sequence[Sequence[int]], budget: int) -> tuple[int, ...]:
    """Return one length per gap whose sum is within `budget`: the middle ones, or shorter ones if those do not fit."""
    for index in range(_MAX_COARSE_LENGTHS // 2, 0, -1):
        chosen = tuple(lengths[min(index, len(lengths) // 2)] for lengths in lengths_per_gap)
        if sum(chosen) <= budget:
            return chosen
    return tuple(lengths[0] for lengths in lengths_per_gap)


def lengths_around(lengths: Sequence[int], tried: Sequence[int], best: int) -> list[int]:
    """Return lengths that were not tried, between the best of those tried and its two neighbours; 8 at most."""
    below = max((length for length in tried if length < best), default=best)
    above = min((length for length in tried if length > best), default=best)
    between = [length for length in lengths if below < length < above and length != best]
    stride = -(-len(between) // _MAX_LENGTHS_AROUND) or 1
    return between[stride // 2 :: stride]
