"""Arrays of a JSON schema as expressions of their JSON texts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any, Protocol

from mlx_diffgemma.constraint.expression import (
    NOTHING,
    Expression,
    Intersection,
    concatenation,
    either,
    optional_list,
    repetition,
)
from mlx_diffgemma.constraint.schema.different import FIRST_DIGITS, IN_ORDER, with_first_characters
from mlx_diffgemma.constraint.schema.emptiness import are_apart, is_same
from mlx_diffgemma.constraint.schema.layout import COMMA, EMPTY_ARRAY, array, array_of
from mlx_diffgemma.constraint.schema.numbers import UnkeptError
from mlx_diffgemma.constraint.schema.shapes import (
    ArrayShape,
    Child,
    ConstantShape,
    NumberShape,
    PlainShape,
    Shape,
    Shapes,
    StringShape,
)

_MAX_ORDERED = 4
"""Values that a set may have in any order; more have the order of the schema, because orders multiply."""


class Writer(Protocol):
    """What writes the parts of a schema."""

    def shapes(self, child: Child) -> Shapes:
        """Return the shapes of a part."""
        ...

    def child(self, child: Child) -> Expression:
        """Return an expression of the values of a part."""
        ...

    def shape(self, shape: Shape) -> Expression:
        """Return an expression of the values of a shape."""
        ...

    def count(self, fewest: int, most: int | None, what: str) -> int | None:
        """Return the largest number of items or properties to write."""
        ...

    def note(self, text: str) -> None:
        """Note something that is allowed and not written."""
        ...


def array_expression(arrays: ArrayShape, writer: Writer) -> Expression:
    """Return an expression of the arrays of a shape; NOTHING if there are none. Raises UnkeptError."""
    longest = arrays.longest
    if longest is not None and longest < arrays.shortest:
        return NOTHING
    if arrays.is_unique and longest not in (0, 1):
        return _unique(arrays, writer)
    first = _first(arrays, writer)
    if len(first) < min(len(arrays.first), arrays.shortest):
        return NOTHING
    is_whole = len(first) == len(arrays.first)
    more = arrays.shortest - len(first)
    most = None if longest is None else longest - len(first)
    if not is_whole or (first and more <= 0 and (arrays.others == () or most == 0)):
        return _exactly(first)
    others = writer.child(arrays.others)
    most = writer.count(max(0, more), most, "items")
    if not first:
        return array_of(others, arrays.shortest, most, _source(arrays.shortest, most))
    rest = repetition(concatenation([COMMA, others]), max(0, more), most)
    return array(concatenation([_in_order(first), rest]))


def _source(fewest: int, most: int | None) -> str:
    return f"an array of {f'at least {fewest}' if most is None else f'up to {most}'} items" if most or fewest else ""


def _first(arrays: ArrayShape, writer: Writer) -> list[Expression]:
    """Return the expressions of the first items, up to one that no value is valid for."""
    found: list[Expression] = []
    for child in arrays.first[: arrays.longest]:
        expression = writer.child(child)
        if expression is NOTHING:
            break
        found.append(expression)
    return found


def _exactly(items: list[Expression]) -> Expression:
    return array(_in_order(items)) if items else EMPTY_ARRAY


def _in_order(items: list[Expression]) -> Expression:
    return concatenation([each for one in items for each in (COMMA, one)][1:])


def _unique(arrays: ArrayShape, writer: Writer) -> Expression:
    """Return an expression of arrays whose items are all different."""
    if arrays.first:
        children = arrays.first[: arrays.longest]
        if arrays.shortest > len(children) or not _are_all_apart(children, writer):
            raise UnkeptError("'uniqueItems' is kept for one kind of items, or for items that differ by their schemas")
        first = _first(arrays, writer)
        return NOTHING if len(first) < arrays.shortest else _exactly(first)
    shapes = writer.shapes(arrays.others)
    values = _values(shapes)
    if values is not None:
        return _set_of(values, arrays, writer)
    texts = [each for shape in shapes if isinstance(shape, StringShape) for each in with_first_characters(shape)]
    integers = [shape for shape in shapes if isinstance(shape, NumberShape) and shape.is_integer]
    members = [writer.shape(each) for each in texts] + [
        Intersection(writer.shape(shape), beginning) for shape in integers for beginning in FIRST_DIGITS
    ]
    if not members:
        raise UnkeptError("'uniqueItems' is kept for texts, integers and listed values, not for these items")
    writer.note(f"the items of an array with 'uniqueItems' are written {IN_ORDER}")
    return _filled_or_empty([(each, False) for each in members], arrays)


def _filled_or_empty(members: list[tuple[Expression, bool]], arrays: ArrayShape) -> Expression:
    filled = array(optional_list(members, COMMA, max(1, arrays.shortest), arrays.longest))
    return filled if arrays.shortest else either([filled, EMPTY_ARRAY])


def _are_all_apart(children: Sequence[Child], writer: Writer) -> bool:
    return all(
        are_apart(one, other, writer.shapes)
        for number, child in enumerate(children)
        for later in children[number + 1 :]
        for one in writer.shapes(child)
        for other in writer.shapes(later)
    )


def _values(shapes: Shapes) -> list[Any] | None:
    """Return all values of shapes that have only a few; None if they have more."""
    found: list[Any] = []
    for shape in shapes:
        if isinstance(shape, ConstantShape):
            found.extend(shape.values)
        elif isinstance(shape, PlainShape):
            found.extend([None] if shape.kind == "null" else [True, False])
        else:
            return None
    return [value for number, value in enumerate(found) if not any(is_same(value, each) for each in found[:number])]


def _set_of(values: list[Any], arrays: ArrayShape, writer: Writer) -> Expression:
    written = [writer.shape(ConstantShape((value,))) for value in values]
    if len(written) > _MAX_ORDERED:
        writer.note("the values of an array with 'uniqueItems' are written in the order of the schema")
        return _filled_or_empty([(each, False) for each in written], arrays)
    most = len(written) if arrays.longest is None else min(arrays.longest, len(written))
    orders = [
        _exactly(list(order)) for count in range(arrays.shortest, most + 1) for order in permutations(written, count)
    ]
    return either(orders)
