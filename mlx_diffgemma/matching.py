"""What a text must match, as its user gives it: a pattern, a schema, or a list of choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

SchemaSource: TypeAlias = Mapping[str, Any] | str | Path | type
"""A schema as a dict, the file that holds it, or a pydantic model."""
NAMES = ("regex", "json_schema", "choices")


class Matching(Protocol):
    """Whatever says what a text must match: an answer's options, a gap. All None: nothing."""

    @property
    def regex(self) -> str | None:
        """A pattern that matches all of it."""
        ...

    @property
    def json_schema(self) -> SchemaSource | None:
        """A schema for which it is a valid JSON text."""
        ...

    @property
    def choices(self) -> Sequence[str] | None:
        """Texts of which it is one."""
        ...


def is_free(source: Matching) -> bool:
    """Whether nothing must match."""
    return all(getattr(source, name) is None for name in NAMES)


def fault(source: Matching) -> str | None:
    """What is wrong with it, as far as it shows without reading files or patterns; None: nothing."""
    # Users' values: what the types say is to be found out.
    regex, choices = cast("object", source.regex), cast("object", source.choices)
    if regex is not None and not (isinstance(regex, str) and _is_unicode(regex)):
        return f"{regex=!r} must be text"
    if choices is not None and not _are_choices(choices):
        return f"{choices=!r} must be a tuple of different texts that are not empty"
    given = [name for name in NAMES if getattr(source, name) is not None]
    return f"{given[0]} and {given[1]} cannot both be kept: give one of them" if len(given) > 1 else None


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _are_choices(value: object) -> bool:
    if not isinstance(value, tuple) or not value:
        return False
    choices = cast("tuple[object, ...]", value)
    return all(isinstance(choice, str) and choice and _is_unicode(choice) for choice in choices) and len(
        set(choices)
    ) == len(choices)
