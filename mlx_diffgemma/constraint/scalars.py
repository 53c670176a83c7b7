"""JSON schemas of strings and numbers as regular expressions."""

from __future__ import annotations

from collections.abc import Callable

from mlx_diffgemma.constraint.integers import integer_between
from mlx_diffgemma.constraint.keywords import Schema, refused
from mlx_diffgemma.constraint.regex import JSON_CHARACTER, within_json

_NUMBER = r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_DATE = (
    "[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_UP_TO_255 = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": f"{_DATE}T{_TIME}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "email": r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
    "ipv4": rf"{_UP_TO_255}(?:\.{_UP_TO_255}){{3}}",
}
"""Every match is valid, but not everything valid matches: 29 February and quoted e-mail addresses are left out."""


def repeat_pattern(pattern: str, minimum: int, maximum: int | None) -> str:
    """Return a pattern of `minimum` to `maximum` matches one after another; None is no limit."""
    if (minimum, maximum) == (0, None):
        return f"(?:{pattern})*"
    return f"(?:{pattern}){{{minimum},{'' if maximum is None else maximum}}}"


def _string(entries: Schema, pointer: str) -> str:
    if len(entries.keys() & {"pattern", "format"}) + bool(entries.keys() & {"minLength", "maxLength"}) > 1:
        raise refused(pointer, "of 'pattern', 'format' and the lengths only one can be kept")
    if "pattern" in entries:
        return f'"{within_json(entries["pattern"])}"'
    if "format" in entries:
        name = entries["format"]
        if name not in _FORMATS:
            raise refused(pointer, f"the format {name!r} is not supported: use one of {', '.join(_FORMATS)}")
        return f'"{_FORMATS[name]}"'
    minimum, maximum = entries.get("minLength", 0), entries.get("maxLength")
    if maximum is not None and maximum < minimum:
        raise refused(pointer, f"'maxLength' {maximum} is below 'minLength' {minimum}")
    return f'"{repeat_pattern(JSON_CHARACTER, minimum, maximum)}"'


def _integer(entries: Schema, pointer: str) -> str:
    lows = [entries[key] + more for key, more in (("minimum", 0), ("exclusiveMinimum", 1)) if key in entries]
    highs = [entries[key] - less for key, less in (("maximum", 0), ("exclusiveMaximum", 1)) if key in entries]
    if any(not isinstance(limit, int) for limit in [*lows, *highs]):
        raise refused(pointer, "the limits of an integer must be integers")
    low, high = max(lows, default=None), min(highs, default=None)
    if low is not None and high is not None and low > high:
        raise refused(pointer, f"no integer lies between {low} and {high}")
    return integer_between(low, high)


def _number(entries: Schema, pointer: str) -> str:
    if entries not in ({}, {"minimum": 0}):
        raise refused(pointer, "the only limit of a number that is supported is 'minimum': 0")
    return _NUMBER if entries else f"-?{_NUMBER}"


SCALAR_PATTERNS: dict[str, Callable[[Schema, str], str]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": lambda _entries, _pointer: "(?:true|false)",
    "null": lambda _entries, _pointer: "null",
}
"""For each type of a single value: its keywords, and the JSON pointer of the schema -> a pattern of the values.

Each raises ConstraintError for keywords that cannot be kept.
"""
