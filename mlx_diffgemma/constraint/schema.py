"""A JSON schema as a regular expression of its JSON texts.

An answer that matches the expression is valid for the schema: every keyword is either expressed, or is an annotation,
or is refused with a ConstraintError that names it. What no regular expression can say is refused too: recursion,
uniqueItems, objects with any keys at any depth.

Not every valid text matches. An object has its properties in the order of the schema and no others, and blanks are
allowed only where programs usually write them: after commas and colons, and with line breaks and indentation around
members and items.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from mlx_diffgemma.constraint.keywords import Schema, check_keywords, refused
from mlx_diffgemma.constraint.regex import JSON_CHARACTER, literal_pattern
from mlx_diffgemma.constraint.scalars import SCALAR_PATTERNS, repeat_pattern
from mlx_diffgemma.errors import ConstraintError

_BLANK, _BREAK = " ?", r"(?:\n *| ?)"
_COMMA, _COLON = f",{_BREAK}", f":{_BLANK}"
_ANNOTATIONS = frozenset(
    "$schema $id $comment $defs definitions title description default examples deprecated readOnly writeOnly "
    "discriminator".split()
)
_KEYWORDS = {
    "object": frozenset("properties required additionalProperties".split()),
    "array": frozenset("items prefixItems minItems maxItems uniqueItems".split()),
    "string": frozenset("minLength maxLength pattern format".split()),
    "integer": frozenset("minimum maximum exclusiveMinimum exclusiveMaximum".split()),
    "number": frozenset("minimum maximum exclusiveMinimum exclusiveMaximum".split()),
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}
_PYTHON_TYPES = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
    "null": type(None),
}  # fmt: skip


def schema_regex(schema: Schema) -> str:
    """Return a pattern of the JSON texts that are valid for `schema`.

    Raises ConstraintError that names the keyword which cannot be kept, and the JSON pointer of its schema.
    """
    try:
        return _SchemaReader(schema).read(schema, "")
    except RecursionError:
        raise ConstraintError("json_schema: it is nested too deeply: give one with fewer levels") from None


class _SchemaReader:
    """Reads one schema; `_references` are those being read, so that a recursion is noticed."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._references: list[str] = []

    def read(self, schema: Any, pointer: str) -> str:
        """Return the pattern of a schema, which is at `pointer` in the root."""
        if not isinstance(schema, Mapping):
            raise refused(pointer, f"{schema!r:.60} is no schema that can be kept: give it a type")
        entries = {key: value for key, value in cast("Schema", schema).items() if key not in _ANNOTATIONS}
        check_keywords(entries, pointer)
        for keyword in ("$ref", "allOf", "anyOf", "oneOf"):
            if keyword in entries:
                if other := [key for key in entries if key != keyword]:
                    raise refused(pointer, f"{other[0]!r} beside {keyword!r} is not supported")
                return self._combined(keyword, entries[keyword], pointer)
        if "const" in entries or "enum" in entries:
            return _values(entries, pointer)
        kinds = _kinds(entries, pointer)
        return _either([self._typed(kind, _keywords_of(kind, entries), pointer) for kind in kinds])

    def _combined(self, keyword: str, value: Any, pointer: str) -> str:
        if keyword == "$ref":
            return self._reference(value, pointer)
        branches = cast("Sequence[Any]", value)
        if keyword == "allOf" and len(branches) > 1:
            raise refused(pointer, "'allOf' with more than one schema is not supported: merge them")
        patterns = [self.read(branch, f"{pointer}/{keyword}/{n}") for n, branch in enumerate(branches)]
        if keyword == "oneOf" and not _are_disjoint([self._resolved(branch, pointer) for branch in branches]):
            raise refused(
                pointer, "'oneOf' is supported only if types or constants tell its schemas apart: use 'anyOf'"
            )
        return _either(patterns)

    def _reference(self, reference: str, pointer: str) -> str:
        if reference in self._references:
            raise refused(pointer, f"{reference} refers to itself: recursion is not supported")
        self._references.append(reference)
        pattern = self.read(self._target(reference, pointer), pointer)
        self._references.pop()
        return pattern

    def _target(self, reference: str, pointer: str) -> Any:
        """Return the schema that a reference names."""
        if not reference.startswith("#"):
            raise refused(pointer, f"$ref {reference!r} leads out of the schema, which is not supported")
        target: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, Mapping) or name not in target:
                raise refused(pointer, f"$ref {reference!r} leads nowhere")
            target = cast("Schema", target)[name]
        return target

    def _resolved(self, schema: Any, pointer: str) -> Any:
        """Return the schema itself, or the one that it refers to."""
        return self._target(schema["$ref"], pointer) if isinstance(schema, Mapping) and "$ref" in schema else schema

    def _typed(self, kind: str, entries: Schema, pointer: str) -> str:
        match kind:
            case "object":
                return self._object(entries, pointer)
            case "array":
                return self._array(entries, pointer)
            case _:
                return SCALAR_PATTERNS[kind](entries, pointer)

    def _object(self, entries: Schema, pointer: str) -> str:
        properties: Schema = entries.get("properties", {})
        required = set(entries.get("required", ()))
        if missing := sorted(required - set(properties)):
            raise refused(pointer, f"the required {missing[0]!r} is none of the properties")
        if not properties:
            return self._free_object(entries.get("additionalProperties"), pointer)
        members = [
            (f"{_json_literal(name)}{_COLON}{self.read(value, f'{pointer}/{name}')}", name in required)
            for name, value in properties.items()
        ]
        return rf"\{{{_BREAK}{_joined_members(members)}{_BREAK}\}}"

    def _free_object(self, values: Any, pointer: str) -> str:
        """Return the pattern of an object with any names, whose values all have one schema."""
        if values is False:
            return rf"\{{{_BLANK}\}}"
        if not isinstance(values, Mapping):
            raise refused(pointer, "an object needs 'properties', or a schema as 'additionalProperties'")
        member = f'"{JSON_CHARACTER}*"{_COLON}{self.read(values, f"{pointer}/additionalProperties")}'
        return rf"\{{{_BREAK}(?:{member}(?:{_COMMA}{member})*)?{_BREAK}\}}"

    def _array(self, entries: Schema, pointer: str) -> str:
        prefix_schemas = entries.get("prefixItems", ())
        prefix = [self.read(each, f"{pointer}/prefixItems/{n}") for n, each in enumerate(prefix_schemas)]
        minimum, maximum = entries.get("minItems", 0), entries.get("maxItems")
        if entries.get("uniqueItems") and maximum != 1:
            raise refused(pointer, "'uniqueItems' is not supported")
        items = entries.get("items")
        if items is None or items is False:
            if not prefix:
                raise refused(pointer, "an array needs 'items'")
            if minimum > len(prefix) or (maximum is not None and maximum < len(prefix)):
                raise refused(pointer, "'minItems' and 'maxItems' must fit 'prefixItems'")
            return rf"\[{_BREAK}{_COMMA.join(prefix)}{_BREAK}\]"
        item = self.read(items, f"{pointer}/items")
        minimum, maximum = max(0, minimum - len(prefix)), None if maximum is None else maximum - len(prefix)
        if maximum is not None and maximum < minimum:
            raise refused(pointer, f"'maxItems' {entries['maxItems']} allows fewer items than there must be")
        if prefix:
            return rf"\[{_BREAK}{_COMMA.join(prefix)}{repeat_pattern(f'{_COMMA}{item}', minimum, maximum)}{_BREAK}\]"
        if maximum == 0:
            return rf"\[{_BLANK}\]"
        rest = repeat_pattern(f"{_COMMA}{item}", max(0, minimum - 1), None if maximum is None else maximum - 1)
        return rf"\[{_BREAK}{f'{item}{rest}' if minimum else f'(?:{item}{rest})?'}{_BREAK}\]"


