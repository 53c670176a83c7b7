"""What an answer must match, as its user gives it: a pattern, a schema, or a list of choices."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from mlx_diffgemma.constraint.patterns import quoted
from mlx_diffgemma.constraint.schema import schema_regex
from mlx_diffgemma.errors import ConstraintError, OptionError
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.matching import Matching, SchemaSource


def pattern_of(source: Matching) -> str | None:
    """The pattern that a text must match, None where it is free. Raises ConstraintError."""
    if source.regex is not None:
        return source.regex
    if source.json_schema is not None:
        return schema_regex(read_schema(source.json_schema))
    if source.choices is not None:
        return "|".join(quoted(choice) for choice in source.choices)
    return None


def matching(
    config: GenerationConfig,
    regex: str | None,
    json_schema: SchemaSource | None,
    choices: Sequence[str] | None,
) -> GenerationConfig:
    """`config` with what the answer must match in place of its own, if anything is given."""
    if (regex, json_schema, choices) == (None, None, None):
        return config
    if isinstance(choices, str):
        raise OptionError(f"choices={choices!r} must be a list of texts")
    return replace(
        config,
        regex=regex,
        json_schema=None if json_schema is None else read_schema(json_schema),
        choices=None if choices is None else tuple(choices),
    )


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
