"""Text with gaps: written with a marker, or as a list of texts and gaps.

"def area(w, h):\\n    return <gap:1-8>\\n"  ->  ("def area(w, h):\\n    return ", Gap(1, 8), "\\n")
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias, cast

from mlx_diffgemma.constraint.spec import SchemaSource, fault
from mlx_diffgemma.errors import TemplateError, require_unicode

MARKER = "<gap>"
CLOSING = "])}>"


@dataclass(frozen=True)
class Gap:
    """A place for `min_tokens` to `max_tokens` tokens; None: as many as there is room for.

    A space in front of a gap counts to its tokens, for in this family a space belongs to the word behind it. What is
    written there matches `regex`, or is a JSON text valid for `json_schema` (a dict, a file, a pydantic model), or one
    of `choices`. Raises TemplateError for numbers that no text can have, or two things to match.
    """

    min_tokens: int = 1
    max_tokens: int | None = None
    regex: str | None = field(default=None, kw_only=True)
    json_schema: SchemaSource | None = field(default=None, kw_only=True)
    choices: Sequence[str] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.min_tokens < 1:
            raise TemplateError(f"a gap of {self.min_tokens} tokens: it must have at least one")
        if self.max_tokens is not None and self.max_tokens < self.min_tokens:
            raise TemplateError(f"a gap of {self.min_tokens} to {self.max_tokens} tokens: the first must be less")
        if self.choices is not None and not isinstance(self.choices, str):
            object.__setattr__(self, "choices", tuple(self.choices))
        if wrong := fault(self):
            raise TemplateError(f"a gap: {wrong}")


Part: TypeAlias = str | Gap
Template: TypeAlias = str | Sequence[Part]


def parse(template: Template, marker: str = MARKER) -> tuple[Part, ...]:
    """Texts, none of them empty and no two side by side, and gaps between them.

    In a string `marker` stands for a gap of any length; where it ends with a bracket, `<gap:40>` is one of 40 tokens
    and `<gap:5-40>` one of 5 to 40. Raises TemplateError where there is no gap, or what is there is no text.
    """
    if isinstance(template, str):
        parts = _marked(template, marker)
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


def _marked(text: str, marker: str) -> list[Part]:
    """The parts of a text with markers."""
    if not marker.strip():
        raise TemplateError(f"marker={marker!r} must be something that can be seen")
    stem = marker.rstrip(CLOSING)
    pattern = re.escape(marker)
    if stem and stem != marker:
        pattern = rf"{re.escape(stem)}(?::(\d+)(?:-(\d+))?)?{re.escape(marker[len(stem) :])}"
    parts: list[Part] = []
    end = 0
    for match in re.finditer(pattern, text):
        parts += [text[end : match.start()], _gap(*(match.groups() or (None, None)))]
        end = match.end()
    return [*parts, text[end:]]


def _gap(least: str | None, most: str | None) -> Gap:
    if least is None:
        return Gap()
    return Gap(int(least), int(most or least))


def sized(parts: Sequence[Part], tokens: int | None) -> tuple[Part, ...]:
    """The same with gaps of so many tokens where a gap has no length of its own. Raises TemplateError."""
    if tokens is None:
        return tuple(parts)
    return tuple(Gap(tokens, tokens) if part == Gap() else part for part in parts)


def matched(
    parts: Sequence[Part], regex: str | None, json_schema: SchemaSource | None, choices: Sequence[str] | None
) -> tuple[Part, ...]:
    """The same with gaps whose text must match this. Raises TemplateError."""
    return tuple(
        replace(part, regex=regex, json_schema=json_schema, choices=choices) if isinstance(part, Gap) else part
        for part in parts
    )


def filled(parts: Sequence[Part], fillings: Sequence[str]) -> str:
    """The text of a template whose gaps are filled, one filling for each."""
    remaining = iter(fillings)
    return "".join(part if isinstance(part, str) else next(remaining) for part in parts)
