"""A JSON schema as a regular expression for its JSON texts.

Every keyword is either kept, or an annotation, or named in a ConstraintError: an answer that matches validates. Objects
are written in the order of the schema's properties, without others; lines may be broken and indented where JSON allows
blanks. What no regular expression can say (recursion, uniqueItems, objects of any keys at any depth) is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from mlx_diffgemma.constraint.integers import integer_between
from mlx_diffgemma.constraint.regex import ANY, quoted, within_json
from mlx_diffgemma.errors import ConstraintError

Schema: TypeAlias = Mapping[str, Any]

BLANK, BREAK = " ?", r"(?:\n *| ?)"
COMMA, COLON = f",{BREAK}", f":{BLANK}"
NUMBER = r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
DATE = (
    "[0-9]{4}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    "|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
FORMATS = {
    "date": DATE,
    "time": TIME,
    "date-time": f"{DATE}T{TIME}",
    "uuid": "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "email": r"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+",
    "ipv4": rf"{BYTE}(?:\.{BYTE}){{3}}",
}
"""What they allow is valid; of dates and addresses not all that is valid is allowed (no 29 February, no quoting)."""
ANNOTATIONS = frozenset(
    "$schema $id $comment $defs definitions title description default examples deprecated readOnly writeOnly "
    "discriminator".split()
)
KEYWORDS = {
    "object": frozenset("properties required additionalProperties".split()),
    "array": frozenset("items prefixItems minItems maxItems uniqueItems".split()),
    "string": frozenset("minLength maxLength pattern format".split()),
    "integer": frozenset("minimum maximum exclusiveMinimum exclusiveMaximum".split()),
    "number": frozenset("minimum maximum exclusiveMinimum exclusiveMaximum".split()),
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}
PYTHON_TYPES = {
    "object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool,
    "null": type(None),
}  # fmt: skip


def schema_regex(schema: Schema) -> str:
    """The pattern of the JSON texts that are valid. Raises ConstraintError naming keyword and place."""
    return _Reader(schema).read(schema, "")


class _Reader:
    """One schema: where its references lead, and which of them are being read."""

    def __init__(self, root: Schema) -> None:
        self._root = root
        self._open: list[str] = []

    def read(self, schema: Any, at: str) -> str:
        """The pattern of a schema that stands at `at`, a JSON pointer."""
        if not isinstance(schema, Mapping):
            raise _refused(at, f"{schema!r} says nothing that can be kept: give it a type")
        entries = {key: value for key, value in cast("Schema", schema).items() if key not in ANNOTATIONS}
        for combined in ("$ref", "allOf", "anyOf", "oneOf"):
            if combined in entries:
                if other := [key for key in entries if key != combined]:
                    raise _refused(at, f"{other[0]!r} beside {combined!r} is not supported")
                return self._combined(combined, entries[combined], at)
        if "const" in entries or "enum" in entries:
            return self._values(entries, at)
        kinds = entries.pop("type", None) or ("object" if "properties" in entries else None)
        if unknown := [key for key in entries if not any(key in known for known in KEYWORDS.values())]:
            raise _refused(at, f"the keyword {unknown[0]!r} is not supported")
        if kinds is None:
            raise _refused(at, "it has no type: give it one")
        kinds = [kinds] if isinstance(kinds, str) else list(kinds)
        if unknown := [kind for kind in kinds if kind not in KEYWORDS]:
            raise _refused(at, f"type {unknown[0]!r} is none of JSON's")
        if unknown := [key for key in entries if not any(key in KEYWORDS[kind] for kind in kinds)]:
            raise _refused(at, f"the keyword {unknown[0]!r} is not supported here")
        return _either([self._typed(kind, _of(kind, entries), at) for kind in kinds])

    def _combined(self, keyword: str, value: Any, at: str) -> str:
        if keyword == "$ref":
            return self._reference(value, at)
        branches = cast("Sequence[Any]", value)
        if keyword == "allOf" and len(branches) > 1:
            raise _refused(at, "'allOf' with more than one schema is not supported: merge them")
        if keyword == "oneOf" and not _disjoint([self._resolved(branch, at) for branch in branches]):
            raise _refused(at, "'oneOf' is supported where types or constants tell its schemas apart: use 'anyOf'")
        return _either([self.read(branch, f"{at}/{keyword}/{n}") for n, branch in enumerate(branches)])

    def _reference(self, reference: str, at: str) -> str:
        if reference in self._open:
            raise _refused(at, f"{reference} refers to itself: recursion is not supported")
        self._open.append(reference)
        pattern = self.read(self._target(reference, at), at)
        self._open.pop()
        return pattern

    def _target(self, reference: str, at: str) -> Any:
        if not reference.startswith("#"):
            raise _refused(at, f"$ref {reference!r} leads out of the schema, which is not supported")
        target: Any = self._root
        for part in reference.removeprefix("#").split("/")[1:]:
            name = part.replace("~1", "/").replace("~0", "~")
            if not isinstance(target, Mapping) or name not in target:
                raise _refused(at, f"$ref {reference!r} leads nowhere")
            target = cast("Schema", target)[name]
        return target

    def _resolved(self, schema: Any, at: str) -> Any:
        return self._target(schema["$ref"], at) if isinstance(schema, Mapping) and "$ref" in schema else schema

    def _values(self, entries: Schema, at: str) -> str:
        if other := [key for key in entries if key not in ("const", "enum", "type")]:
            raise _refused(at, f"{other[0]!r} beside 'enum' or 'const' is not supported")
        values: list[Any] = [entries["const"]] if "const" in entries else list(entries["enum"])
        kinds = entries.get("type")
        if kinds is not None:
            named = [kinds] if isinstance(kinds, str) else list(kinds)
            values = [value for value in values if any(_is(value, kind) for kind in named)]
        if not values:
            raise _refused(at, "no value is allowed")
        return _either([_literal(value) for value in values])

    def _typed(self, kind: str, entries: Schema, at: str) -> str:
        match kind:
            case "object":
                return self._object(entries, at)
            case "array":
                return self._array(entries, at)
            case _:
                return SCALARS[kind](entries, at)

    def _object(self, entries: Schema, at: str) -> str:
        properties: Schema = entries.get("properties", {})
        required = set(entries.get("required", ()))
        if missing := sorted(required - set(properties)):
            raise _refused(at, f"the required {missing[0]!r} is none of the properties")
        if not properties:
            return self._map(entries.get("additionalProperties"), at)
        written = [
            (f"{_literal(name)}{COLON}{self.read(value, f'{at}/{name}')}", name in required)
            for name, value in properties.items()
        ]
        return rf"\{{{BREAK}{_members(written)}{BREAK}\}}"

    def _map(self, values: Any, at: str) -> str:
        """An object whose names are free, whose values all have one schema."""
        if values is False:
            return rf"\{{{BLANK}\}}"
        if not isinstance(values, Mapping):
            raise _refused(at, "an object needs 'properties', or a schema as 'additionalProperties'")
        member = f'"{ANY}*"{COLON}{self.read(values, f"{at}/additionalProperties")}'
        return rf"\{{{BREAK}(?:{member}(?:{COMMA}{member})*)?{BREAK}\}}"

    def _array(self, entries: Schema, at: str) -> str:
        first = [self.read(each, f"{at}/prefixItems/{n}") for n, each in enumerate(entries.get("prefixItems", ()))]
        least, most = entries.get("minItems", 0), entries.get("maxItems")
        if entries.get("uniqueItems") and most != 1:
            raise _refused(at, "'uniqueItems' is not supported")
        items = entries.get("items")
        if items is None or items is False:
            if not first:
                raise _refused(at, "an array needs 'items'")
            if least > len(first) or (most is not None and most < len(first)):
                raise _refused(at, "'minItems' and 'maxItems' must fit 'prefixItems'")
            return rf"\[{BREAK}{COMMA.join(first)}{BREAK}\]"
        item = self.read(items, f"{at}/items")
        least, most = max(0, least - len(first)), None if most is None else most - len(first)
        if most is not None and most < least:
            raise _refused(at, f"'maxItems' {entries['maxItems']} allows fewer items than there must be")
        if first:
            return rf"\[{BREAK}{COMMA.join(first)}{_times(f'{COMMA}{item}', least, most)}{BREAK}\]"
        if most == 0:
            return rf"\[{BLANK}\]"
        rest = _times(f"{COMMA}{item}", max(0, least - 1), None if most is None else most - 1)
        filled = f"{item}{rest}"
        return rf"\[{BREAK}{filled if least else f'(?:{filled})?'}{BREAK}\]"


def _members(written: Sequence[tuple[str, bool]]) -> str:
    """Properties with commas between them, in order; those that are not required may be left out."""
    behind = ""
    """the pattern of what follows a property"""
    first: str | None = ""
    """the pattern of the same as the first of the object; None: there must be one"""
    for member, is_required in reversed(written):
        begun = f"{member}{behind}"
        if is_required:
            first, behind = begun, f"{COMMA}{member}{behind}"
        else:
            first = f"(?:{begun}|{first})" if first else f"(?:{begun})?"
            behind = f"(?:{COMMA}{member})?{behind}"
    return first or ""


def _string(entries: Schema, at: str) -> str:
    if len(entries.keys() & {"pattern", "format"}) + bool(entries.keys() & {"minLength", "maxLength"}) > 1:
        raise _refused(at, "of 'pattern', 'format' and the lengths only one can be kept")
    if "pattern" in entries:
        return f'"{within_json(entries["pattern"])}"'
    if "format" in entries:
        if entries["format"] not in FORMATS:
            raise _refused(at, f"the format {entries['format']!r} is not supported: there are {', '.join(FORMATS)}")
        return f'"{FORMATS[entries["format"]]}"'
    least, most = entries.get("minLength", 0), entries.get("maxLength")
    if most is not None and most < least:
        raise _refused(at, f"'maxLength' {most} is below 'minLength' {least}")
    return f'"{_times(ANY, least, most)}"'


def _integer(entries: Schema, at: str) -> str:
    lows = [entries[key] + add for key, add in (("minimum", 0), ("exclusiveMinimum", 1)) if key in entries]
    highs = [entries[key] - less for key, less in (("maximum", 0), ("exclusiveMaximum", 1)) if key in entries]
    if any(not isinstance(bound, int) for bound in [*lows, *highs]):
        raise _refused(at, "the bounds of an integer must be integers")
    low, high = max(lows, default=None), min(highs, default=None)
    if low is not None and high is not None and low > high:
        raise _refused(at, f"no integer lies between {low} and {high}")
    return integer_between(low, high)


def _number(entries: Schema, at: str) -> str:
    if entries not in ({}, {"minimum": 0}):
        raise _refused(at, "of a number's bounds only 'minimum': 0 is supported")
    return NUMBER if entries else f"-?{NUMBER}"


def _times(pattern: str, least: int, most: int | None) -> str:
    if (least, most) == (0, None):
        return f"(?:{pattern})*"
    return f"(?:{pattern}){{{least},{'' if most is None else most}}}"


def _either(patterns: Sequence[str]) -> str:
    return patterns[0] if len(patterns) == 1 else f"(?:{'|'.join(patterns)})"


def _of(kind: str, entries: Schema) -> Schema:
    return {key: value for key, value in entries.items() if key in KEYWORDS[kind]}


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool) and kind != "boolean":
        return False
    return isinstance(value, cast("type", PYTHON_TYPES.get(kind, ())))


def _disjoint(branches: Sequence[Any]) -> bool:
    """Whether no value can be valid for two of the schemas: their types differ, or a constant of both."""
    for n, one in enumerate(branches):
        for other in branches[n + 1 :]:
            if not isinstance(one, Mapping) or not isinstance(other, Mapping):
                return False
            kinds = {one.get("type"), other.get("type")}
            if len(kinds) == 2 and None not in kinds and kinds != {"integer", "number"}:
                continue
            mine, theirs = one.get("properties", {}), other.get("properties", {})
            both = set(one.get("required", ())) & set(other.get("required", ()))
            constants = [(mine[name]["const"], theirs[name]["const"]) for name in both if _constant(mine, theirs, name)]
            if not any(here != there for here, there in constants):
                return False
    return True


def _constant(mine: Schema, theirs: Schema, name: str) -> bool:
    """Whether a property is a constant in both."""
    return all(isinstance(own.get(name), Mapping) and "const" in own[name] for own in (mine, theirs))


def _literal(value: Any) -> str:
    """A pattern for exactly this value."""
    return quoted(json.dumps(value, ensure_ascii=False))


def _refused(at: str, reason: str) -> ConstraintError:
    return ConstraintError(f"json_schema{f' at {at}' if at else ''}: {reason}")


SCALARS: dict[str, Callable[[Schema, str], str]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": lambda _entries, _at: "(?:true|false)",
    "null": lambda _entries, _at: "null",
}
