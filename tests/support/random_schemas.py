"""JSON schemas at random: all keywords, nested, combined and recursive, in the dialects of drafts 4, 7 and 2020-12."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Schema = dict[str, Any] | bool

_NAMES = ("a", "b", "ab", "x/y", "é", "kind")
_VALUES = (None, True, False, 0, 1, -3, 2.5, 1.0, "", "a", "b", 'x"y\\', "é\n", [], [1, "a"], {}, {"a": 1})
_PATTERNS = ("^[a-c]+$", "b", r"^\d{2,3}$", r"^\w*$", r'^["\\]{2}$', "^a|b$", r"^\S+@x$", "^(?!a).*$", r"\.")
_NAME_PATTERNS = ("^a", "b$", "^x-", "^[a-c]{1,2}$", ".")
_FORMATS = (
    *("date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uri-reference", "uuid"),
    *("regex", "json-pointer", "relative-json-pointer", "int32", "phone"),
)
_STEPS = (1, 2, 3, 7, 10, 0.1, 0.01, 0.25, 2.5, 1.0)
_LIMITS = (-100, -2.5, -1, 0, 0.1, 0.5, 1, 3, 7.25, 12, 1000)
_TYPES = ("null", "boolean", "integer", "number", "string", "array", "object")
_DRAFT_4, _DRAFT_7 = "http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#"


def random_schema(rng: random.Random) -> dict[str, Any]:
    """A schema of a random dialect."""
    dialect = rng.choice(["", "", "", _DRAFT_7, _DRAFT_4])
    return _Generator(rng, dialect).document()


class _Generator:
    def __init__(self, rng: random.Random, dialect: str) -> None:
        self._rng, self._dialect = rng, dialect
        self._names = [f"d{number}" for number in range(rng.choice([0, 0, 1, 2]))]
        self._place = "definitions" if dialect else "$defs"

    def document(self) -> dict[str, Any]:
        schema = self.schema(3)
        document: dict[str, Any] = schema if isinstance(schema, dict) else {"allOf": [{}]}
        if "$ref" in document and self._dialect:
            # These drafts ignore what stands beside a reference: definitions, too, if one is strict.
            document = {"allOf": [document]}
        if self._names:
            document[self._place] = {name: self.object_or_any(2) for name in self._names}
        return {"$schema": self._dialect, **document} if self._dialect else document

    def object_or_any(self, levels: int) -> Any:
        return {"type": "object", **self.objects(levels)} if self._maybe(0.6) else self.schema(levels)

    def schema(self, levels: int) -> Schema:
        """A schema with at most so many levels below it."""
        rng = self._rng
        if self._maybe(0.04):
            return {} if self._dialect == _DRAFT_4 else rng.choice([{}, True])
        if self._maybe(0.01) and self._dialect != _DRAFT_4:
            return False
        if self._names and self._maybe(0.15):
            return self.reference(levels)
        if levels and self._maybe(0.3):
            return self.combined(levels)
        if self._maybe(0.15):
            return {"enum": self._some(_VALUES, 4)} if self._maybe(0.6) else self.constant(rng.choice(_VALUES))
        return self.typed(levels)

    def constant(self, value: Any) -> dict[str, Any]:
        return {"enum": [value]} if self._dialect == _DRAFT_4 else {"const": value}

    def reference(self, levels: int) -> dict[str, Any]:
        beside = self.keywords(levels - 1) if levels and self._maybe(0.2) and not self._dialect else {}
        name = self._rng.choice([*self._names, ""])
        return {"$ref": f"#/{self._place}/{name}" if name else "#", **beside}

    def typed(self, levels: int) -> dict[str, Any]:
        rng = self._rng
        kinds = rng.sample(_TYPES if levels else _TYPES[:5], rng.choice([1, 1, 1, 2]))
        found: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds}
        for kind in kinds:
            found |= self.keywords_of(kind, levels)
        if self._maybe(0.05):
            del found["type"]
        return found

    def keywords(self, levels: int) -> dict[str, Any]:
        return self.keywords_of(self._rng.choice(_TYPES), levels)

    def keywords_of(self, kind: str, levels: int) -> dict[str, Any]:
        made: dict[str, Callable[[], dict[str, Any]]] = {
            "integer": self.numbers,
            "number": self.numbers,
            "string": self.strings,
            "array": lambda: self.arrays(levels),
            "object": lambda: self.objects(levels),
        }
        return made[kind]() if kind in made else {}

    def numbers(self) -> dict[str, Any]:
        low, high = sorted(self._rng.sample(_LIMITS, 2))
        found = self._kept({"minimum": low, "maximum": high, "multipleOf": self._rng.choice(_STEPS)}, 0.35)
        for keyword, limit in (("exclusiveMinimum", low), ("exclusiveMaximum", high)):
            if self._maybe(0.2):
                beside = keyword[len("exclusive") :].lower()
                if self._dialect != _DRAFT_4:
                    found[keyword] = limit
                elif beside in found:
                    found[keyword] = self._maybe(0.5)
        return found

    def strings(self) -> dict[str, Any]:
        rng = self._rng
        shortest = rng.randint(0, 4)
        lengths = {"minLength": rng.choice([shortest, float(shortest)]), "maxLength": shortest + rng.randint(0, 12)}
        patterned = {"pattern": rng.choice(_PATTERNS), "format": rng.choice(_FORMATS)}
        return {**self._kept(lengths, 0.3), **self._kept(patterned, 0.2)}

    def arrays(self, levels: int) -> dict[str, Any]:
        rng, below = self._rng, max(0, levels - 1)
        fewest = rng.randint(0, 2)
        found: dict[str, Any] = {"minItems": fewest, "maxItems": fewest + rng.randint(0, 3)}
        found |= {"uniqueItems": rng.random() < 0.7}
        found = self._kept(found, 0.3)
        first = [self.schema(below) for _ in range(rng.randint(1, 2))] if self._maybe(0.25) else []
        if first and self._dialect:
            found["items"] = first
            found |= self._kept({"additionalItems": rng.choice([False, self.schema(below)])}, 0.5)
        else:
            found |= {"prefixItems": first} if first else {}
            found |= self._kept({"items": self.schema(below)}, 0.85)
        if self._maybe(0.08) and self._dialect != _DRAFT_4:
            found["contains"] = self.schema(below)
            if not self._dialect:
                found |= self._kept({"minContains": rng.randint(0, 2)}, 0.3)
        return found

    def objects(self, levels: int) -> dict[str, Any]:
        rng, below = self._rng, max(0, levels - 1)
        names = rng.sample(_NAMES, rng.randint(0, 3))
        found: dict[str, Any] = {"properties": {name: self.schema(below) for name in names}}
        if self._maybe(0.6):
            # A list of nothing is not allowed in draft 4.
            required = [name for name in [*names, "z"] if rng.random() < (0.1 if name == "z" else 0.5)]
            found |= {"required": required} if required else {}
        others = self.schema(below) if self._maybe(0.4) else False
        found |= self._kept({"additionalProperties": others}, 0.5)
        patterns = {each: self.schema(below) for each in self._some(_NAME_PATTERNS, 2)}
        found |= self._kept({"patternProperties": patterns}, 0.12)
        fewest = rng.randint(0, 3)
        found |= self._kept({"minProperties": fewest, "maxProperties": fewest + rng.randint(0, 2)}, 0.12)
        if self._dialect != _DRAFT_4:
            found |= self._kept({"propertyNames": self.strings()}, 0.08)
        return {**found, **self.dependencies(below)}

    def dependencies(self, levels: int) -> dict[str, Any]:
        rng = self._rng
        needed = [rng.choice(_NAMES)]
        if self._dialect:
            return self._kept({"dependencies": {rng.choice(_NAMES): rng.choice([needed, self.schema(levels)])}}, 0.06)
        found = {"dependentRequired": {rng.choice(_NAMES): needed}}
        found |= {"dependentSchemas": {rng.choice(_NAMES): self.schema(levels)}}
        return self._kept({**found, "unevaluatedProperties": rng.choice([False, self.schema(levels)])}, 0.06)

    def combined(self, levels: int) -> dict[str, Any]:
        rng, below = self._rng, levels - 1
        beside = self.typed(levels) if self._maybe(0.3) else {}
        kind = rng.choice(["anyOf", "oneOf", "allOf", "not", "if", "union", "strings", "annotated"])
        match kind:
            case "not":
                return {**(beside or self.typed(levels)), "not": self.schema(below)}
            case "if" if self._dialect == "":
                found = {"if": self.condition(below)}
                return {**beside, **found, **self._kept({"then": self.schema(below), "else": self.schema(below)}, 0.7)}
            case "union":
                tag = rng.choice(["kind", "a"])
                branches = [self._tagged(tag, value, below) for value in self._some(("x", "y", 1, None), 3)]
                return {rng.choice(["oneOf", "anyOf"]): branches, "discriminator": {"propertyName": tag}}
            case "strings":
                return {"oneOf": [{**self.constant(each), "title": each} for each in self._some(("a", "b", "cc"), 3)]}
            case "annotated":
                return {**self.typed(levels), "title": "t", "x-order": 3, "default": None, "example": 5}
            case _:
                keyword = kind if kind in ("anyOf", "oneOf", "allOf") else "anyOf"
                return {**beside, keyword: [self.schema(below) for _ in range(rng.randint(1, 3))]}

    def condition(self, levels: int) -> Schema:
        if self._maybe(0.5):
            return self.schema(levels)
        name = self._rng.choice(_NAMES)
        return {"properties": {name: self.constant(self._rng.choice(_VALUES))}, "required": [name]}

    def _tagged(self, tag: str, value: Any, levels: int) -> dict[str, Any]:
        objects = self.objects(levels)
        return {
            "type": "object",
            "properties": {tag: None} | objects["properties"] | {tag: self.constant(value)},
            "required": [tag],
            **self._kept({"additionalProperties": False}, 0.5),
        }

    def _maybe(self, probability: float) -> bool:
        return self._rng.random() < probability

    def _kept(self, keywords: dict[str, Any], probability: float) -> dict[str, Any]:
        """Each keyword with a probability."""
        return {keyword: value for keyword, value in keywords.items() if self._maybe(probability)}

    def _some(self, values: tuple[Any, ...], most: int) -> list[Any]:
        return self._rng.sample(values, self._rng.randint(1, most))
