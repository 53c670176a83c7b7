"""What the model is asked when it fills gaps or rewrites a span, and what came of it.

The text around the gaps stands in the canvas. The prompt says what is wanted; where the text does not fit in a canvas,
or nothing is said, it shows the text too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mlx_diffgemma.errors import DiffGemmaError, TemplateError, require_unicode
from mlx_diffgemma.events import Event, Finished, FinishReason, GapFilled, Stats
from mlx_diffgemma.infilling.template import MARKER, Gap, Part, filled

FILL = f"Write this text with something in the place of each {MARKER}:\n\n"
REWRITE = "Change this part of the text below, and nothing else:"
WHOLE = "The whole text:"
GROWTH = 2
"""How much shorter or longer a rewritten span may be, in tokens, where nothing is said."""
FEW = 8
"""Tokens that are added to the longest, so that short spans have room."""


@dataclass(frozen=True, kw_only=True)
class Infilled:
    """A text whose gaps are filled; `gaps` are the fillings, in order.

    finish_reason: "length" where a gap at the end was cut at its longest, else "stop".
    """

    text: str
    gaps: tuple[str, ...]
    finish_reason: FinishReason
    stats: Stats


def infill_prompt(parts: Sequence[Part], instruction: str | None, *, shown: bool) -> str:
    """The prompt for a template; `shown`: its text is part of it, with a marker for each gap."""
    text = filled(parts, [MARKER] * len(parts))
    if not instruction or not instruction.strip():
        return FILL + text
    return f"{instruction}\n\n{text}" if shown else instruction


def edit_prompt(text: str, instruction: str, span: tuple[int, int]) -> str:
    """The prompt for rewriting a span: the instruction, the part, the whole. Raises TemplateError without the first."""
    if not instruction.strip():
        raise TemplateError("the instruction is empty: say what to change")
    require_unicode(instruction, "the instruction", TemplateError)
    return "\n\n".join([instruction, REWRITE, text[slice(*span)], WHOLE, text])


def edit_parts(text: str, span: tuple[int, int], gap: Gap) -> list[Part]:
    """The text with a gap in the place of the characters of `span`."""
    start, stop = span
    return [part for part in (text[:start], gap, text[stop:]) if part != ""]


def check_span(text: str, span: tuple[int, int]) -> None:
    """Raise TemplateError for a span that is not inside the text."""
    start, stop = span
    if not 0 <= start <= stop <= len(text):
        raise TemplateError(f"the span {start}:{stop} is outside the text of {len(text)} characters")


def edit_gap(tokens: int) -> Gap:
    """The gap for a span that has so many tokens; for one that is empty, any."""
    if not tokens:
        return Gap()
    return Gap(max(1, tokens // GROWTH), tokens * GROWTH + FEW)


def collected(parts: Sequence[Part], events: Iterable[Event]) -> Infilled | None:
    """What came of one infilling, None where the events end before it does.

    The text is put together from the template's own and the fillings.
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
    """Drain the events of one infilling."""
    infilled = collected(parts, events)
    if infilled is None:
        raise DiffGemmaError("the events ended before the template was filled")
    return infilled
