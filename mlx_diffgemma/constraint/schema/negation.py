"""What a part of a JSON schema does not allow, as shapes: for `not`, `else` and the branches of `oneOf`.

Not all of it: a keyword whose opposite no shape can describe adds nothing. So the shapes allow no value that is valid
for the part, but there may be more values that are not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from typing import Any, Protocol, cast

from mlx_diffgemma.constraint.characters import Characters
from mlx_diffgemma.constraint.expression import Words, one_of, repetition
from mlx_diffgemma.constraint.schema.keywords import is_number
from mlx_diffgemma.constraint.schema.location import Located, SchemaDocument
from mlx_diffgemma.constraint.schema.shapes import (
    ANYTHING,
    ArrayShape,
    Child,
    ConstantShape,
    Limit,
    NumberShape,
    ObjectShape,
    PlainShape,
    PropertyRules,
    Shape,
    Shapes,
    StringShape,
)

PLAIN_TEXT = repetition(one_of(Characters.of([(0x20, 0x7E)])))
"""Texts in which all dialects of patterns mean the same: what does not match a pattern is looked for among these."""


_MAX_SHAPES = 16
"""Shapes of what one part does not allow: more are left out."""


class PartReader(Protocol):
    """What reads the parts of a document."""

    document: SchemaDocument

    def part(self, located: Located) -> Shapes:
        """Return the shapes of one part."""
        ...

    def negation(self, located: Located) -> Shapes:
        """Return shapes of what one part does not allow."""
        ...

    def both(self, one: Shapes, other: Shapes, where: Located) -> Shapes:
        """Return the shapes of what two lists of shapes both allow."""
        ...


def negation(located: Located, reader: PartReader) -> Shapes:
    """Return shapes that allow only values that are not valid for a part of a schema."""
    schema = located.schema
    if isinstance(schema, bool):
        return () if schema else ANYTHING
    found: list[Shape] = []
    # Drafts before 2019-09 ignore what stands beside a reference.
    keywords = ["$ref"] if "$ref" in schema else [keyword for keyword in _OPPOSITES if keyword in schema]
    for keyword in keywords:
        found.extend(shape for shape in _OPPOSITES[keyword](schema[keyword], located, reader) if shape not in found)
    return tuple(found[:_MAX_SHAPES])


def _type(value: Any, _located: Located, _reader: PartReader) -> Sequence[Shape]:
    kinds = {value} if isinstance(value, str) else set(value)
    # Of numbers that are no integers there is no shape.
    kinds = {"number" if kind == "integer" else kind for kind in kinds}
    return [shape for shape in ANYTHING if shape.kind not in kinds]


def _values(values: Sequence[Any]) -> list[Shape]:
    """Return the shapes of all values but some; no arrays and objects if there are any among those."""
    found: list[Shape] = []
    if None not in values:
        found.append(PlainShape("null", False))
    flags = tuple(flag for flag in (True, False) if not any(value is flag for value in values))
    found.append(ConstantShape(flags, is_meant=False) if len(flags) == 1 else PlainShape("boolean", False))
    if not flags:
        found.pop()
    texts = tuple(value for value in values if isinstance(value, str))
    found.append(StringShape(False, unwanted=(Words(texts),) if texts else ()))
    numbers = sorted({Fraction(str(value)) for value in values if is_number(value)})
    limits = [None, *(Limit(number, True) for number in numbers), None]
    found.extend(NumberShape(False, low=low, high=high) for low, high in pairwise(limits))
    if not any(isinstance(value, list) for value in values):
        found.append(ArrayShape(False))
    if not any(isinstance(value, dict) for value in values):
        found.append(ObjectShape(False))
    return found


def _below(value: Any, located: Located, _reader: PartReader) -> Sequence[Shape]:
    # In draft 4, exclusiveMinimum is a flag that excludes the minimum itself.
    limit = Limit(Fraction(str(value)), located.schema.get("exclusiveMinimum") is not True)
    return [NumberShape(True, high=limit)]


def _above(value: Any, located: Located, _reader: PartReader) -> Sequence[Shape]:
    limit = Limit(Fraction(str(value)), located.schema.get("exclusiveMaximum") is not True)
    return [NumberShape(True, low=limit)]


def _up_to(value: Any, _located: Located, _reader: PartReader) -> Sequence[Shape]:
    if isinstance(value, bool):
        return []
    return [NumberShape(True, high=Limit(Fraction(str(value)), False))]


def _from(value: Any, _located: Located, _reader: PartReader) -> Sequence[Shape]:
    if isinstance(value, bool):
        return []
    return [NumberShape(True, low=Limit(Fraction(str(value)), False))]


def _pattern(value: Any, located: Located, reader: PartReader) -> Sequence[Shape]:
    matching = reader.part(reader.document.part(located, {"pattern": value}))
    unwanted = tuple(each for shape in matching if isinstance(shape, StringShape) for each in shape.wanted)
    return [StringShape(True, wanted=(PLAIN_TEXT,), unwanted=unwanted)]


def _required(value: Any, located: Located, reader: PartReader) -> Sequence[Shape]:
    never: Child = (reader.document.part(located, False, "required"),)
    return [*(ObjectShape(True, rules=(PropertyRules(declared=((name, never),)),)) for name in value)]


def _properties(value: Any, located: Located, reader: PartReader) -> Sequence[Shape]:
    found: list[Shape] = []
    for name, part in cast("Mapping[str, Any]", value).items():
        child: Child = (reader.document.part(located, {"not": part}, "properties", name),)
        found.append(ObjectShape(True, rules=(PropertyRules(declared=((name, child),)),), required=(name,)))
    return found


def _parts(value: Any, located: Located, keyword: str, reader: PartReader) -> list[Located]:
    return [reader.document.part(located, part, keyword, number) for number, part in enumerate(value)]


def _all_of(value: Any, located: Located, reader: PartReader) -> Sequence[Shape]:
    return [shape for part in _parts(value, located, "allOf", reader) for shape in reader.negation(part)]


def _any_of(value: Any, located: Located, reader: PartReader) -> Sequence[Shape]:
    opposites = [reader.negation(part) for part in _parts(value, located, "anyOf", reader)]
    return reduce(lambda one, other: reader.both(one, other, located), opposites)


def _count(kind: type[StringShape | ArrayShape | ObjectShape], field: str, step: int) -> Any:
    def opposite(value: Any, _located: Located, _reader: PartReader) -> Sequence[Shape]:
        count = int(value) + step
        return [] if count < 0 else [replace(kind(True), **{field: count})]

    return opposite


_OPPOSITES: dict[str, Callable[[Any, Located, PartReader], Sequence[Shape]]] = {
    "$ref": lambda value, located, reader: reader.negation(reader.document.target(located, value)),
    "type": _type,
    "enum": lambda value, _located, _reader: _values(value),
    "const": lambda value, _located, _reader: _values([value]),
    "pattern": _pattern,
    "required": _required,
    "properties": _properties,
    "allOf": _all_of,
    "anyOf": _any_of,
    "oneOf": _any_of,
    "not": lambda value, located, reader: reader.part(reader.document.part(located, value, "not")),
    "minimum": _below,
    "maximum": _above,
    "exclusiveMinimum": _up_to,
    "exclusiveMaximum": _from,
    "minLength": _count(StringShape, "longest", -1),
    "maxLength": _count(StringShape, "shortest", 1),
    "minItems": _count(ArrayShape, "longest", -1),
    "maxItems": _count(ArrayShape, "shortest", 1),
    "minProperties": _count(ObjectShape, "most", -1),
    "maxProperties": _count(ObjectShape, "fewest", 1),
}
"""For each keyword what returns shapes of values that are not valid for it."""
