"""What the model is asked: the prompt for a template, and the prompt and the template for an edit.

The canvas holds the text around the gaps, so the prompt need not. It shows the text as well if the text does not fit in
one canvas, or if the user gives no instruction.
"""

from __future__ import annotations

from collections.abc import Sequence

from mlx_diffgemma.errors import TemplateError, require_unicode
from mlx_diffgemma.infilling.template import MARKER, Gap, Part, filled

_FILL_REQUEST = f"Write this text with something in the place of each {MARKER}:\n\n"
_EDIT_REQUEST = "Change this part of the text below, and nothing else:"
_WHOLE_TEXT = "The whole text:"
_EDIT_FACTOR = 2
"""A rewritten span may have this many times fewer or more tokens, unless the user gives a gap."""
_EDIT_EXTRA = 8
"""Tokens that a rewritten span may have in addition, so that a short one can grow."""


def infill_prompt(parts: Sequence[Part], instruction: str | None, *, shown: bool) -> str:
    """Return the prompt for a template. shown: include its text, with a marker for each gap."""
    text = filled(parts, [MARKER] * len(parts))
    if not instruction or not instruction.strip():
        return _FILL_REQUEST + text
    return f"{instruction}\n\n{text}" if shown else instruction


def edit_prompt(text: str, instruction: str, span: tuple[int, int]) -> str:
    """Return the prompt for rewriting a span: the instruction, the span, the whole text.

    Raises TemplateError for an empty instruction.
    """
    if not instruction.strip():
        raise TemplateError("the instruction is empty: say what to change")
    require_unicode(instruction, "the instruction", TemplateError)
    return "\n\n".join([instruction, _EDIT_REQUEST, text[slice(*span)], _WHOLE_TEXT, text])


def edit_parts(text: str, span: tuple[int, int], gap: Gap) -> list[Part]:
    """Return the text with `gap` in the place of the characters of `span`."""
    start, stop = span
    return [part for part in (text[:start], gap, text[stop:]) if part != ""]


def check_span(text: str, span: tuple[int, int]) -> None:
    """Raise TemplateError for a span that is not inside the text."""
    start, stop = span
    if not 0 <= start <= stop <= len(text):
        raise TemplateError(f"the span {start}:{stop} is outside the text of {len(text)} characters")


def edit_gap(tokens: int) -> Gap:
    """Return the gap for a span of `tokens` tokens; an empty span may become any length."""
    if not tokens:
        return Gap()
    return Gap(max(1, tokens // _EDIT_FACTOR), tokens * _EDIT_FACTOR + _EDIT_EXTRA)
