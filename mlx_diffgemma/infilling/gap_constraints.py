"""Gaps whose text must match something: their lengths, what each canvas must keep, and the state between canvases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlx_diffgemma.errors import ConstraintError
from mlx_diffgemma.infilling.boundaries import TokenGap, TokenPart
from mlx_diffgemma.infilling.lengths import possible_lengths
from mlx_diffgemma.infilling.windows import Layout, Window
from mlx_diffgemma.sampling.constrained import ConstrainedSpan


def with_length_limits(gap: TokenGap, longest: int) -> TokenGap:
    """Give a gap the limits of length that follow from its constraint.

    Its maximum becomes `longest` if it has none but needs one, and its minimum the shortest length in which a text can
    match. Raises ConstraintError if no text of any allowed length matches.
    """
    if gap.max_tokens is None and (gap.open_ended or gap.automaton is not None):
        gap = replace(gap, max_tokens=max(gap.min_tokens, longest))
    if gap.automaton is None:
        return gap
    lengths = possible_lengths(gap)
    if not lengths:
        wanted = gap.min_tokens if gap.min_tokens == gap.max_tokens else f"{gap.min_tokens} to {gap.max_tokens}"
        raise ConstraintError(f"what a gap must match has no text of {wanted} tokens: give the gap another length")
    return replace(gap, min_tokens=lengths[0])


def constrained_spans(window: Window, layout: Layout) -> tuple[ConstrainedSpan, ...]:
    """Return the constraints of the gaps of a canvas, each for its range among the free positions.

    A gap that goes on in the next canvas must be able to end there, within the limits of its other part.
    """
    last = window.gaps[-1]
    continued = window.rest[0] if window.unfinished else None
    spans: list[ConstrainedSpan] = []
    for gap, (start, stop) in zip(window.gaps, layout.free_spans, strict=True):
        if gap.automaton is None:
            continue
        maximum = stop - start
        minimum = gap.min_tokens if gap.open_ended else maximum
        if gap is last and isinstance(continued, TokenGap):
            minimum = gap.min_tokens + continued.min_tokens
            maximum += continued.max_tokens or 0
        spans.append(
            ConstrainedSpan(
                automaton=gap.automaton,
                state=gap.state,
                positions=slice(start, stop),
                min_tokens=minimum,
                max_tokens=maximum,
            )
        )
    return tuple(spans)


def parts_after(window: Window, layout: Layout, tokens: Sequence[int]) -> tuple[TokenPart, ...]:
    """Return the parts after a canvas that became `tokens`; a gap that goes on begins in the state it has reached."""
    rest, gap = layout.rest, window.gaps[-1]
    if not window.unfinished or gap.automaton is None or not isinstance(rest[0], TokenGap):
        return rest
    state = gap.automaton.after(gap.state, tokens[slice(*layout.spans[-1])])
    continued = replace(rest[0], state=state)
    return (with_length_limits(continued, continued.max_tokens or 0), *rest[1:])
