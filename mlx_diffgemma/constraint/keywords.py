"""What the keywords of a JSON schema must be, whatever they mean: a list of texts, a number, an object."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias, cast

from mlx_diffgemma.errors import ConstraintError

Schema: TypeAlias = Mapping[str, Any]


class _Shape(NamedTuple):
    """What a value must be; `text` ends an error message: "must be a list"."""

    text: str
    fits: Callable[[object], bool]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _are_texts(value: object) -> bool:
    return _is_list(value) and all(isinstance(each, str) for each in cast("Sequence[object]", value))


def _is_filled_list(value: object) -> bool:
    return _is_list(value) and len(cast("Sequence[object]", value)) > 0


def _are_types(value: object) -> bool:
    return _is_text(value) or (_are_texts(value) and _is_filled_list(value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _has_text_keys(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in cast("Mapping[object, object]", value))


_TEXT = _Shape("a text", _is_text)
_TEXTS = _Shape("a list of texts", _are_texts)
_LIST = _Shape("a list that is not empty", _is_filled_list)
_COUNT = _Shape("a whole number from 0 on", _is_count)
_NUMBER = _Shape("a number", _is_number)
_SHAPES = {
    "$ref": _TEXT,
    "pattern": _TEXT,
    "format": _TEXT,
    "type": _Shape("a text or a list of texts", _are_types),
    "required": _TEXTS,
    "enum": _LIST,
    "allOf": _LIST,
    "anyOf": _LIST,
    "oneOf": _LIST,
    "prefixItems": _LIST,
    "properties": _Shape("an object", _has_text_keys),
    "uniqueItems": _Shape("true or false", _is_flag),
    **dict.fromkeys(("minItems", "maxItems", "minLength", "maxLength"), _COUNT),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
}
"""Keywords that may be anything, or any schema, are not listed."""


def refused(pointer: str, reason: str) -> ConstraintError:
    """Return the error for a part of a schema; `pointer` is its JSON pointer."""
    return ConstraintError(f"json_schema{f' at {pointer}' if pointer else ''}: {reason}")


def check_keywords(entries: Schema, pointer: str) -> None:
    """Raise ConstraintError for a keyword whose value cannot be one of its kind; `pointer` is the schema's."""
    for keyword, value in entries.items():
        shape = _SHAPES.get(keyword)
        if shape is not None and not shape.fits(value):
            raise refused(pointer, f"{keyword!r} must be {shape.text}, not {value!r:.60}")
