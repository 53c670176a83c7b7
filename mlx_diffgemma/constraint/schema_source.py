"""Where a JSON schema comes from: a dict, a file, a pydantic model, JSON, a short form, the wrapper of an API."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, cast

from mlx_diffgemma.constraint.short_form import schema_of
from mlx_diffgemma.errors import ConstraintError
from mlx_diffgemma.files import home_expanded

SchemaSource: TypeAlias = Mapping[str, Any] | bool | str | Path | type
"""A JSON schema: a dict, True or False, a pydantic model, the path of a file, JSON, or a short form."""
_WRAPPER = frozenset(("type", "name", "description", "schema", "strict"))
"""What the wrapper of a schema has in requests to OpenAI's API."""


def read_schema(source: SchemaSource) -> Mapping[str, Any] | bool:
    """Read a JSON schema. Raises ConstraintError that names the file, or the text or value that is no schema."""
    if isinstance(source, str):
        return _of_text(source)
    if isinstance(source, Path):
        return _parsed(_file_text(source), f"the schema {source}")
    # A pydantic model describes itself; pydantic need not be installed to ask it.
    describe = cast("Callable[[], Mapping[str, Any]] | None", getattr(source, "model_json_schema", None))
    if callable(describe):
        return describe()
    if isinstance(source, Mapping | bool):
        return source
    raise ConstraintError(f"json_schema={source!r:.60} is no dict, file or pydantic model")


def _of_text(text: str) -> Mapping[str, Any] | bool:
    """Read JSON, a file or a short form."""
    if text.lstrip().startswith("{") or text.strip() in ("true", "false"):
        return _parsed(text, f"json_schema={text!r:.60}")
    can_be_short = not text.strip() or re.search(r"[,\s]", text.strip()) is not None
    if not can_be_short or (text.strip() and _is_there(text)):
        return _parsed(_file_text(text), f"the schema {text}")
    try:
        return schema_of(text)
    except ConstraintError as error:
        message = f"json_schema={text!r:.60} is no file, and not a short form such as 'name, age int': {error}"
        raise ConstraintError(message) from None


def _is_there(name: str) -> bool:
    """Whether there is anything of that name; a name that is too long for a file has nothing."""
    with suppress(OSError, ValueError):
        return home_expanded(name, ConstraintError).exists()
    return False


def _file_text(name: str | Path) -> str:
    try:
        return home_expanded(name, ConstraintError).read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        hint = " (or is a property meant? 'name str')" if isinstance(name, str) else ""
        raise ConstraintError(f"the schema {name} cannot be read: {error.strerror}{hint}") from None
    except OSError as error:
        raise ConstraintError(f"the schema {name} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConstraintError(f"the schema {name} is not JSON: {error}") from None


def _parsed(text: str, what: str) -> Mapping[str, Any] | bool:
    """Parse JSON; `what` begins an error message."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConstraintError(f"{what} is not JSON: {error}") from None
    if not isinstance(schema, Mapping | bool):
        raise ConstraintError(f"{what} must be an object, true or false, not {schema!r:.60}")
    return cast("Mapping[str, Any] | bool", schema)


class Unwrapped(NamedTuple):
    """A schema without a wrapper."""

    document: Mapping[str, Any]
    is_strict: bool
    """whether the wrapper asked for what JsonSchema.is_strict is"""


def unwrapped(schema: Mapping[str, Any] | bool) -> Unwrapped:
    """Take a schema out of the wrapper in which OpenAI's API takes it, if it is in one.

    {"type": "json_schema", "json_schema": {"name": .., "schema": {..}, "strict": true}}, or the inner object alone.
    Raises ConstraintError for a wrapper without a schema.
    """
    if isinstance(schema, bool):
        return Unwrapped({} if schema else {"allOf": [False]}, False)
    is_named = schema.get("type") == "json_schema"
    wrapper = schema.get("json_schema") if is_named and "schema" not in schema else schema
    if not (isinstance(wrapper, Mapping) and "schema" in wrapper and _WRAPPER.issuperset(wrapper)):
        if is_named:
            raise ConstraintError('json_schema: what has the type "json_schema" must have a schema in it')
        return Unwrapped(schema, False)
    inner: object = wrapper["schema"]
    if not isinstance(inner, Mapping | bool):
        raise ConstraintError(f"json_schema: schema must be an object, true or false, not {inner!r:.60}")
    document = cast("Mapping[str, Any] | bool", inner)
    return Unwrapped(unwrapped(document).document, cast("object", wrapper.get("strict")) is True)
