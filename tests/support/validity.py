"""What `jsonschema` says of a text: exact about decimal numbers, and with the formats checked that we write."""

from __future__ import annotations

import json
import re
from datetime import datetime, time
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from jsonschema import FormatChecker
from jsonschema.exceptions import ValidationError
from jsonschema.validators import Draft202012Validator, extend, validator_for

CHECKER = FormatChecker()
_DURATION = re.compile(r"P(?!$)((\d+Y)?(\d+M)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?|\d+W)")
_POINTER = re.compile(r"(/([^/~]|~[01])*)*")


@CHECKER.checks("date-time", raises=ValueError)
def _is_date_time(value: object) -> bool:
    return not isinstance(value, str) or (value[10:11] == "T" and datetime.fromisoformat(value).tzinfo is not None)


@CHECKER.checks("time", raises=ValueError)
def _is_time(value: object) -> bool:
    return not isinstance(value, str) or time.fromisoformat(value).tzinfo is not None


@CHECKER.checks("duration")
def _is_duration(value: object) -> bool:
    return not isinstance(value, str) or _DURATION.fullmatch(value) is not None


@CHECKER.checks("hostname")
def _is_hostname(value: object) -> bool:
    label = re.compile(r"(?!-)[A-Za-z0-9-]{1,63}(?<!-)")
    return not isinstance(value, str) or (len(value) <= 253 and all(map(label.fullmatch, value.split("."))))


@CHECKER.checks("uri", raises=ValueError)
def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or (_is_reference(value) and bool(urlsplit(value).scheme))


@CHECKER.checks("uri-reference", raises=ValueError)
def _is_reference(value: object) -> bool:
    if not isinstance(value, str):
        return True
    is_written = re.fullmatch(r"([A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*", value)
    return is_written is not None and value.count("#") <= 1 and urlsplit(value).port != 0


@CHECKER.checks("json-pointer")
def _is_pointer(value: object) -> bool:
    return not isinstance(value, str) or _POINTER.fullmatch(value) is not None


@CHECKER.checks("relative-json-pointer")
def _is_relative_pointer(value: object) -> bool:
    if not isinstance(value, str):
        return True
    begin = re.match(r"(0|[1-9]\d*)", value)
    return begin is not None and (value[begin.end() :] == "#" or _is_pointer(value[begin.end() :]))


def _multiple_of(_validator: Any, step: Any, value: Any, _schema: Any) -> Any:
    is_number = isinstance(value, int | Decimal) and not isinstance(value, bool)
    if is_number and (Fraction(value) / Fraction(step)).denominator != 1:
        yield ValidationError(f"{value} is not a multiple of {step}")


def _is_integer(_checker: Any, value: object) -> bool:
    if isinstance(value, Decimal):
        return value == value.to_integral_value()
    return isinstance(value, int) and not isinstance(value, bool)


def fault(schema: Any, text: str) -> str:
    """What is wrong with a text; "" if it is JSON that is valid for the schema.

    Of a key that an object has twice, programs take the last value or the first: the text must be valid both ways.
    """
    validator = _validator(json.dumps(schema))
    for last in (True, False):
        try:
            validator.validate(_read(text, is_last_taken=last))
        except ValueError as error:
            return f"{type(error).__name__}: {error}"
        except ValidationError as error:
            return f"{error.json_path}: {error.message:.200}"
    return ""


@lru_cache(maxsize=1)
def _validator(document: str) -> Any:
    schema = json.loads(document, parse_float=Decimal)
    kind: Any = validator_for(schema, default=Draft202012Validator)
    types = kind.TYPE_CHECKER.redefine("integer", _is_integer)
    return extend(kind, {"multipleOf": _multiple_of}, type_checker=types)(schema, format_checker=CHECKER)


def _read(text: str, *, is_last_taken: bool) -> Any:
    def made(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return dict(pairs if is_last_taken else reversed(pairs))

    return json.loads(text, parse_float=Decimal, object_pairs_hook=made, parse_constant=_refused)


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