def _kinds(entries: Schema, pointer: str) -> list[str]:
    """Return the types of a schema. Raises ConstraintError for an unknown type, and for keywords of no type."""
    kinds = entries.get("type") or ("object" if "properties" in entries else None)
    keywords = [key for key in entries if key != "type"]
    if unknown := [key for key in keywords if not any(key in known for known in _KEYWORDS.values())]:
        raise refused(pointer, f"the keyword {unknown[0]!r} is not supported")
    if kinds is None:
        raise refused(pointer, "it has no type: give it one")
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if unknown := [kind for kind in kinds if kind not in _KEYWORDS]:
        raise refused(pointer, f"type {unknown[0]!r} is none of JSON's")
    if unknown := [key for key in keywords if not any(key in _KEYWORDS[kind] for kind in kinds)]:
        raise refused(pointer, f"the keyword {unknown[0]!r} is not supported here")
    return kinds


def _values(entries: Schema, pointer: str) -> str:
    """Return the pattern of the values that `const` or `enum` lists, as far as they have one of the types."""
    if other := [key for key in entries if key not in ("const", "enum", "type")]:
        raise refused(pointer, f"{other[0]!r} beside 'enum' or 'const' is not supported")
    values: list[Any] = [entries["const"]] if "const" in entries else list(entries["enum"])
    kinds = entries.get("type")
    if kinds is not None:
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        values = [value for value in values if any(_has_type(value, kind) for kind in kinds)]
    if not values:
        raise refused(pointer, "no value is allowed")
    return _either([_json_literal(value) for value in values])


