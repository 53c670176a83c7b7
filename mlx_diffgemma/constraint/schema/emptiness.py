"""Which shapes certainly allow no value, which allow a given value, and which certainly have no value in common."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

from mlx_diffgemma.constraint.automata.byte_automaton import are_disjoint, part_automaton
from mlx_diffgemma.constraint.expression import (
    ANY_CHARACTER_ONCE,
    ANY_TEXT,
    Difference,
    Expression,
    Intersection,
    repetition,
)
from mlx_diffgemma.constraint.schema.shapes import (
    ArrayShape,
    Child,
    ConstantShape,
    NumberShape,
    ObjectShape,
    PlainShape,
    ReadChild,
    Shape,
    StringShape,
    item,
    met,
)

_LEVELS = 6
"""How deep the parts of a shape are looked at."""


def text_expression(strings: StringShape) -> Expression:
    """Return an expression of the texts that a shape allows, whatever their length."""
    expression = ANY_TEXT
    for wanted in strings.wanted:
        expression = wanted if expression is ANY_TEXT else Intersection(expression, wanted)
    for unwanted in strings.unwanted:
        expression = Difference(expression, unwanted)
    return expression


def is_empty(shape: Shape, read: ReadChild, levels: int = _LEVELS) -> bool:  # noqa: PLR0911 (one for each shape)
    """Return whether a shape certainly allows no value; `read` returns the shapes of its parts.

    With 0 levels, neither are its parts read, nor are automata built.
    """
    match shape:
        case ConstantShape(values=values):
            return not values
        case PlainShape():
            return False
        case NumberShape():
            return _has_no_number(shape)
        case StringShape():
            if shape.longest is not None and shape.longest < shape.shortest:
                return True
            return levels > 0 and bool(shape.wanted or shape.unwanted) and _has_no_text(replace(shape, is_meant=True))
        case ArrayShape():
            needed = min(shape.shortest, len(shape.first) + 1)
            return (shape.longest is not None and shape.longest < shape.shortest) or any(
                allows_nothing(item(shape, number), read, levels) for number in range(needed)
            )
        case ObjectShape():
            return (shape.most is not None and shape.most < max(shape.fewest, len(shape.required))) or any(
                allows_nothing(shape.child(name), read, levels) for name in shape.required
            )


def allows_nothing(child: Child, read: ReadChild, levels: int = _LEVELS) -> bool:
    """Return whether certainly no value is valid for all parts of a schema."""
    if any(part.schema is False for part in child):
        return True
    return levels > 0 and all(is_empty(shape, read, levels - 1) for shape in read(child))


def _has_no_number(numbers: NumberShape) -> bool:
    low, high = numbers.low, numbers.high
    if low is None or high is None:
        return False
    if low.value == high.value:
        return low.is_excluded or high.is_excluded or (numbers.is_integer and low.value.denominator != 1)
    return low.value > high.value


@lru_cache(maxsize=256)
def _has_no_text(strings: StringShape) -> bool:
    lengths = repetition(ANY_CHARACTER_ONCE, strings.shortest, strings.longest)
    return are_disjoint(text_expression(strings), lengths)


def allows(shape: Shape, value: Any, read: ReadChild) -> bool:
    """Return whether a shape allows a value, as Python reads it from JSON."""
    match shape:
        case ConstantShape(values=values):
            return any(is_same(value, each) for each in values)
        case PlainShape(kind=kind):
            return value is None if kind == "null" else isinstance(value, bool)
        case NumberShape():
            return isinstance(value, int | float) and not isinstance(value, bool) and _allows_number(shape, value)
        case StringShape():
            return isinstance(value, str) and _allows_text(shape, value)
        case ArrayShape():
            return isinstance(value, list) and _allows_items(shape, value, read)
        case ObjectShape():
            return isinstance(value, dict) and _allows_properties(shape, value, read)


def child_allows(child: Child, value: Any, read: ReadChild) -> bool:
    """Return whether a value is valid for all parts of a schema."""
    return not any(part.schema is False for part in child) and any(allows(shape, value, read) for shape in read(child))


def _allows_number(numbers: NumberShape, value: float) -> bool:
    exact = Fraction(str(value)) if isinstance(value, float) else Fraction(value)
    low, high = numbers.low, numbers.high
    return not (
        (numbers.is_integer and exact.denominator != 1)
        or (low is not None and (exact < low.value or (low.is_excluded and exact == low.value)))
        or (high is not None and (exact > high.value or (high.is_excluded and exact == high.value)))
        or (numbers.step is not None and (exact / numbers.step).denominator != 1)
    )


def _is_between(count: int, fewest: int, most: int | None) -> bool:
    return count >= fewest and (most is None or count <= most)


def _allows_text(strings: StringShape, value: str) -> bool:
    if not _is_between(len(value), strings.shortest, strings.longest):
        return False
    return all(part_automaton(each).accepts(value) for each in strings.wanted) and not any(
        part_automaton(each).accepts(value) for each in strings.unwanted
    )


def _allows_items(arrays: ArrayShape, value: list[Any], read: ReadChild) -> bool:
    if not _is_between(len(value), arrays.shortest, arrays.longest):
        return False
    if arrays.is_unique and any(is_same(one, other) for n, one in enumerate(value) for other in value[n + 1 :]):
        return False
    return all(child_allows(item(arrays, number), each, read) for number, each in enumerate(value))


def _allows_properties(objects: ObjectShape, value: dict[str, Any], read: ReadChild) -> bool:
    if not _is_between(len(value), objects.fewest, objects.most):
        return False
    if not all(name in value for name in objects.required):
        return False
    if not all(child_allows(names, name, read) for names in objects.names for name in value):
        return False
    return all(child_allows(objects.child(name), each, read) for name, each in value.items())


def are_apart(one: Shape, other: Shape, read: ReadChild) -> bool:
    """Return whether two shapes certainly have no value in common."""
    if isinstance(one, ConstantShape):
        return not any(allows(other, value, read) for value in one.values)
    if isinstance(other, ConstantShape):
        return are_apart(other, one, read)
    both = met(one, other)
    return both is None or is_empty(both, read)


def is_same(one: Any, other: Any) -> bool:
    """Return whether two values are the same JSON; 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(is_same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(is_same(one[name], other[name]) for name in one)
    return type(one) in _ALIKE.get(type(other), (type(other),)) and one == other


_ALIKE = {int: (int, float), float: (int, float)}
