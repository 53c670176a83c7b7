"""A template: text with gaps, written with a marker or as a list of texts and gaps.

"def area(w, h):\\n    return <gap:1-8>\\n"  ->  ("def area(w, h):\\n    return ", Gap(1, 8), "\\n")
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field, replace
from typing import TypeAlias, cast

from mlx_diffgemma.constraint.schema_source import SchemaSource
from mlx_diffgemma.constraint.spec import Constraint, constraint_of
from mlx_diffgemma.errors import OptionError, TemplateError, require_unicode

MARKER = "<gap>"
_MOST_TOKENS = 10**9
_CLOSING_BRACKETS = "])}>"


@dataclass(frozen=True)
class Gap:
    """A gap of `min_tokens` to `max_tokens` tokens; None is as many as a canvas can hold.

    A space before a gap counts as part of the gap's first token, because Gemma's tokens include the space before a
    word. The text of the gap matches `constraint`, which may also be said as `regex`, as `json_schema` (a dict, a
    file, a pydantic model, a line) or as `choices`.

    Raises TemplateError for numbers of tokens that no text can have, and for more than one thing to match.
    """

    min_tokens: int = 1
    max_tokens: int | None = None
    constraint: Constraint | None = field(default=None, kw_only=True)
    regex: InitVar[str | None] = field(default=None, kw_only=True)
    json_schema: InitVar[SchemaSource | None] = field(default=None, kw_only=True)
    choices: InitVar[Sequence[str] | None] = field(default=None, kw_only=True)

    def __post_init__(self, regex: str | None, json_schema: SchemaSource | None, choices: Sequence[str] | None) -> None:
        _check_tokens(self.min_tokens)
        if self.max_tokens is not None:
            _check_tokens(self.max_tokens)
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise TemplateError(
                f"a gap of {self.min_tokens} to {self.max_tokens} tokens: the maximum must not be below the minimum"
            )
        try:
            constraint = constraint_of(regex, json_schema, choices, self.constraint)
        except OptionError as error:
            raise TemplateError(f"a gap: {error}") from None
        object.__setattr__(self, "constraint", constraint)


def _check_tokens(number: object) -> None:
    """Raise TemplateError for anything but a number of tokens that a text can have."""
    if not isinstance(number, int) or isinstance(number, bool):
        raise TemplateError(f"a gap of {number!r:.60} tokens: give a whole number")
    if number < 1:
        raise TemplateError(f"a gap of {number} tokens: it must have at least one")
    if number > _MOST_TOKENS:
        raise TemplateError(f"a gap of more than {_MOST_TOKENS} tokens: no model can fill it")


Part: TypeAlias = str | Gap
Template: TypeAlias = str | Sequence[Part]


def parse(template: Template, marker: str = MARKER) -> tuple[Part, ...]:
    """Return the texts and gaps of a template; no text is empty, and no two texts are neighbours.

    In a string, `marker` is a gap of any length. If the marker ends with a bracket, a length may be written before it:
    `<gap:40>` is a gap of 40 tokens, and `<gap:5-40>` one of 5 to 40.

    Raises TemplateError for a template without a gap, and for one that holds anything but texts and gaps.
    """
    if isinstance(template, str):
        parts = _marked_parts(template, marker)
    else:
        parts = list(template)
        if wrong := [part for part in parts if not isinstance(cast("object", part), str | Gap)]:
            raise TemplateError(f"a template holds texts and gaps, not {wrong[0]!r:.60}")
    if not any(isinstance(part, Gap) for part in parts):
        hint = f": mark one with {marker}" if isinstance(template, str) else ""
        raise TemplateError(f"the template has no gap{hint}")
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    for part in joined:
        if isinstance(part, str):
            require_unicode(part, "the text", TemplateError)
    return tuple(joined)


def _marked_parts(text: str, marker: str) -> list[Part]:
    """Split a text at its markers."""
    if not marker.strip():
        raise TemplateError(f"marker={marker!r} must be something that can be seen")
    stem = marker.rstrip(_CLOSING_BRACKETS)
    pattern = re.escape(marker)
    if stem and stem != marker:
        pattern = rf"{re.escape(stem)}(?::(\d+)(?:-(\d+))?)?{re.escape(marker[len(stem) :])}"
    parts: list[Part] = []
    end = 0
    for match in re.finditer(pattern, text):
        parts += [text[end : match.start()], _marked_gap(*(match.groups() or (None, None)))]
        end = match.end()
    return [*parts, text[end:]]


def _marked_gap(minimum: str | None, maximum: str | None) -> Gap:
    if minimum is None:
        return Gap()
    return Gap(_tokens(minimum), _tokens(maximum or minimum))


def _tokens(digits: str) -> int:
    """Return a number as it is written; one that is too long for Python to read becomes one that is too large."""
    digits = digits.lstrip("0") or "0"
    return int(digits) if len(digits) <= len(str(_MOST_TOKENS)) else _MOST_TOKENS + 1


def sized(parts: Sequence[Part], tokens: int | None) -> tuple[Part, ...]:
    """Give `tokens` tokens to every gap without length and constraint; None changes nothing. Raises TemplateError."""
    if tokens is None:
        return tuple(parts)
    return tuple(Gap(tokens, tokens) if part == Gap() else part for part in parts)


def matched(parts: Sequence[Part], constraint: Constraint | None) -> tuple[Part, ...]:
    """Give a constraint to every gap; None changes nothing."""
    if constraint is None:
        return tuple(parts)
    return tuple(replace(part, constraint=constraint) if isinstance(part, Gap) else part for part in parts)


def filled(parts: Sequence[Part], fillings: Sequence[str]) -> str:
    """Return the text of a template with one filling for each gap, in order."""
    remaining = iter(fillings)
    return "".join(part if isinstance(part, str) else next(remaining) for part in parts)