def _joined_members(members: Sequence[tuple[str, bool]]) -> str:
    """Return the pattern of properties in order with commas between them; each is a pattern and whether it is required.

    A comma is needed only after another property, so the pattern is built from the last property to the first, in two
    forms: `following` for what comes after a property, and `leading` for an object that begins here.
    """
    leading = following = ""
    for member, is_required in reversed(members):
        begun = f"{member}{following}"
        if is_required:
            leading, following = begun, f"{_COMMA}{member}{following}"
        else:
            leading = f"(?:{begun}|{leading})" if leading else f"(?:{begun})?"
            following = f"(?:{_COMMA}{member})?{following}"
    return leading


def _either(patterns: Sequence[str]) -> str:
    return patterns[0] if len(patterns) == 1 else f"(?:{'|'.join(patterns)})"


def _keywords_of(kind: str, entries: Schema) -> Schema:
    return {key: value for key, value in entries.items() if key in _KEYWORDS[kind]}


def _has_type(value: Any, kind: str) -> bool:
    if isinstance(value, bool) and kind != "boolean":
        return False
    return isinstance(value, cast("type", _PYTHON_TYPES.get(kind, ())))


def _are_disjoint(branches: Sequence[Any]) -> bool:
    """Return whether no value can be valid for two schemas: their types differ, or a constant property of both."""
    for n, one in enumerate(branches):
        for other in branches[n + 1 :]:
            if not isinstance(one, Mapping) or not isinstance(other, Mapping):
                return False
            kinds, their_kinds = _number_kinds(one), _number_kinds(other)
            if kinds and their_kinds and not kinds & their_kinds:
                continue
            if (kinds | their_kinds) - {"object"}:
                return False
            ours, theirs = one.get("properties", {}), other.get("properties", {})
            both = set(one.get("required", ())) & set(other.get("required", ()))
            constants = [(ours[name]["const"], theirs[name]["const"]) for name in both if _constant(ours, theirs, name)]
            if not any(our_value != their_value for our_value, their_value in constants):
                return False
    return True


def _number_kinds(schema: Schema) -> set[str]:
    """Return the types that a schema names; an integer is a number."""
    kinds: str | Sequence[str] = schema.get("type", ())
    return {"number" if kind == "integer" else kind for kind in ([kinds] if isinstance(kinds, str) else kinds)}


def _constant(ours: Schema, theirs: Schema, name: str) -> bool:
    """Return whether a property is a constant in both schemas."""
    return all(isinstance(own.get(name), Mapping) and "const" in own[name] for own in (ours, theirs))


def _json_literal(value: Any) -> str:
    """Return a pattern that matches exactly the JSON text of `value`."""
    return literal_pattern(json.dumps(value, ensure_ascii=False))
