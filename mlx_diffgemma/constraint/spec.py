"""What an answer must match, as its user gives it: a pattern, a schema, or a list of choices."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

from mlx_diffgemma.constraint.regex import quoted
from mlx_diffgemma.constraint.schema import schema_regex
from mlx_diffgemma.errors import ConstraintError

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


def pattern_of(source: Matching) -> str | None:
    """The pattern that a text must match, None where it is free. Raises ConstraintError."""
    if source.regex is not None:
        return source.regex
    if source.json_schema is not None:
        return schema_regex(read_schema(source.json_schema))
    if source.choices is not None:
        return "|".join(quoted(choice) for choice in source.choices)
    return None


def read_schema(source: SchemaSource) -> Mapping[str, Any]:
    """The schema as a dict. Raises ConstraintError that names the file or what was given instead."""
    if isinstance(source, Mapping):
        return source
    # What pydantic's models can do; pydantic itself is not needed for it.
    describe = cast("Callable[[], Mapping[str, Any]] | None", getattr(source, "model_json_schema", None))
    if callable(describe):
        return describe()
    if not isinstance(source, str | Path):
        raise ConstraintError(f"json_schema={source!r} is no dict, file or pydantic model")
    try:
        schema = json.loads(Path(source).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ConstraintError(f"the schema {source} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConstraintError(f"the schema {source} is not JSON: {error}") from None
    if not isinstance(schema, Mapping):
        raise ConstraintError(f"the schema {source} must be an object, not {schema!r:.60}")
    return cast("Mapping[str, Any]", schema)
