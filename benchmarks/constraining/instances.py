"""How an instance is written, and why a valid one may be refused: by simple rules, which may be wrong.

What a schema says of a part of an instance is found loosely: all that its references and combinations say of it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import unquote

Schemas: TypeAlias = list[Mapping[str, Any]]
"""All that a schema says of one part of an instance, without references and combinations."""
_LEVELS = 5
"""Levels that a free value, or a part of a schema within itself, may have before its depth is given as the reason."""
_EXACT = 2**53


def written(data: Any) -> bytes:
    """Return an instance as this project writes JSON."""
    return json.dumps(data, ensure_ascii=False).encode(errors="surrogatepass")


def reordered(schema: Any, data: Any) -> Any:
    """Return an instance with its keys in the order in which the schema names them, others after them."""
    return _reordered(schema, _flat(schema, [schema], data), data)


def _reordered(root: Any, schemas: Schemas, data: Any) -> Any:
    if isinstance(data, list):
        return [_reordered(root, _at(root, schemas, place, each), each) for place, each in enumerate(data)]
    if not isinstance(data, dict):
        return data
    named = [name for schema in schemas for name in _mapping(schema.get("properties"))]
    named += [name for schema in schemas for name in _texts(schema.get("required"))]
    keys = [*dict.fromkeys(name for name in named if name in data)]
    keys += [key for key in data if key not in set(keys)]
    return {key: _reordered(root, _at(root, schemas, key, data[key]), data[key]) for key in keys}


def reason(schema: Any, data: Any) -> str:
    """Return why a valid instance may have been refused although its keys are in order."""
    parts = list(_parts(schema, _flat(schema, [schema], data), data))
    if any(_has_undeclared_keys(*part) for part in parts):
        return "undeclared keys"
    if _depth_within_itself(schema, data) > _LEVELS or any(_free_depth(*part) > _LEVELS for part in parts):
        return "depth"
    if any(isinstance(part, list) and True in _all_of("uniqueItems", schemas) for schemas, part in parts):
        return "uniqueness"
    if any(_is_unusual_number(part) for _, part in parts):
        return "number form"
    formats = [str(each) for schemas, part in parts if isinstance(part, str) for each in _all_of("format", schemas)]
    if formats:
        return f"format {formats[0]}"
    is_escaped = any("\\" in json.dumps(part, ensure_ascii=False) for _, part in parts if isinstance(part, str))
    return "string escapes" if is_escaped else "other"


def _all_of(keyword: str, schemas: Schemas) -> list[Any]:
    return [schema[keyword] for schema in schemas if keyword in schema]


def _parts(root: Any, schemas: Schemas, data: Any) -> Iterator[tuple[Schemas, Any]]:
    """Yield every part of an instance, with what the schema says of it."""
    yield schemas, data
    inside = enumerate(data) if isinstance(data, list) else data.items() if isinstance(data, dict) else ()
    for place, each in inside:
        yield from _parts(root, _at(root, schemas, place, each), each)


def _at(root: Any, schemas: Schemas, place: str | int, data: Any) -> Schemas:
    """Return what schemas of an object or array say of the value of one key or place."""
    found: list[Any] = []
    for schema in schemas:
        if isinstance(place, str):
            patterns, properties = _mapping(schema.get("patternProperties")), _mapping(schema.get("properties"))
            matching = [each for pattern, each in patterns.items() if _finds(pattern, place)]
            own = [properties[place]] if place in properties else []
            found += own + matching or [schema.get("additionalProperties")]
        else:
            tuples = [each for each in map(_list, (schema.get("prefixItems"), schema.get("items"))) if each]
            own = [each[place] for each in tuples if place < len(each)]
            found += own or [schema.get("additionalItems" if tuples and "prefixItems" not in schema else "items")]
    return _flat(root, found, data)


def _flat(root: Any, schemas: Sequence[Any], data: Any, seen: tuple[str, ...] = ()) -> Schemas:
    """Return schemas, and all that they refer to or combine; of alternatives first those that name most of the keys."""
    found: Schemas = []
    for schema in schemas:
        if not isinstance(schema, Mapping):
            continue
        found.append(schema)
        reference = schema.get("$ref", schema.get("$dynamicRef"))
        if isinstance(reference, str) and reference not in seen:
            found += _flat(root, [_target(root, reference)], data, (*seen, reference))
        found += _flat(root, _list(schema.get("allOf")), data, seen)
        branches = [_flat(root, [each], data, seen) for name in ("oneOf", "anyOf") for each in _list(schema.get(name))]
        found += [each for branch in sorted(branches, key=lambda branch: -_fit(branch, data)) for each in branch]
        found += _flat(root, [schema.get("then"), schema.get("else")], data, seen)
    return found


def _fit(schemas: Schemas, data: Any) -> int:
    """Return how many keys of an object the schemas name, and how many of its constants they say."""
    if not isinstance(data, dict):
        return 0
    named = [
        (key, each) for schema in schemas for key, each in _mapping(schema.get("properties")).items() if key in data
    ]
    constants = [
        data[key] in _list(each.get("enum")) or each.get("const") == data[key]
        for key, each in named
        if isinstance(each, Mapping)
    ]
    return len({key for key, _ in named}) + len(data) * sum(constants)


def _target(root: Any, reference: str) -> Any:
    """Return where a reference within the schema leads; None if that is nowhere."""
    target = root
    for step in unquote(reference.removeprefix("#")).split("/")[1:]:
        name = step.replace("~1", "/").replace("~0", "~")
        if isinstance(target, Mapping):
            target = target.get(name)
        elif isinstance(target, list) and name.isdigit() and int(name) < len(target):
            target = target[int(name)]
        else:
            return None
    return target if reference.startswith("#") else None


def _has_undeclared_keys(schemas: Schemas, data: Any) -> bool:
    """Whether an object has keys that are not named, where others are."""
    named = {name for schema in schemas for name in _mapping(schema.get("properties"))}
    return isinstance(data, dict) and bool(named) and not data.keys() <= named


def _free_depth(schemas: Schemas, data: Any) -> int:
    """Return the levels of a value of which the schema says nothing."""
    says = {name for schema in schemas for name in schema}
    return (
        0
        if says & {"properties", "items", "prefixItems", "additionalProperties", "patternProperties"}
        else _depth(data)
    )


def _depth(data: Any) -> int:
    if not isinstance(data, list | dict):
        return 0
    return 1 + max(map(_depth, data.values() if isinstance(data, dict) else data), default=0)


def _depth_within_itself(schema: Any, data: Any) -> int:
    """Return the levels of the instance if the schema refers to a part of itself, which is likely recursion."""
    text = json.dumps(schema)
    return _depth(data) if '"$ref": "#' in text and _is_recursive(schema) else 0


def _is_recursive(schema: Any) -> bool:
    """Whether following references within a schema leads back to one of them."""

    def references(part: Any) -> Iterator[str]:
        if isinstance(part, Mapping):
            if isinstance(part.get("$ref"), str):
                yield part["$ref"]
            for each in part.values():
                yield from references(each)
        elif isinstance(part, list):
            for each in part:
                yield from references(each)

    after = {name: set(references(_target(schema, name))) for name in set(references(schema))}
    for _ in after:
        after = {name: targets.union(*(after[each] for each in targets)) for name, targets in after.items()}
    return any(name in targets for name, targets in after.items())


def _is_unusual_number(data: Any) -> bool:
    """Whether a number is written as 1.0 or 1e+20, or is not exact in floating point."""
    if isinstance(data, bool) or not isinstance(data, int | float):
        return False
    return abs(data) >= _EXACT or (isinstance(data, float) and (data.is_integer() or "e" in repr(data)))


def _finds(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _texts(value: Any) -> list[str]:
    return [each for each in _list(value) if isinstance(each, str)]
