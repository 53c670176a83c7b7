"""The keywords of the types in one object of a JSON schema, as shapes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, cast

from mlx_diffgemma.constraint.expression import Expression
from mlx_diffgemma.constraint.patterns.pattern import ECMA, search_match
from mlx_diffgemma.constraint.schema.formats import format_expression
from mlx_diffgemma.constraint.schema.keywords import Schema, refused
from mlx_diffgemma.constraint.schema.location import Located, SchemaDocument
from mlx_diffgemma.constraint.schema.shapes import (
    ArrayShape,
    Child,
    Limit,
    NumberShape,
    ObjectShape,
    PlainShape,
    PropertyRules,
    Shape,
    Shapes,
    StringShape,
    item,
    joined,
    tightest,
)
from mlx_diffgemma.errors import ConstraintError


def typed_shapes(located: Located, document: SchemaDocument) -> Shapes:
    """Return the shapes of what the keywords of the types say: all types that `type` does not rule out."""
    schema: Schema = located.schema
    kinds: str | Sequence[str] | None = schema.get("type")
    wanted = None if kinds is None else {kinds} if isinstance(kinds, str) else set(kinds)
    if wanted is not None and schema.get("nullable") is True:
        wanted.add("null")
    found: list[Shape] = []
    for shape in (
        PlainShape("null", False),
        PlainShape("boolean", False),
        _numbers(schema),
        _strings(schema, located),
        _arrays(schema, located, document),
        _objects(schema, located, document),
    ):
        if wanted is None or shape.kind in wanted:
            found.append(replace(shape, is_meant=shape.is_meant or wanted is not None))
        elif isinstance(shape, NumberShape) and "integer" in wanted:
            found.append(replace(shape, is_meant=True, is_integer=True))
    return tuple(found)


def _strings(schema: Schema, located: Located) -> StringShape:
    wanted: list[Expression] = []
    if "pattern" in schema:
        wanted.append(_pattern(schema["pattern"], located, "pattern"))
    known = format_expression(schema["format"]) if "format" in schema else None
    if known is not None:
        wanted.append(known)
    return StringShape(
        is_meant=bool(wanted) or "minLength" in schema or "maxLength" in schema,
        shortest=_count(schema, "minLength") or 0,
        longest=_count(schema, "maxLength"),
        wanted=tuple(wanted),
    )


def _arrays(schema: Schema, located: Located, document: SchemaDocument) -> ArrayShape:
    keywords = {"items", "prefixItems", "additionalItems", "contains", "minItems", "maxItems", "uniqueItems"}
    first, others = schema.get("prefixItems", ()), schema.get("items", True)
    name, other_name = "prefixItems", "items"
    if not isinstance(others, bool | Mapping):
        # The tuples of the drafts before 2020-12.
        first, others, name, other_name = others, schema.get("additionalItems", True), "items", "additionalItems"
    children = [(document.part(located, each, name, n),) for n, each in enumerate(cast("Sequence[Any]", first))]
    rest = document.child(located, others, other_name)
    arrays = ArrayShape(
        is_meant=bool(keywords & schema.keys()),
        first=tuple(children),
        others=rest,
        shortest=_count(schema, "minItems") or 0,
        longest=_count(schema, "maxItems"),
        is_unique=schema.get("uniqueItems", False),
    )
    return _containing(arrays, schema, document.child(located, schema.get("contains", True), "contains"), located)


def _objects(schema: Schema, located: Located, document: SchemaDocument) -> ObjectShape:
    keywords = {"properties", "required", "additionalProperties", "patternProperties", "propertyNames"}
    keywords |= {"minProperties", "maxProperties", "dependencies", "dependentRequired", "dependentSchemas"}
    properties, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    others = schema.get("additionalProperties", True)
    rules = PropertyRules(
        declared=tuple((name, document.child(located, each, "properties", name)) for name, each in properties.items()),
        patterns=tuple(
            (
                _pattern(pattern, located, "patternProperties"),
                document.child(located, each, "patternProperties", pattern),
            )
            for pattern, each in patterns.items()
        ),
        others=document.child(located, others, "additionalProperties"),
        is_open=bool(patterns) or ("additionalProperties" in schema and others is not False),
    )
    return ObjectShape(
        is_meant=bool(keywords & schema.keys()),
        rules=(rules,) if properties or patterns or others is not True or rules.is_open else (),
        required=tuple(schema.get("required", ())),
        names=tuple(
            [(document.part(located, schema["propertyNames"], "propertyNames"),)] if "propertyNames" in schema else []
        ),
        fewest=_count(schema, "minProperties") or 0,
        most=_count(schema, "maxProperties"),
    )


def _containing(arrays: ArrayShape, schema: Schema, wanted: Child, located: Located) -> ArrayShape:
    """Return the arrays whose first items are valid for `contains`: some of those that contain valid items."""
    if "contains" not in schema:
        return arrays
    fewest, most = int(schema.get("minContains", 1)), schema.get("maxContains")
    if most is not None:
        raise refused(located.path, "the keyword 'maxContains' is not supported")
    count = max(fewest, len(arrays.first))
    first = [item(arrays, number) for number in range(count)]
    first[:fewest] = [joined([child, wanted]) for child in first[:fewest]]
    return replace(arrays, first=tuple(first), shortest=max(arrays.shortest, fewest))


def _pattern(pattern: str, located: Located, keyword: str) -> Expression:
    try:
        return search_match(pattern, ECMA)
    except ConstraintError as error:
        raise refused(".".join(filter(None, [located.path, keyword])), str(error)) from None


def _numbers(schema: Schema) -> NumberShape:
    low = tightest(_limits(schema, "minimum", "exclusiveMinimum"), 1)
    high = tightest(_limits(schema, "maximum", "exclusiveMaximum"), -1)
    step = schema.get("multipleOf")
    return NumberShape(
        is_meant=any(each is not None for each in (low, high, step)),
        low=low,
        high=high,
        step=None if step is None else Fraction(str(step)),
    )


def _limits(schema: Schema, keyword: str, excluding: str) -> list[Limit]:
    """Return the limits on one side; in draft 4 the excluding keyword is a flag."""
    limit, excluded = schema.get(keyword), schema.get(excluding)
    limits = [] if limit is None else [Limit(Fraction(str(limit)), excluded is True)]
    if excluded is not None and not isinstance(excluded, bool):
        limits.append(Limit(Fraction(str(excluded)), True))
    return limits


def _count(schema: Schema, keyword: str) -> int | None:
    """Return a count, which may be written as 2.0."""
    count = schema.get(keyword)
    return None if count is None else int(count)
