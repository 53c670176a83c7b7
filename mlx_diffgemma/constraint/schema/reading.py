"""A part of a JSON schema as shapes: what it allows, type by type."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from typing import cast

from mlx_diffgemma.constraint.schema.emptiness import allows, are_apart, is_empty
from mlx_diffgemma.constraint.schema.keywords import Schema, refused, says_only
from mlx_diffgemma.constraint.schema.location import Located, SchemaDocument
from mlx_diffgemma.constraint.schema.negation import negation
from mlx_diffgemma.constraint.schema.shapes import (
    ANYTHING,
    Child,
    ConstantShape,
    ObjectShape,
    PropertyRules,
    Shape,
    Shapes,
    met,
)
from mlx_diffgemma.constraint.schema.typed import typed_shapes
from mlx_diffgemma.errors import ConstraintError

_MAX_SHAPES = 100
"""Shapes of one part of a schema: more combinations of alternatives are left out."""

_MAX_WORK = 15_000
"""Pairs of shapes that are met while a document is read."""


class _CircularError(ConstraintError):
    """A part of a schema is needed to read itself."""


class SchemaReading:
    """Reads the parts of one document; every part is read once."""

    def __init__(self, document: SchemaDocument) -> None:
        self.document = document
        self.notes: dict[str, None] = {}
        self._work = 0
        self._shapes: dict[Child, Shapes] = {}
        self._negations: dict[Located, Shapes] = {}
        self._branches: dict[Located, list[Child] | None] = {}
        self._references: list[Located] = []

    def child(self, child: Child) -> Shapes:
        """Return the shapes of what is valid for several parts of the schema."""
        found = self._shapes.get(child)
        if found is None:
            found = ANYTHING
            for part in child:
                found = self.both(found, self.part(part), part)
            self._shapes[child] = found
        return found

    def negation(self, located: Located) -> Shapes:
        """Return shapes of what one part of the schema does not allow; none while it is being read."""
        found = self._negations.get(located)
        if found is None:
            self._negations[located] = ()
            found = self._negations[located] = negation(located, self)
        return found

    def known(self, child: Child) -> Shapes:
        """Return the shapes of a child, or those of any value if it is just being read."""
        try:
            return self.child(child)
        except _CircularError:
            return ANYTHING

    def both(self, one: Shapes, other: Shapes, where: Located) -> Shapes:
        """Return the shapes of what two lists of shapes both allow."""
        self._work += len(one) * len(other)
        if self._work > _MAX_WORK:
            raise refused(where.path, "it has too many combinations of alternatives: use fewer 'oneOf' and 'anyOf'")
        found: list[Shape] = []
        for each, its in product(one, other):
            shape = self._met(each, its)
            if shape is not None and shape not in found and not is_empty(shape, self.child, levels=0):
                found.append(shape)
            if len(found) == _MAX_SHAPES:
                self.notes[f"of the combinations of alternatives{_of(where)}, {_MAX_SHAPES} are written"] = None
                break
        return tuple(found)

    def _met(self, one: Shape, other: Shape) -> Shape | None:
        if isinstance(one, ConstantShape):
            return ConstantShape(tuple(value for value in one.values if allows(other, value, self.child)))
        if isinstance(other, ConstantShape):
            return self._met(other, one)
        return met(one, other)

    def part(self, located: Located) -> Shapes:
        """Return the shapes of one part of the schema."""
        found = self._shapes.get((located,))
        if found is None:
            if any(located is each for each in self._references):
                where = refused(located.path, "it refers to itself, with no property or item between")
                raise _CircularError(str(where))
            self._references.append(located)
            try:
                found = self._new_part(located)
            finally:
                self._references.pop()
            self._shapes[located,] = found
        return found

    def _new_part(self, located: Located) -> Shapes:
        schema = located.schema
        if isinstance(schema, bool):
            return ANYTHING if schema else ()
        shapes = self._own(located, schema)
        if "$ref" in schema:
            target = self.document.target(located, schema["$ref"])
            shapes = self.both(shapes, self.part(target), located)
        for part in self._parts(located, "allOf"):
            shapes = self.both(shapes, self.part(part), located)
        if "anyOf" in schema:
            branches = [self.part(part) for part in self._parts(located, "anyOf")]
            shapes = self.both(shapes, tuple(shape for branch in branches for shape in branch), located)
        if "oneOf" in schema:
            shapes = self.both(shapes, self._one_of(located), located)
        if "not" in schema:
            shapes = self._without(shapes, located, self.document.part(located, schema["not"], "not"))
        if "if" in schema:
            shapes = self.both(shapes, self._conditional(located), located)
        shapes = self._with_dependencies(shapes, located)
        return self._without_unevaluated(shapes, located)

    def _parts(self, located: Located, keyword: str) -> list[Located]:
        return [
            self.document.part(located, part, keyword, number)
            for number, part in enumerate(located.schema.get(keyword, ()))
        ]

    def _own(self, located: Located, schema: Schema) -> Shapes:
        """Return the shapes of what the keywords of the types say, and of listed values."""
        shapes = typed_shapes(located, self.document)
        if "enum" in schema:
            shapes = self.both(shapes, (ConstantShape(tuple(schema["enum"])),), located)
        if "const" in schema:
            shapes = self.both(shapes, (ConstantShape((schema["const"],)),), located)
        return shapes

    def _one_of(self, located: Located) -> Shapes:
        """Return the shapes of each branch, without what another branch allows too."""
        parts = self._parts(located, "oneOf")
        branches = [self.part(part) for part in parts]
        found: list[Shape] = []
        for number, branch in enumerate(branches):
            alone = branch
            for other, part in enumerate(parts):
                if other != number and not self._all_apart(alone, branches[other]):
                    alone = self.both(alone, self.negation(part), located)
            found.extend(alone)
        if not found and any(branches):
            raise refused(
                located.path, "'oneOf' is supported only if types or constants tell its schemas apart: use 'anyOf'"
            )
        return tuple(found)

    def branches(self, located: Located) -> list[Child] | None:
        """Return the parts of which a value must be valid for any, if a part says that and nothing else."""
        if located not in self._branches:
            keyword = "anyOf" if says_only(located.schema, "anyOf") else "oneOf"
            is_union = says_only(located.schema, keyword)
            if is_union and keyword == "oneOf":
                shapes = [self.part(part) for part in self._parts(located, keyword)]
                is_union = all(self._all_apart(one, other) for one, other in combinations(shapes, 2))
            parts = enumerate(located.schema[keyword] if is_union else ())
            found = [self.document.child(located, part, keyword, number) for number, part in parts]
            self._branches[located] = found or None
        return self._branches[located]

    def _all_apart(self, one: Shapes, other: Shapes) -> bool:
        return all(are_apart(each, its, self.known) for each in one for its in other)

    def _without(self, shapes: Shapes, located: Located, unwanted: Located) -> Shapes:
        left = self.both(shapes, self.negation(unwanted), located)
        if shapes and not left:
            raise refused(located.path, "what 'not' leaves cannot be described: say what is allowed instead")
        return left

    def _conditional(self, located: Located) -> Shapes:
        """Return the shapes of `if` with `then`, and of its opposite with `else`."""
        schema = located.schema
        condition = self.document.part(located, schema["if"], "if")
        then, otherwise = (self.document.child(located, schema.get(key, True), key) for key in ("then", "else"))
        kept = self.both(self.part(condition), self.child(then), located)
        return kept + self.both(self.negation(condition), self.child(otherwise), located)

    def _with_dependencies(self, shapes: Shapes, located: Located) -> Shapes:
        schema = located.schema
        needs = {**schema.get("dependencies", {}), **schema.get("dependentRequired", {})}
        needs |= schema.get("dependentSchemas", {})
        never = self.document.part(located, False, "dependencies")
        for name, needed in needs.items():
            absent = _only_objects(ObjectShape(False, rules=(PropertyRules(declared=((name, (never,)),)),)))
            if isinstance(needed, bool | Mapping):
                present = self.child(self.document.child(located, needed, "dependencies", name))
            else:
                present = (ObjectShape(False, required=tuple(cast("Sequence[str]", needed))),)
            present = tuple(shape for shape in present if isinstance(shape, ObjectShape))
            shapes = self.both(shapes, (*absent, *present), located)
        return shapes

    def _without_unevaluated(self, shapes: Shapes, located: Located) -> Shapes:
        """Apply unevaluatedProperties to the names of which no part of the schema spoke."""
        others = located.schema.get("unevaluatedProperties", True)
        if located.schema.get("unevaluatedItems", True) is not True:
            raise refused(located.path, "the keyword 'unevaluatedItems' is not supported")
        if others is True:
            return shapes
        child = self.document.child(located, others, "unevaluatedProperties")
        return tuple(_closed(shape, child) if isinstance(shape, ObjectShape) else shape for shape in shapes)


def _only_objects(objects: ObjectShape) -> Shapes:
    """Return a condition on objects that leaves other types as they are."""
    return (objects, *(shape for shape in ANYTHING if not isinstance(shape, ObjectShape)))


def _closed(objects: ObjectShape, others: Child) -> ObjectShape:
    """Give the names of which no rule speaks another schema."""
    declared = tuple((name, ()) for name in dict.fromkeys(n for rules in objects.rules for n, _ in rules.declared))
    patterns = tuple((pattern, ()) for rules in objects.rules for pattern, _ in rules.patterns)
    if any(rules.is_open and not rules.patterns for rules in objects.rules):
        return objects
    return replace(objects, rules=(*objects.rules, PropertyRules(declared, patterns, others)))


def _of(where: Located) -> str:
    return f" of {where.path}" if where.path else ""
