"""What the user says that a text must match: a regular expression, a JSON schema or a list of choices."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeAlias, cast

from mlx_diffgemma.constraint.regex import literal_pattern
from mlx_diffgemma.constraint.schema import schema_regex
from mlx_diffgemma.errors import ConstraintError

SchemaSource: TypeAlias = Mapping[str, Any] | str | Path | type
"""A JSON schema: a dict, the path of its file, or a pydantic model."""
_KINDS = ("regex", "json_schema", "choices")


class Matching(Protocol):
    """Options that say what a text must match; at most one of the three is not None."""

    @property
    def regex(self) -> str | None:
        """A regular expression that matches the whole text."""
        ...

    @property
    def json_schema(self) -> SchemaSource | None:
        """A schema; the text is a JSON document that is valid for it."""
        ...

    @property
    def choices(self) -> Sequence[str] | None:
        """Texts; the text is one of them."""
        ...


def is_free(source: Matching) -> bool:
    """Return whether the text need not match anything."""
    return all(getattr(source, kind) is None for kind in _KINDS)


def fault(source: Matching) -> str | None:
    """Return what is wrong with the options, as far as that shows without reading a file or a pattern; None if nothing.

    The options come from users, so their types are checked too.
    """
    regex, choices = cast("object", source.regex), cast("object", source.choices)
    if regex is not None and not (isinstance(regex, str) and _is_unicode(regex)):
        return f"{regex=!r} must be text"
    if choices is not None and not _are_choices(choices):
        return f"{choices=!r} must be a tuple of different texts that are not empty"
    wanted = [kind for kind in _KINDS if getattr(source, kind) is not None]
    return f"{wanted[0]} and {wanted[1]} cannot both be kept: give one of them" if len(wanted) > 1 else None


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _are_choices(value: object) -> bool:
    if not isinstance(value, tuple) or not value:
        return False
    choices = cast("tuple[object, ...]", value)
    are_texts = all(isinstance(choice, str) and choice and _is_unicode(choice) for choice in choices)
    return are_texts and len(set(choices)) == len(choices)


def pattern_of(source: Matching) -> str | None:
    """Return the regular expression that the whole text must match; None if the text is free.

    Raises ConstraintError for a schema that cannot be read or translated.
    """
    if source.regex is not None:
        return source.regex
    if source.json_schema is not None:
        return schema_regex(read_schema(source.json_schema))
    if source.choices is not None:
        return "|".join(literal_pattern(choice) for choice in source.choices)
    return None


def read_schema(source: SchemaSource) -> Mapping[str, Any]:
    """Return a JSON schema as a dict. Raises ConstraintError that names the file, or the value that is no schema."""
    if isinstance(source, Mapping):
        return source
    # A pydantic model describes itself; pydantic need not be installed to ask it.
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
