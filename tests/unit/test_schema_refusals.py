"""JSON schemas that cannot be used: each is refused in one line that names the part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from automata import of_schema

from mlx_diffgemma.constraint.spec import read_schema
from mlx_diffgemma.errors import ConstraintError

INTEGER, NULL = {"type": "integer"}, {"type": "null"}
EMPTY = "no value is valid for it"
FEW = "'oneOf' is supported only if types or constants tell its schemas apart: use 'anyOf'"

MALFORMED: list[tuple[Any, str]] = [
    ({"type": "strin"}, "json_schema: type 'strin' is none of JSON's"),
    ({"type": 3}, "'type' must be a text or a list of texts, not 3"),
    ({"type": ["string", {}]}, "'type' must be a text or a list of texts"),
    ({"type": []}, "'type' must be a text or a list of texts, not []"),
    ({"type": "string", "maxLength": -1}, "'maxLength' must be a whole number from 0 on, not -1"),
    ({"type": "string", "minLength": True}, "'minLength' must be a whole number from 0 on, not True"),
    ({"type": "string", "minLength": 2.5}, "'minLength' must be a whole number from 0 on, not 2.5"),
    ({"type": "string", "pattern": []}, "'pattern' must be a text, not []"),
    ({"type": "string", "format": 5}, "'format' must be a text, not 5"),
    ({"type": "integer", "minimum": "3"}, "'minimum' must be a number, not '3'"),
    ({"type": "integer", "minimum": True}, "'minimum' must be a number, not True"),
    ({"type": "number", "minimum": float("inf")}, "'minimum' must be a number, not inf"),
    ({"exclusiveMaximum": "x"}, "'exclusiveMaximum' must be a number, not 'x'"),
    ({"multipleOf": 0}, "'multipleOf' must be a number above 0, not 0"),
    ({"uniqueItems": "yes"}, "'uniqueItems' must be true or false, not 'yes'"),
    ({"properties": []}, "'properties' must be an object of schemas, not []"),
    ({"properties": {5: {}}}, "'properties' must be an object of schemas"),
    ({"properties": {(1, 2): {}}}, "json_schema: all keys of a schema must be texts"),
    ({"properties": {"a": 5}}, "'properties' must be an object of schemas"),
    ({"properties": {"a": NULL}, "required": [["a"]]}, "'required' must be a list of texts"),
    ({"required": True}, "'required' must be a list of texts, not True"),
    (
        {"properties": {"a": {"anyOf": []}}},
        "json_schema at properties.a: 'anyOf' must be a list of schemas that is not",
    ),
    ({"oneOf": []}, "'oneOf' must be a list of schemas that is not empty, not []"),
    ({"allOf": []}, "'allOf' must be a list of schemas that is not empty, not []"),
    ({"anyOf": [5]}, "'anyOf' must be a list of schemas that is not empty, not [5]"),
    ({"items": 5}, "'items' must be a schema, or a list of schemas, not 5"),
    ({"additionalProperties": 5}, "'additionalProperties' must be a schema, not 5"),
    ({"if": 5}, "'if' must be a schema, not 5"),
    ({"dependencies": 5}, "'dependencies' must be an object, not 5"),
    ({"dependencies": {"a": 5}}, "5 is no schema"),
    ({"dependentRequired": {"a": "b"}}, "'dependentRequired' must be an object of lists of texts"),
    ({"enum": 5}, "'enum' must be a list that is not empty, not 5"),
    ({"enum": "abc"}, "'enum' must be a list that is not empty, not 'abc'"),
    ({"enum": []}, "'enum' must be a list that is not empty, not []"),
    ({"enum": ["a", float("nan")]}, "'enum' must be values of JSON, not ['a', nan]"),
    ({"const": "\ud800"}, r"'const' must be values of JSON, not '\ud800'"),
    ({"const": object}, "'const' must be values of JSON, not <class 'object'>"),
    ({"properties": {"\ud800": {}}}, r"'properties' must be an object of schemas, not {'\ud800': {}}"),
    ({"required": ["\ud800"]}, r"'required' must be a list of texts, not ['\ud800']"),
    ({"$ref": None}, "'$ref' must be a text, not None"),
    ({"$ref": 5}, "'$ref' must be a text, not 5"),
    ({"$ref": "#/type", "type": "null"}, "json_schema at type: 'null' is no schema"),
    ({"$ref": "#/default", "default": {"a": 1, "type": 5}}, "json_schema at default: 'type' must be a text or a list"),
    ({"$ref": "#/properties", "properties": {"type": INTEGER}}, "json_schema at properties: 'type' must be a text"),
    ({"$ref": "#x", "default": {"$anchor": "x", "enum": 5}}, "json_schema at default: 'enum' must be a list"),
    ({"$id": "http://a/", "$ref": "http://[x"}, "$ref 'http://[x' is no URI reference"),
]
UNKEPT: list[tuple[Any, str]] = [
    ({"not": {}}, "json_schema: what 'not' leaves cannot be described"),
    ({"properties": {"a": {"$ref": "#/x"}}}, "json_schema at properties.a: $ref '#/x' leads nowhere"),
    ({"$ref": "#x"}, "$ref '#x' leads nowhere"),
    ({"$ref": "#/allOf/3", "allOf": [NULL]}, "$ref '#/allOf/3' leads nowhere"),
    ({"$ref": "other.json"}, "$ref 'other.json' leads out of the schema"),
    ({"$ref": "#"}, "it refers to itself, with no property or item between"),
    ({"anyOf": [{"$ref": "#"}, NULL]}, "it refers to itself, with no property or item between"),
    ({"oneOf": [INTEGER, {"type": "number"}]}, FEW),
    ({"type": "integer", "minimum": 5, "maximum": 4}, EMPTY),
    ({"type": "number", "exclusiveMinimum": 5, "maximum": 5}, EMPTY),
    ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, EMPTY),
    ({"type": "string", "enum": [3]}, EMPTY),
    ({"const": 1, "enum": [2]}, EMPTY),
    ({"type": "string", "minLength": 3, "maxLength": 2}, EMPTY),
    ({"type": "array", "minItems": 3, "maxItems": 2}, EMPTY),
    ({"type": "array", "items": False, "minItems": 1}, EMPTY),
    ({"type": "array", "prefixItems": [NULL, False], "minItems": 2}, EMPTY),
    ({"type": "object", "properties": {"a": False}, "required": ["a"]}, EMPTY),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, EMPTY),
    ({"allOf": [INTEGER, NULL]}, EMPTY),
    (
        {"properties": {"tags": {"items": {"type": "string", "not": {"format": "uri"}}}}},
        "json_schema at properties.tags.items: what 'not' leaves",
    ),
    ({"contains": NULL, "maxContains": 2}, "the keyword 'maxContains' is not supported"),
    ({"prefixItems": [NULL], "unevaluatedItems": False}, "the keyword 'unevaluatedItems' is not supported"),
    (
        {"properties": {"a": {"$dynamicRef": "#a"}}},
        "json_schema at properties.a: the keyword '$dynamicRef' is not supported",
    ),
    (
        {"properties": {"a": {"items": {"type": "number"}, "uniqueItems": True}}},
        "json_schema at properties.a: 'uniqueItems' is kept for",
    ),
    ({"prefixItems": [INTEGER, INTEGER], "uniqueItems": True}, "or for items that differ by their schemas"),
    ({"properties": {"a": {"pattern": "("}}}, "json_schema at properties.a.pattern: pattern '(': missing )"),
    ({"patternProperties": {"(": {}}}, "json_schema at patternProperties: pattern '(': missing )"),
    ({"type": "string", "pattern": r"(a)\1"}, r"json_schema at pattern: pattern '(a)\\1': the back-reference \1"),
    ({"type": "number", "minimum": 1e300}, "json_schema: numbers above 1e+40 cannot be told apart"),
    ({"type": "integer", "exclusiveMaximum": -(10**400)}, "json_schema: numbers below -1e+40 cannot be told apart"),
    ({"type": "number", "multipleOf": 1.23457}, "json_schema: 'multipleOf' 1.23457 has too many remainders"),
]
LARGE: list[tuple[Any, str]] = [
    ({"properties": {"a": {"type": "string", "pattern": r"\w{3000}"}}}, r"\w{3000} makes the constraint too large"),
    ({"type": "string", "minLength": 200_000}, "too large"),
    ({"type": "array", "items": INTEGER, "minItems": 200_000}, "too large"),
]


@pytest.mark.parametrize(("schema", "message"), [*MALFORMED, *UNKEPT, *LARGE], ids=lambda each: str(each)[:60])
def test_what_cannot_be_kept_is_named_in_one_line(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ConstraintError) as raised:
        of_schema(schema)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("levels", [500, 2000, 5000])
@pytest.mark.parametrize("keyword", ["items", "properties", "anyOf", "not", "$defs"])
def test_a_schema_that_is_nested_too_deeply_is_refused(levels: int, keyword: str) -> None:
    schema: dict[str, Any] = NULL
    for _ in range(levels):
        inner: Any = {"a": schema} if keyword in ("properties", "$defs") else [schema] if keyword == "anyOf" else schema
        schema = {keyword: inner}
    with pytest.raises(ConstraintError, match=r"json_schema.*: it (is nested too deeply|has more than \d+ levels)"):
        of_schema(schema)


def test_a_schema_within_itself_is_refused() -> None:
    schema: dict[str, Any] = {"type": "array"}
    schema["items"] = schema
    with pytest.raises(ConstraintError, match="json_schema: it cannot be written as JSON: Circular reference"):
        of_schema(schema)


def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "schema.json"
    file.write_text("[" * 100_000)
    with pytest.raises(ConstraintError, match=r"schema\.json is not JSON: .*recursion"):
        read_schema(file)


@pytest.mark.parametrize("levels", [150, 300, 390])
def test_deep_arrays_are_written_or_refused_in_one_line(levels: int) -> None:
    schema: dict[str, Any] = INTEGER
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    try:
        automaton = of_schema(schema)
    except ConstraintError as error:
        assert "\n" not in str(error)
    else:
        assert automaton.accepts(levels * "[" + "1" + levels * "]")
