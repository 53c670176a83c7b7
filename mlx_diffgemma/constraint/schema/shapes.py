"""What a schema allows, as shapes: one for each type, or several. A value is allowed if any of the shapes allows it.

A schema may say nothing about a type, and so allow all of its values: `{"properties": ...}` allows numbers. `is_meant`
is whether it says something; what is not meant is not written if something else is.

Two schemas that must both be kept are met shape by shape. The values inside, of properties and items, are not met but
noted together: a child is the list of all parts of the schema that its value must be valid for. So a schema that refers
to itself has finite shapes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import lcm
from typing import Any, ClassVar, TypeAlias

from mlx_diffgemma.constraint.automata.byte_automaton import part_automaton
from mlx_diffgemma.constraint.expression import Expression
from mlx_diffgemma.constraint.schema.location import Located

Child: TypeAlias = tuple[Located, ...]
"""The parts of a schema that one value must be valid for; none allow any value."""
ReadChild: TypeAlias = Callable[[Child], "Shapes"]
"""What returns the shapes of a child."""


@dataclass(frozen=True)
class ConstantShape:
    """One of several values, as JSON texts."""

    values: tuple[Any, ...]
    is_meant: bool = True
    kind: ClassVar[str] = "constant"


@dataclass(frozen=True)
class PlainShape:
    """Null, or true and false: `kind` is the type."""

    kind: str
    is_meant: bool


@dataclass(frozen=True)
class Limit:
    """A bound of a number."""

    value: Fraction
    is_excluded: bool


@dataclass(frozen=True)
class NumberShape:
    """A number between two limits."""

    is_meant: bool
    is_integer: bool = False
    low: Limit | None = None
    high: Limit | None = None
    step: Fraction | None = None
    """the number is a multiple of it"""
    kind: ClassVar[str] = "number"


@dataclass(frozen=True)
class StringShape:
    """A text whose characters match all conditions, which are expressions of the text itself, not of its JSON."""

    is_meant: bool
    shortest: int = 0
    longest: int | None = None
    wanted: tuple[Expression, ...] = ()
    unwanted: tuple[Expression, ...] = ()
    kind: ClassVar[str] = "string"


@dataclass(frozen=True)
class ArrayShape:
    """An array: the first items have schemas of their own, and the others another one."""

    is_meant: bool
    first: tuple[Child, ...] = ()
    others: Child = ()
    shortest: int = 0
    longest: int | None = None
    is_unique: bool = False
    kind: ClassVar[str] = "array"


@dataclass(frozen=True)
class PropertyRules:
    """What one object in a schema says about properties by name."""

    declared: tuple[tuple[str, Child], ...] = ()
    patterns: tuple[tuple[Expression, Child], ...] = ()
    """for names that an expression matches"""
    others: Child = ()
    """for names that are neither declared nor matched"""
    is_open: bool = False
    """whether the schema itself speaks of other names, so that they are to be written"""

    @cached_property
    def children(self) -> dict[str, Child]:
        """The declared properties by name."""
        return dict(self.declared)

    def child(self, name: str) -> Child:
        """Return the parts that the value of a property must be valid for."""
        matched = [child for pattern, child in self.patterns if part_automaton(pattern).accepts(name)]
        if name in self.children:
            matched.append(self.children[name])
        return joined(matched) if matched else self.others


@dataclass(frozen=True)
class ObjectShape:
    """An object whose properties follow all rules."""

    is_meant: bool
    rules: tuple[PropertyRules, ...] = ()
    required: tuple[str, ...] = ()
    names: tuple[Child, ...] = ()
    """what all names must be valid for"""
    fewest: int = 0
    most: int | None = None
    kind: ClassVar[str] = "object"

    @cached_property
    def _children(self) -> dict[str, Child]:
        return {}

    def child(self, name: str) -> Child:
        """Return the parts that the value of a property must be valid for."""
        if name not in self._children:
            self._children[name] = joined(rules.child(name) for rules in self.rules)
        return self._children[name]

    @cached_property
    def declared(self) -> tuple[str, ...]:
        """The names of which some rule speaks, in the order of the schema, and the required ones that none names."""
        return tuple(dict.fromkeys([name for rules in self.rules for name, _ in rules.declared] + [*self.required]))


Shape: TypeAlias = ConstantShape | PlainShape | NumberShape | StringShape | ArrayShape | ObjectShape
Shapes: TypeAlias = tuple[Shape, ...]

ANYTHING: Shapes = (
    PlainShape("null", False),
    PlainShape("boolean", False),
    NumberShape(False),
    StringShape(False),
    ArrayShape(False),
    ObjectShape(False),
)


def joined(children: Iterable[Child]) -> Child:
    """Return the parts of several children together."""
    return tuple(dict.fromkeys(part for child in children for part in child))


def met(one: Shape, other: Shape) -> Shape | None:  # noqa: PLR0911 (one for each shape)
    """Return the shape of what both shapes allow, None if they are of different types. It may still be empty."""
    if one.kind != other.kind:
        return None
    is_meant = one.is_meant or other.is_meant
    match one, other:
        case PlainShape(), PlainShape():
            return replace(one, is_meant=is_meant)
        case NumberShape(), NumberShape():
            return NumberShape(
                is_meant,
                one.is_integer or other.is_integer,
                tightest((one.low, other.low), 1),
                tightest((one.high, other.high), -1),
                _common_step(one.step, other.step),
            )
        case StringShape(), StringShape():
            return StringShape(
                is_meant,
                max(one.shortest, other.shortest),
                _smaller(one.longest, other.longest),
                tuple(dict.fromkeys(one.wanted + other.wanted)),
                tuple(dict.fromkeys(one.unwanted + other.unwanted)),
            )
        case ArrayShape(), ArrayShape():
            count = max(len(one.first), len(other.first))
            return ArrayShape(
                is_meant,
                tuple(joined([item(one, number), item(other, number)]) for number in range(count)),
                joined([one.others, other.others]),
                max(one.shortest, other.shortest),
                _smaller(one.longest, other.longest),
                one.is_unique or other.is_unique,
            )
        case ObjectShape(), ObjectShape():
            return ObjectShape(
                is_meant,
                one.rules + other.rules,
                tuple(dict.fromkeys(one.required + other.required)),
                one.names + other.names,
                max(one.fewest, other.fewest),
                _smaller(one.most, other.most),
            )
        case _:
            return None


def item(array: ArrayShape, number: int) -> Child:
    """Return the parts that an item of an array must be valid for."""
    return array.first[number] if number < len(array.first) else array.others


def _smaller(one: int | None, other: int | None) -> int | None:
    return min((each for each in (one, other) if each is not None), default=None)


def tightest(limits: Iterable[Limit | None], sign: int) -> Limit | None:
    """Return the limit that allows least, None if there is none; sign is 1 for lower limits, -1 for upper ones."""
    given = [each for each in limits if each is not None]
    return max(given, key=lambda limit: (sign * limit.value, limit.is_excluded), default=None)


def _common_step(one: Fraction | None, other: Fraction | None) -> Fraction | None:
    """Return the smallest number that is a multiple of both."""
    if one is None or other is None:
        return one or other
    denominator = lcm(one.denominator, other.denominator)
    return Fraction(lcm(int(one * denominator), int(other * denominator)), denominator)
