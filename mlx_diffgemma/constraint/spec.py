"""What the user says that a text must match: a regular expression, a JSON schema or a list of choices."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, cast

from mlx_diffgemma.constraint.regex import literal_pattern
from mlx_diffgemma.constraint.schema import schema_regex
from mlx_diffgemma.errors import ConstraintError, OptionError
from mlx_diffgemma.files import home_expanded

SchemaSource: TypeAlias = Mapping[str, Any] | str | Path | type
"""A JSON schema: a dict, the path of its file, or a pydantic model."""


@dataclass(frozen=True)
class Regex:
    """The whole text matches a regular expression. Raises OptionError for anything but text."""

    pattern: str

    def __post_init__(self) -> None:
        pattern = cast("object", self.pattern)
        if not (isinstance(pattern, str) and _is_unicode(pattern)):
            raise OptionError(f"regex={pattern!r} must be text")


@dataclass(frozen=True)
class JsonSchema:
    """The text is a JSON document that is valid for a schema. Raises ConstraintError for one that cannot be read."""

    source: SchemaSource = field(compare=False, repr=False)
    document: Mapping[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "document", read_schema(self.source))


@dataclass(frozen=True)
class Choices:
    """The text is one of several. Raises OptionError for anything but different texts that are not empty."""

    texts: Sequence[str]

    def __post_init__(self) -> None:
        if isinstance(self.texts, str):
            raise OptionError(f"choices={self.texts!r} must be a list of texts")
        choices = tuple(self.texts) if isinstance(cast("object", self.texts), Sequence) else self.texts
        if not _are_choices(choices):
            raise OptionError(f"{choices=!r} must be a tuple of different texts that are not empty")
        object.__setattr__(self, "texts", choices)


Constraint: TypeAlias = Regex | JsonSchema | Choices


def constraint_of(
    regex: str | None = None,
    json_schema: SchemaSource | None = None,
    choices: Sequence[str] | None = None,
    constraint: Constraint | None = None,
) -> Constraint | None:
    """Return the constraint of which at most one is given. Raises OptionError if there are two, or if it is none."""
    kinds = {
        "constraint": (require_constraint, constraint),
        "regex": (Regex, regex),
        "json_schema": (JsonSchema, json_schema),
        "choices": (Choices, choices),
    }
    given = {name: (kind, value) for name, (kind, value) in kinds.items() if value is not None}
    if len(given) > 1:
        first, second, *_ = given
        raise OptionError(f"{first} and {second} cannot both be kept: give one of them")
    return next((cast("Callable[[object], Constraint]", kind)(value) for kind, value in given.values()), None)


def require_constraint(value: object) -> Constraint:
    """Return the value if it is a constraint. Raises OptionError."""
    if not isinstance(value, Constraint):
        raise OptionError(f"constraint={value!r:.60} must be a Regex, a JsonSchema, Choices, or None")
    return value


def pattern_of(constraint: Constraint) -> str:
    """Return the regular expression that the whole text must match.

    Raises ConstraintError for a schema that cannot be translated.
    """
    match constraint:
        case Regex(pattern=pattern):
            return pattern
        case JsonSchema(document=document):
            return schema_regex(document)
        case Choices(texts=texts):
            return "|".join(literal_pattern(choice) for choice in texts)


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _are_choices(value: object) -> bool:
    if not isinstance(value, tuple) or not value:
        return False
    choices = cast("tuple[object, ...]", value)
    are_texts = all(isinstance(choice, str) and choice and _is_unicode(choice) for choice in choices)
    return are_texts and len(set(choices)) == len(choices)


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
        schema = json.loads(home_expanded(source, ConstraintError).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ConstraintError(f"the schema {source} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ConstraintError(f"the schema {source} is not JSON: {error}") from None
    if not isinstance(schema, Mapping):
        raise ConstraintError(f"the schema {source} must be an object, not {schema!r:.60}")
    return cast("Mapping[str, Any]", schema)
