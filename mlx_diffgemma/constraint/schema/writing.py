"""The shapes of a JSON schema as an expression of its JSON texts, to a depth where the schema refers to itself.

An automaton is finite, and a schema need not be: it may refer to itself, or allow any value at all. Such values are
written to a depth, and long texts and lists to a length.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mlx_diffgemma.constraint.automata.byte_automaton import is_buildable
from mlx_diffgemma.constraint.expression import (
    NOTHING,
    Described,
    Expression,
    Words,
    either,
    largest_repetition,
    repetition,
)
from mlx_diffgemma.constraint.schema.arrays import array_expression
from mlx_diffgemma.constraint.schema.keywords import Schema, check_schema, refused
from mlx_diffgemma.constraint.schema.layout import COMMA, array_of, member, object_of
from mlx_diffgemma.constraint.schema.location import SchemaDocument
from mlx_diffgemma.constraint.schema.numbers import UnkeptError, number_expression
from mlx_diffgemma.constraint.schema.objects import json_words, object_expression
from mlx_diffgemma.constraint.schema.reading import SchemaReading
from mlx_diffgemma.constraint.schema.shapes import (
    ANYTHING,
    ArrayShape,
    Child,
    ConstantShape,
    NumberShape,
    ObjectShape,
    PlainShape,
    Shape,
    Shapes,
    StringShape,
)
from mlx_diffgemma.constraint.schema.strings import string_expression, with_strings_joined
from mlx_diffgemma.errors import ConstraintError


@dataclass(frozen=True)
class Limits:
    """How much of a schema without end is written."""

    recursion: int
    """how often a part may stand within itself"""
    free: int
    """levels of arrays and objects in a value that may be anything"""
    items: int
    """items of an array, and properties with names of any kind, unless more are needed"""
    characters: int
    """characters of a text, unless more are needed"""


LIMITS = (
    Limits(recursion=1000, free=3, items=1000, characters=1500),
    Limits(recursion=1000, free=2, items=200, characters=500),
    Limits(recursion=1000, free=1, items=50, characters=250),
    Limits(recursion=3, free=1, items=20, characters=100),
    Limits(recursion=2, free=1, items=8, characters=60),
    Limits(recursion=1, free=0, items=4, characters=60),
    Limits(recursion=0, free=0, items=4, characters=40),
)
"""What is tried, one after another, until the automaton is small enough."""
_GOOD_SIZE = 45_000
"""Transitions of an automaton that is built in about a second."""
_MAX_PARTS = 2500
"""Parts that are written before a schema counts as too large: one that refers to itself can have endlessly many."""


class TooManyPartsError(Exception):
    """A schema has too many parts to be written within the limits."""


class Writing:
    """Writes the parts of one document within limits, and notes which limits mattered."""

    def __init__(self, reading: SchemaReading, limits: Limits) -> None:
        self.reading = reading
        self.limits = limits
        self.notes: dict[str, None] = {}
        self._path: list[Child] = []
        self._depth = 0
        self._lowest = 0
        """the highest place on the path that a part below refers back to"""
        self._kept: dict[tuple[Child, int], Expression] = {}
        self._free: dict[int, Expression] = {}
        self._parts = 0

    def child(self, child: Child) -> Expression:
        """Return an expression of the values that are valid for all parts of the schema; NOTHING if there are none."""
        self._parts += 1
        if self._parts > _MAX_PARTS:
            raise TooManyPartsError
        if not child:
            return self.anything(self.limits.free)
        if any(part.schema is False for part in child):
            return NOTHING
        kept = self._kept.get((child, self._depth))
        if kept is not None:
            return kept
        if child in self._path:
            return self._again(child)
        return self._within(child)

    def _within(self, child: Child) -> Expression:
        """Write a part that is not within itself."""
        place, outer = len(self._path), self._lowest
        self._path.append(child)
        self._lowest = place
        shapes = self.reading.child(child)
        branches = self.reading.branches(child[0]) if len(child) == 1 else None
        # Branches are written as parts of their own, so that what refers to itself is found again among them.
        expression = either(map(self.child, branches)) if branches is not None else self._shapes(shapes, child)
        self._path.pop()
        # What refers to nothing above itself is the same wherever it stands.
        if self._lowest >= place:
            self._kept[child, self._depth] = expression
        self._lowest = min(self._lowest, outer)
        return expression

    def _again(self, child: Child) -> Expression:
        """Write a part that stands within itself, if it may."""
        self._lowest = min(self._lowest, self._path.index(child))
        if self._depth == self.limits.recursion:
            self.note(f"what refers to itself is written {self.limits.recursion} levels deep")
            return NOTHING
        path, self._path, lowest = self._path, [], self._lowest
        self._depth += 1
        expression = self._kept.get((child, self._depth)) or self._within(child)
        self._depth -= 1
        self._path, self._lowest = path, lowest
        return expression

    def _shapes(self, shapes: Shapes, child: Child) -> Expression:
        meant = with_strings_joined([shape for shape in shapes if shape.is_meant] or shapes)
        branches: list[Expression] = []
        for shape in meant:
            try:
                branches.append(self.shape(shape))
            except UnkeptError as error:
                raise refused(child[0].path if child else "", str(error)) from None
        return either(branches)

    def shape(self, shape: Shape) -> Expression:
        """Return an expression of the values that a shape allows."""
        match shape:
            case ConstantShape(values=values):
                return json_words(values)
            case PlainShape(kind=kind):
                return Words(("null",) if kind == "null" else ("true", "false"))
            case NumberShape():
                return number_expression(shape)
            case StringShape():
                return string_expression(self._shortened(shape))
            case ArrayShape():
                return array_expression(shape, self)
            case ObjectShape():
                return object_expression(shape, self)

    def _shortened(self, strings: StringShape) -> StringShape:
        most = max(self.limits.characters, strings.shortest)
        if strings.longest is None or strings.longest <= most:
            return strings
        self.note(f"texts of up to {strings.longest:,} characters are written with up to {most:,}")
        return replace(strings, longest=most)

    def shapes(self, child: Child) -> Shapes:
        """Return the shapes of what is valid for several parts of the schema."""
        return self.reading.child(child)

    def note(self, text: str) -> None:
        """Note something that is allowed and not written."""
        self.notes[text] = None

    def count(self, fewest: int, most: int | None, what: str) -> int | None:
        """Return the largest number of items or properties that is written, where `most` are allowed."""
        limit = max(self.limits.items, fewest)
        if most is None or most <= limit:
            return most
        self.note(f"of up to {most:,} {what}, up to {limit:,} are written")
        return limit

    def anything(self, levels: int) -> Expression:
        """Return an expression of any value with so many levels of arrays and objects."""
        found = self._free.get(levels)
        if found is None:
            self.note(f"values without a schema are written with up to {self.limits.free} levels")
            found = either([self.shape(shape) for shape in ANYTHING if not isinstance(shape, ArrayShape | ObjectShape)])
            if levels:
                inner = self.anything(levels - 1)
                property_ = repetition(member(self.shape(StringShape(True)), inner), 1, None, COMMA)
                found = either([found, array_of(inner, 0, None), object_of([(property_, False)], 0, None)])
            self._free[levels] = found
        return found


def written_schema(document: Schema, max_depth: int) -> Described:
    """Return a schema as an expression; max_depth: how often a part may stand within itself.

    Raises ConstraintError that names the keyword which cannot be kept, and where it is.
    """
    unknown, expression, allowed, too_deep = check_schema(document), NOTHING, _GOOD_SIZE, -1
    try:
        reading = SchemaReading(SchemaDocument(document))
        for limits in LIMITS:
            depth = min(limits.recursion, max_depth)
            if depth == too_deep:
                continue
            writing = Writing(reading, replace(limits, recursion=depth))
            try:
                expression = writing.child((reading.document.root,))
            except TooManyPartsError:
                too_deep = depth
                continue
            if expression is NOTHING:
                raise ConstraintError("json_schema: no value is valid for it, or none of so few levels")
            if limits is LIMITS[-1]:
                allowed += allowed // 2
            if expression.size > allowed:
                continue
            if is_buildable(expression):
                return Described(expression, (*reading.notes, *writing.notes), tuple(unknown))
            # It had more states than its size told: what is tried next must be much smaller.
            allowed = expression.size // 4
    except RecursionError:
        raise ConstraintError("json_schema: it is nested too deeply: give one with fewer levels") from None
    part = largest_repetition(expression)
    what = f"{part} makes the constraint too large" if part else "it is too large"
    raise ConstraintError(f"json_schema: {what}: give one with fewer properties, shorter lists or shorter texts")
