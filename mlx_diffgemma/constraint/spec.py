"""What the user says that a text must match: a regular expression, a JSON schema or a list of choices."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from mlx_diffgemma.constraint.schema_source import SchemaSource, read_schema, unwrapped
from mlx_diffgemma.errors import ConstraintError, OptionError, is_unicode

if TYPE_CHECKING:
    from mlx_diffgemma.constraint.expression import Described

MAX_DEPTH = 5
"""How often a part of a schema may stand within itself by default."""


@dataclass(frozen=True)
class Regex:
    """The whole text matches a regular expression. Raises OptionError for anything but text."""

    pattern: str

    def __post_init__(self) -> None:
        pattern = cast("object", self.pattern)
        if not (isinstance(pattern, str) and is_unicode(pattern)):
            raise OptionError(f"regex={pattern!r} must be text")

    @property
    def key(self) -> str:
        """A text that is the same for constraints that allow the same answers."""
        return self.pattern


@dataclass(frozen=True)
class JsonSchema:
    """The text is a JSON document that is valid for a schema. Raises ConstraintError for one that cannot be read.

    source: a dict, a pydantic model, the path of a file, the schema as JSON, or a short form such as "name, age int".
    max_depth: how often a part of the schema may stand within itself. is_strict: refuse a schema with keywords that
    are none of JSON schema's, instead of taking them for annotations.
    """

    source: SchemaSource = field(compare=False, repr=False)
    document: Mapping[str, Any] = field(init=False)
    max_depth: int = field(default=MAX_DEPTH, kw_only=True)
    is_strict: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        depth = cast("object", self.max_depth)
        if not isinstance(depth, int) or isinstance(depth, bool) or depth < 0:
            raise OptionError(f"max_depth={self.max_depth!r} must be a whole number from 0 on")
        document, is_strict = unwrapped(read_schema(self.source))
        object.__setattr__(self, "document", document)
        object.__setattr__(self, "is_strict", self.is_strict or is_strict)

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def key(self) -> str:
        """A text that is the same for constraints that allow the same answers. Raises ConstraintError."""
        try:
            return json.dumps([self.document, self.max_depth, self.is_strict], default=str)
        except RecursionError:
            raise ConstraintError("json_schema: it is nested too deeply: give one with fewer levels") from None
        except ValueError as error:
            raise ConstraintError(f"json_schema: it cannot be written as JSON: {error}") from None
        except TypeError:
            raise ConstraintError("json_schema: all keys of a schema must be texts") from None

    @property
    def notes(self) -> tuple[str, ...]:
        """What the schema allows and no answer will be, one sentence each: "values without a schema are written ...".

        Raises ConstraintError for a schema that cannot be used.
        """
        return json_texts(self).notes

    @property
    def unknown(self) -> tuple[str, ...]:
        """The keywords that are none of JSON schema's and were taken for annotations. Raises ConstraintError."""
        return json_texts(self).unknown


@lru_cache(maxsize=32)
def json_texts(constraint: JsonSchema) -> Described:
    """Return the schema as an expression of its texts. Raises ConstraintError for a schema that cannot be used."""
    # Imported here: it needs numpy, and most programs have no constraint.
    from mlx_diffgemma.constraint.schema.writing import written_schema

    schema = written_schema(constraint.document, constraint.max_depth)
    if constraint.is_strict and schema.unknown:
        raise ConstraintError(f"json_schema: the keyword {schema.unknown[0]!r} is none of JSON schema's")
    return schema


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

    @property
    def key(self) -> str:
        """A text that is the same for constraints that allow the same answers."""
        return json.dumps(self.texts)


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


def _are_choices(value: object) -> bool:
    if not isinstance(value, tuple) or not value:
        return False
    choices = cast("tuple[object, ...]", value)
    are_texts = all(isinstance(choice, str) and choice and is_unicode(choice) for choice in choices)
    return are_texts and len(set(choices)) == len(choices)
