"""Options as data: a field of a frozen dataclass carries its help, flags, range and the reference's name.

Programs, help pages, docs/options.md, keyword arguments and checks are all made from these fields.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypedDict, Union, Unpack, cast, get_args, get_origin, get_type_hints

from mlx_diffgemma.errors import OptionError

_METADATA = "option"
_LARGEST = 2**64
"""Whole numbers are less: larger ones are not computed with."""
UNCHANGED = object()
"""The value of `Option.exact` where the reference has the option too."""


@dataclass(frozen=True)
class Range:
    """Numbers that an option may have. `text` ends an error message: "at least 1"."""

    text: str
    contains: Callable[[float], bool]


def at_least(minimum: float, unit: str = "") -> Range:
    """Return the range from `minimum` on, itself included."""
    return Range(f"at least {minimum} {unit}".rstrip(), lambda value: value >= minimum)


def above(minimum: float, unit: str = "") -> Range:
    """Return the range from `minimum` on, itself excluded."""
    return Range(f"above {minimum} {unit}".rstrip(), lambda value: value > minimum)


class Details(TypedDict, total=False):
    """What a field may say about itself besides its help and panel; see Option."""

    flags: tuple[str, ...]
    former: str
    metavar: str
    values: tuple[str, ...]
    allowed: Range
    minimum: int
    infinite: bool
    none: int
    default_text: str
    repeated: bool
    reference: str
    exact: object
    envvar: str
    eager: Callable[[Any], Any]
    said_by: type
    only: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Option:
    """What a field says about itself as an option.

    help: one sentence, for help pages and docs. panel: the heading it is listed under.
    flags: names on a command line; without a long one, "--" and the field's name comes first.
    former: an earlier name of the field, still accepted on command lines and in batch files.
    metavar: how a value is written in help pages. values: the texts that are possible.
    allowed: the range that `check_options` requires. minimum: the range that the command line parser requires.
    infinite: infinity is a possible value. none: the number that a command line writes for None.
    default_text: what happens without the option, where the default value does not say it.
    repeated: texts are given one by one, each with the flag, because they may contain commas.
    reference: the name in the reference's generation_config.json; None where the reference has no such option.
    exact: the value with which the option changes nothing of what the reference does.
    envvar: the environment variable that gives the default.
    eager: called with the value before other options are read; what it returns is the value.
    said_by: a dataclass of the options with which a user says the value.
    only: the modes in which it has an effect; () is all of them.
    """

    help: str
    panel: str
    flags: tuple[str, ...] = ()
    former: str | None = None
    metavar: str | None = None
    values: tuple[str, ...] = ()
    allowed: Range | None = None
    minimum: int | None = None
    infinite: bool = False
    none: int | None = None
    default_text: str | None = None
    repeated: bool = False
    reference: str | None = None
    exact: object = UNCHANGED
    envvar: str | None = None
    eager: Callable[[Any], Any] | None = None
    said_by: type | None = None
    only: tuple[str, ...] = ()


def option(default: Any, help: str, panel: str, **details: Unpack[Details]) -> Any:
    """Return a dataclass field with a default (MISSING: none) that is an option."""
    return field(default=default, metadata={_METADATA: Option(help=help, panel=panel, **details)})


@dataclass(frozen=True, kw_only=True)
class OptionField:
    """A field of a dataclass that is an option. `type` is its type without None; `optional`: None is allowed too."""

    name: str
    option: Option
    type: Any
    optional: bool
    default: Any

    @property
    def flags(self) -> tuple[str, ...]:
        """The names on a command line, the long one first."""
        flags = self.option.flags
        return flags if any(flag.startswith("--") for flag in flags) else (f"--{_dashed(self.name)}", *flags)

    @property
    def required(self) -> bool:
        """Whether the field has no default."""
        return self.default is MISSING

    @property
    def values(self) -> tuple[str, ...]:
        """The texts that are possible, where there are only some."""
        return self.option.values or (get_args(self.type) if get_origin(self.type) is Literal else ())


@cache
def option_fields(options: type) -> Mapping[str, OptionField]:
    """Return the options of a dataclass by name, in order; of a field that is said by several, those."""
    found: dict[str, OptionField] = {}
    for name, each in _fields(options).items():
        found |= {name: each} if each.option.said_by is None else option_fields(each.option.said_by)
    return found


@cache
def _fields(options: type) -> Mapping[str, OptionField]:
    """Return the fields of a dataclass that are options, by name."""
    hints = get_type_hints(options)
    return {
        each.name: OptionField(
            name=each.name,
            option=each.metadata[_METADATA],
            type=_without_none(hints[each.name]),
            optional=NoneType in get_args(hints[each.name]),
            default=each.default,
        )
        for each in dataclasses.fields(options)
        if _METADATA in each.metadata
    }


def check_options(options: object) -> None:
    """Raise OptionError, naming option and value, for the first value of a wrong type or out of range."""
    for name, each in _fields(type(options)).items():
        value: object = getattr(options, name)
        if value is None and each.optional:
            continue
        wanted = _mismatch(each, value)
        if wanted is not None:
            raise OptionError(f"{name}={shown(value)} must be {wanted}{', or None' * each.optional}")


def shown(value: object) -> str:
    """Return a value as an error message shows it, cut at 80 characters."""
    if isinstance(value, int) and abs(value) >= 10**80:
        return f"{'-' * (value < 0)}(more than 80 digits)"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _mismatch(each: OptionField, value: object) -> str | None:
    """What the value should be, None where it is."""
    kind = _KINDS.get(get_origin(each.type) or each.type)
    if each.values:
        return None if value in each.values else " or ".join(each.values)
    if isinstance(value, int) and not -_LARGEST < value < _LARGEST:
        return "a number below 2**64"
    if kind is None or (each.option.infinite and value == math.inf):
        return None
    if not kind.contains(value):
        return kind.text
    allowed = each.option.allowed
    return None if allowed is None or allowed.contains(cast("float", value)) else allowed.text


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


@dataclass(frozen=True)
class _Kind:
    """The values of a type. `text` ends an error message."""

    text: str
    contains: Callable[[object], bool]


_KINDS: dict[Any, _Kind] = {
    int: _Kind("a whole number", _is_whole),
    float: _Kind("a number", _is_number),
    bool: _Kind("True or False", lambda value: isinstance(value, bool)),
    str: _Kind("text", lambda value: isinstance(value, str)),
    Mapping: _Kind("a dict", lambda value: isinstance(value, Mapping)),
}


def _without_none(hint: Any) -> Any:
    if get_origin(hint) not in (UnionType, Union):
        return hint
    kept = [each for each in get_args(hint) if each is not NoneType]
    return kept[0] if len(kept) == 1 else hint


def _dashed(name: str) -> str:
    return name.replace("_", "-")
