"""Objects of a JSON schema as expressions of their JSON texts: declared properties in order, then any others."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from mlx_diffgemma.constraint.expression import NOTHING, Expression, Words, either, repetition
from mlx_diffgemma.constraint.schema.arrays import Writer
from mlx_diffgemma.constraint.schema.different import IN_ORDER, with_first_characters
from mlx_diffgemma.constraint.schema.emptiness import child_allows
from mlx_diffgemma.constraint.schema.layout import COMMA, member, object_of
from mlx_diffgemma.constraint.schema.negation import PLAIN_TEXT
from mlx_diffgemma.constraint.schema.shapes import Child, ConstantShape, ObjectShape, StringShape, joined, met


def object_expression(objects: ObjectShape, writer: Writer) -> Expression:
    """Return an expression of the objects of a shape; NOTHING if there are none."""
    members = [(_declared(name, objects, writer), name in objects.required) for name in objects.declared]
    if any(each is NOTHING and is_required for each, is_required in members):
        return NOTHING
    members = [each for each in members if each[0] is not NOTHING]
    others = _others(objects, writer)
    fewest = objects.fewest
    if fewest > len(members) + 1 and others:
        # More of the others are needed, with names that are certainly different.
        writer.note(f"properties with names of any kind are written {IN_ORDER}")
        members += [
            (member(writer.shape(each), value), False)
            for names, value in others
            for each in with_first_characters(names)
        ]
        return object_of(members, fewest, objects.most)
    room = None if objects.most is None else objects.most - len(members)
    if others and room != 0 and (room is None or room > 0):
        each = either([member(writer.shape(names), value) for names, value in others])
        most = writer.count(1, room, "properties")
        members.append(
            (repetition(each, 1, most, COMMA, f"an object of up to {most} properties" if most else ""), False)
        )
    return object_of(members, fewest, objects.most)


def _declared(name: str, objects: ObjectShape, writer: Writer) -> Expression:
    if not all(child_allows(names, name, writer.shapes) for names in objects.names):
        return NOTHING
    return member(json_words([name]), writer.child(objects.child(name)))


def json_words(values: Iterable[Any]) -> Expression:
    """Return an expression of the JSON texts of some values; NOTHING if there are none."""
    texts = tuple(json.dumps(value, ensure_ascii=False) for value in values)
    return Words(texts) if texts else NOTHING


def _others(objects: ObjectShape, writer: Writer) -> list[tuple[StringShape, Expression]]:
    """Return the names that no rule declares, as shapes of strings, each with an expression of its values."""
    patterns = [(number, *each) for number, rules in enumerate(objects.rules) for each in rules.patterns]
    declared = (Words(objects.declared),) if objects.declared else ()
    groups: list[tuple[StringShape, Child]] = []
    for place, (number, pattern, child) in enumerate(patterns):
        rest = [rules.others for n, rules in enumerate(objects.rules) if n != number]
        unwanted = [other for n, (_, other, _) in enumerate(patterns) if n != place]
        wanted = (pattern, PLAIN_TEXT) if unwanted else (pattern,)
        groups.append((StringShape(True, 0, None, wanted, (*unwanted, *declared)), joined([child, *rest])))
    if any(rules.is_open for rules in objects.rules) or not (patterns or objects.declared):
        unwanted = [pattern for _, pattern, _ in patterns]
        names = StringShape(True, 0, None, (PLAIN_TEXT,) if unwanted else (), (*unwanted, *declared))
        groups.append((names, joined(rules.others for rules in objects.rules)))
    return [
        (shape, expression)
        for names, child in groups
        if (expression := writer.child(child)) is not NOTHING
        for shape in _allowed(names, objects, writer)
    ]


def _allowed(names: StringShape, objects: ObjectShape, writer: Writer) -> list[StringShape]:
    """Return the names that are valid for the schemas of all names."""
    found = [names]
    for child in objects.names:
        allowed = [shape for shape in writer.shapes(child) if isinstance(shape, StringShape)]
        allowed += [_listed(shape.values) for shape in writer.shapes(child) if isinstance(shape, ConstantShape)]
        found = [both for each in found for shape in allowed if isinstance(both := met(each, shape), StringShape)]
    return found


def _listed(values: tuple[Any, ...]) -> StringShape:
    return StringShape(True, wanted=(Words(tuple(value for value in values if isinstance(value, str))),))
