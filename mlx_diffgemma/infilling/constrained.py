"""Gaps that must match something: how long they can be, and what their part in each canvas must hold to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlx_diffgemma.errors import ConstraintError
from mlx_diffgemma.infilling.boundaries import Hole, Piece
from mlx_diffgemma.infilling.windows import Layout, Window, possible
from mlx_diffgemma.sampling.constrained import ConstrainedSpan


def bounded(hole: Hole, limit: int) -> Hole:
    """A hole with a longest length if it needs one, and the shortest in which its text can match.

    limit: the longest where the hole says nothing. Raises ConstraintError where no length will do.
    """
    if hole.most is None and (hole.open or hole.automaton is not None):
        hole = replace(hole, most=max(hole.least, limit))
    if hole.automaton is None:
        return hole
    lengths = possible(hole)
    if not lengths:
        wanted = hole.least if hole.least == hole.most else f"{hole.least} to {hole.most}"
        raise ConstraintError(f"what a gap must match has no text of {wanted} tokens: give the gap another length")
    return replace(hole, least=lengths[0])


def constrained_spans(window: Window, chosen: Layout) -> tuple[ConstrainedSpan, ...]:
    """What the holes of a window must hold to, with the lengths that were chosen."""
    *_, last = window.holes
    behind = window.rest[0] if window.unfinished else None
    spans: list[ConstrainedSpan] = []
    for hole, (start, stop) in zip(window.holes, chosen.free_spans, strict=True):
        if hole.automaton is None:
            continue
        room = stop - start
        least = hole.least if hole.open else room
        if hole is last and isinstance(behind, Hole):
            least, room = hole.least + behind.least, room + (behind.most or 0)
        span = ConstrainedSpan(
            automaton=hole.automaton,
            state=hole.state,
            positions=slice(start, stop),
            min_tokens=least,
            max_tokens=room,
        )
        spans.append(span)
    return tuple(spans)


def remaining(window: Window, chosen: Layout, best: Sequence[int]) -> tuple[Piece, ...]:
    """The pieces behind a canvas that became `best`: a hole that goes on does so from the state behind its part."""
    rest, hole = chosen.rest, window.holes[-1]
    if not window.unfinished or hole.automaton is None or not isinstance(rest[0], Hole):
        return rest
    state = hole.automaton.after(hole.state, best[slice(*chosen.spans[-1])])
    goes_on = replace(rest[0], state=state)
    return (bounded(goes_on, goes_on.most or 0), *rest[1:])
