"""What the keywords of a JSON schema must be, whatever they mean: a list of texts, a number, a schema.

These are the rules of the metaschemas of drafts 4 to 2020-12, of which a schema may mix the keywords.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from mlx_diffgemma.errors import ConstraintError, is_unicode

Schema: TypeAlias = Mapping[str, Any]
TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_MAX_LEVELS = 60
"""Schemas within schemas that are read."""


class _Shape(NamedTuple):
    """What a value must be; `text` ends an error message: "must be a list"."""

    text: str
    fits: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and is_unicode(value)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return _is_list(value) and all(map(_is_text, value))


def _is_filled_list(value: Any) -> bool:
    return _is_list(value) and len(value) > 0


def _are_types(value: Any) -> bool:
    return _is_text(value) or (_are_texts(value) and _is_filled_list(value))


def is_number(value: Any) -> bool:
    """Return whether a value is a number that JSON can write."""
    is_finite = isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))
    return is_finite and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return is_number(value) and value >= 0 and value == int(value)


def _is_json(value: Any) -> bool:
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError):
        return False
    return True


def _has_text_keys(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_is_text, cast("Mapping[Any, Any]", value)))


def _is_schema(value: Any) -> bool:
    return _is_flag(value) or _has_text_keys(value)


def _are_schemas(value: Any) -> bool:
    return _is_filled_list(value) and all(map(_is_schema, value))


def _has_schemas(value: Any) -> bool:
    return _has_text_keys(value) and all(map(_is_schema, value.values()))


def _has_texts(value: Any) -> bool:
    return _has_text_keys(value) and all(map(_are_texts, value.values()))


def _are_items(value: Any) -> bool:
    return _is_schema(value) or (_is_list(value) and all(map(_is_schema, value)))


def _is_step(value: Any) -> bool:
    return is_number(value) and value > 0


def _is_limit(value: Any) -> bool:
    return is_number(value) or _is_flag(value)


_SCHEMA = _Shape("a schema", _is_schema)
_SCHEMAS = _Shape("a list of schemas that is not empty", _are_schemas)
_NAMED_SCHEMAS = _Shape("an object of schemas", _has_schemas)
_TEXT = _Shape("a text", _is_text)
_TEXTS = _Shape("a list of texts", _are_texts)
_COUNT = _Shape("a whole number from 0 on", _is_count)
_NUMBER = _Shape("a number", is_number)
_LIMIT = _Shape("a number", _is_limit)
_SHAPES = {
    "type": _Shape("a text or a list of texts", _are_types),
    "enum": _Shape("a list that is not empty", _is_filled_list),
    "required": _TEXTS,
    "uniqueItems": _Shape("true or false", _is_flag),
    "multipleOf": _Shape("a number above 0", _is_step),
    "items": _Shape("a schema, or a list of schemas", _are_items),
    "dependencies": _Shape("an object", _has_text_keys),
    "dependentRequired": _Shape("an object of lists of texts", _has_texts),
    **dict.fromkeys(("$ref", "pattern", "format"), _TEXT),
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "prefixItems"), _SCHEMAS),
    **dict.fromkeys(("properties", "patternProperties", "dependentSchemas"), _NAMED_SCHEMAS),
    **dict.fromkeys(
        ("additionalProperties", "propertyNames", "additionalItems", "contains", "not", "if", "then", "else"), _SCHEMA
    ),
    **dict.fromkeys(("unevaluatedProperties", "unevaluatedItems"), _SCHEMA),
    **dict.fromkeys(("minItems", "maxItems", "minLength", "maxLength", "minProperties", "maxProperties"), _COUNT),
    **dict.fromkeys(("minContains", "maxContains"), _COUNT),
    **dict.fromkeys(("minimum", "maximum"), _NUMBER),
    **dict.fromkeys(("exclusiveMinimum", "exclusiveMaximum"), _LIMIT),
}
"""Keywords that may be anything are not listed."""
_UNKEPT = frozenset("$dynamicRef $recursiveRef extends disallow divisibleBy".split())
"""Keywords that restrict, and that are always refused."""
_ANNOTATIONS = frozenset(
    "$schema $id id $anchor $dynamicAnchor $recursiveAnchor $vocabulary $comment $defs definitions title description "
    "default example examples deprecated readOnly writeOnly discriminator xml externalDocs contentEncoding "
    "contentMediaType contentSchema const nullable".split()
)
_KNOWN = _SHAPES.keys() | _ANNOTATIONS


def says_only(schema: Any, keyword: str) -> bool:
    """Return whether a schema restricts values by one keyword and by no other."""
    return isinstance(schema, Mapping) and {keyword} == (_SHAPES.keys() | {"const"}) & cast("Schema", schema).keys()


def refused(path: str, reason: str) -> ConstraintError:
    """Return the error for a part of a schema; `path` is where it is."""
    return ConstraintError(f"json_schema{f' at {path}' if path else ''}: {reason}")


def check_schema(schema: Any, path: str = "") -> list[str]:
    """Return the keywords in a schema that are none of JSON schema's: annotations, as the standard says.

    path: where the schema is.

    Raises ConstraintError for a keyword whose value cannot be one of its kind, for one that cannot be kept, and for a
    schema that is nested too deeply.
    """
    unknown: dict[str, None] = {}
    waiting: list[tuple[Any, str, int]] = [(schema, path, 0)]
    while waiting:
        part, path, level = waiting.pop()
        if level > _MAX_LEVELS:
            raise refused(f"{path:.60}...", f"it has more than {_MAX_LEVELS} levels: use fewer")
        if isinstance(part, bool):
            continue
        if not _is_schema(part):
            raise refused(path, f"{part!r:.60} is no schema: it must be an object, true or false")
        for keyword, value in part.items():
            _check_keyword(keyword, value, path)
            if keyword not in _KNOWN:
                unknown[keyword] = None
            where = f"{path}.{keyword}" if path else keyword
            waiting.extend((inner, f"{where}{step}", level + 1) for inner, step in _inner(keyword, value))
    return list(unknown)


def _check_keyword(keyword: str, value: Any, path: str) -> None:
    shape = _SHAPES.get(keyword)
    if shape is not None and not shape.fits(value):
        raise refused(path, f"{keyword!r} must be {shape.text}, not {value!r:.60}")
    if keyword in ("enum", "const") and not _is_json(value):
        raise refused(path, f"{keyword!r} must be values of JSON, not {value!r:.60}")
    if keyword in _UNKEPT:
        raise refused(path, f"the keyword {keyword!r} is not supported")
    if keyword == "type":
        for kind in [value] if isinstance(value, str) else value:
            if kind not in TYPES:
                raise refused(path, f"type {kind!r} is none of JSON's: {', '.join(TYPES)}")


def _inner(keyword: str, value: Any) -> Iterator[tuple[Any, str]]:
    """Yield the schemas in the value of a keyword, each with the step to it."""
    shape = _SHAPES.get(keyword)
    if shape is _SCHEMA or (keyword == "items" and _is_schema(value)):
        yield value, ""
    elif shape is _SCHEMAS or (keyword == "items" and _is_list(value)):
        yield from ((each, f".{number}") for number, each in enumerate(value))
    elif shape is _NAMED_SCHEMAS or (keyword in ("$defs", "definitions") and _has_text_keys(value)):
        yield from ((each, f".{name}") for name, each in value.items() if _is_schema(each))
    elif keyword == "dependencies":
        yield from ((each, f".{name}") for name, each in value.items() if not _is_list(each))
