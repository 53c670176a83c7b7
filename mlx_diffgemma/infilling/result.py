"""The result of filling a template, put together from its events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlx_diffgemma.errors import DiffGemmaError
from mlx_diffgemma.events import Event, Finished, FinishReason, GapFilled, Stats
from mlx_diffgemma.infilling.template import Part, filled


@dataclass(frozen=True, kw_only=True)
class Infilled:
    """A template with its gaps filled; `gaps` are the fillings, in order.

    finish_reason: "length" if a gap at the end of the template reached its longest length, else "stop".
    """

    text: str
    gaps: tuple[str, ...]
    finish_reason: FinishReason
    stats: Stats


def collected(parts: Sequence[Part], events: Iterable[Event]) -> Infilled | None:
    """Drain the events of one template and return its result; None if they end early.

    The text consists of the template's own texts and the fillings, so nothing around a gap can change.
    """
    fillings: list[str] = []
    for event in events:
        match event:
            case GapFilled(text=text):
                fillings.append(text)
            case Finished(reason=reason, stats=stats):
                text = filled(parts, fillings)
                return Infilled(text=text, gaps=tuple(fillings), finish_reason=reason, stats=stats)
            case _:
                pass
    return None


def gather_filled(parts: Sequence[Part], events: Iterable[Event]) -> Infilled:
    """Drain the events of one template and return its result. Raises DiffGemmaError if they end early."""
    infilled = collected(parts, events)
    if infilled is None:
        raise DiffGemmaError("the events ended before the template was filled")
    return infilled
