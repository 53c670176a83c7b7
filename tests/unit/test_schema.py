"""JSON schemas as automata over bytes, against jsonschema: each keyword, and how keywords work together."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest
from automata import of_schema, sampled
from validity import fault

from mlx_diffgemma.constraint.description import described
from mlx_diffgemma.constraint.schema.integers import integer_between
from mlx_diffgemma.constraint.spec import JsonSchema
from mlx_diffgemma.errors import ConstraintError

Case = tuple[dict[str, Any], list[str], list[str]]
"""A schema, texts that are accepted, and texts that are not."""
DRAFT_4, DRAFT_7 = "http://json-schema.org/draft-04/schema#", "http://json-schema.org/draft-07/schema#"
TEXT, INTEGER, NULL = {"type": "string"}, {"type": "integer"}, {"type": "null"}


def objects(**properties: Any) -> dict[str, Any]:
    """The schema of objects with these properties, all required, and no others."""
    names = list(properties)
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


JSON: list[Case] = [
    ({"properties": {"a": INTEGER, "b": INTEGER}}, ["{}", '{"b": 1}', '{"a":1,"b":2}'], ['{"a":1,}', '{"a":"1"}']),
    (objects(a=INTEGER), ['{\n  "a": 1\n}', '{"a": 1}'], ["{}", '{"a": 1, "b": 1}', '{"a": 1} ', ' {"a": 1}']),
    ({"type": "number"}, ["-1.5e+3", "0", "-0.5", "1E9"], ["01", ".5", "1.", "+1", "NaN", "Infinity"]),
    (TEXT, ['"a\\"b\\né"', '""'], ['"a\nb"', '"', "a"]),
    (
        {"type": "array", "items": NULL},
        ["[]", "[null, null]", "[null,null]", "[\n  null\n]"],
        ["[null,]", "[,]", "null"],
    ),
    (
        {"enum": ["a", 3, None, True, {"b": [1, 'x"']}]},
        ['"a"', "3", "null", "true", '{"b": [1, "x\\""]}'],
        ["false", "4", "{}"],
    ),
    ({"type": "string", "enum": ["a", 3]}, ['"a"'], ["3"]),
    ({"const": 'say "hi"\n'}, ['"say \\"hi\\"\\n"'], ['"say hi"']),
    ({"const": 1, "enum": [1, 2]}, ["1"], ["2"]),
    ({"type": "integer", "const": True, "enum": [1, True], "title": "none"} | {"type": "boolean"}, ["true"], ["1"]),
]
NUMBERS: list[Case] = [
    (
        {"type": ["integer", "null"], "minimum": -3, "exclusiveMaximum": 12},
        ["-3", "0", "11", "null"],
        ["-4", "12", "-0.5"],
    ),
    ({"type": "integer", "exclusiveMinimum": 0}, ["1", "10", "123456789012345678901234567890"], ["0", "-1", "01"]),
    ({"type": "integer", "minimum": -(10**30), "maximum": 10**30}, [str(10**30), str(-(10**30))], [str(10**30 + 1)]),
    ({"type": "integer", "minimum": -(10**400), "maximum": 10**400}, ["0", str(10**39)], []),
    ({"type": "number", "minimum": 0}, ["0", "0.5", "1e5"], ["-1", "-0.5"]),
    ({"type": "number", "exclusiveMinimum": 0}, ["0.1", "1", "0.001"], ["0", "-1", "0.0", "0.000"]),
    (
        {"type": "number", "minimum": 0, "maximum": 1},
        ["0", "1", "0.0", "1.0", "0.99"],
        ["1.01", "2", "-0.1", "1.5", "10"],
    ),
    ({"type": "number", "maximum": 4}, ["4", "-100", "3.99", "4.0", "-4.5"], ["4.1", "5", "40"]),
    (
        {"type": "number", "minimum": -1.5, "maximum": -0.25},
        ["-1", "-1.5", "-0.25", "-0.3"],
        ["-0.2", "-1.51", "0", "1"],
    ),
    (
        {"type": "number", "exclusiveMinimum": 0.1, "exclusiveMaximum": 0.3},
        ["0.2", "0.11", "0.29"],
        ["0.1", "0.3", "0.30"],
    ),
    ({"type": "number", "exclusiveMaximum": 0}, ["-0.1", "-1"], ["0", "-0", "-0.0", "1"]),
    ({"type": "integer", "minimum": 0.5, "maximum": 2.5}, ["1", "2"], ["0", "3"]),
    ({"type": "integer", "multipleOf": 7}, ["0", "7", "-14", "700"], ["1", "13", "07"]),
    ({"type": "integer", "multipleOf": 2, "minimum": 3, "maximum": 8}, ["4", "8"], ["2", "5", "10"]),
    ({"type": "integer", "multipleOf": 0.5}, ["3"], ["0.5"]),
    ({"type": "integer", "multipleOf": 1000}, ["0", "1000", "-2000"], ["100", "1500", "00"]),
    ({"type": "number", "multipleOf": 0.1}, ["0.3", "5", "-0.7"], ["0.35", "00.1", "007"]),
    ({"type": "number", "multipleOf": 0.01, "minimum": 0}, ["0.01", "19.99"], ["0.001", "-1", "0171"]),
    ({"type": "number", "multipleOf": 0.25, "maximum": 1}, ["0.75", "1", "0.5"], ["0.3", "1.25"]),
    ({"type": "number", "multipleOf": 3}, ["0", "-3", "12"], ["1", "017", "1.5"]),
    ({"$schema": DRAFT_4, "type": "integer", "maximum": 3, "exclusiveMaximum": False}, ["3"], ["4"]),
    ({"$schema": DRAFT_4, "type": "integer", "maximum": 3, "exclusiveMaximum": True}, ["2"], ["3"]),
    ({"$schema": DRAFT_4, "type": "integer", "minimum": 3, "exclusiveMinimum": True}, ["4"], ["3"]),
    ({"allOf": [INTEGER, {"type": "number", "multipleOf": 1.5}]}, ["3"], ["1.5", "2"]),
    ({"allOf": [{"multipleOf": 4, "type": "integer"}, {"multipleOf": 6}]}, ["12", "0"], ["4", "6"]),
]
TEXTS: list[Case] = [
    (
        {"type": "string", "minLength": 2, "maxLength": 5},
        ['"ab"', '"éééééé"'[:6] + '"', '"\\n\\n"'],
        ['"a"', '"abcdef"'],
    ),
    ({"type": "string", "minLength": 2.0, "maxLength": 3.0}, ['"ab"'], ['"a"', '"abcd"']),
    ({"type": "string", "pattern": "^[A-Z]{2}[0-9]$"}, ['"AB1"'], ['"AB"', '"xAB1"']),
    ({"type": "string", "pattern": "b"}, ['"abc"'], ['"a"']),
    ({"type": "string", "pattern": r"^\w+$"}, ['"az_09"'], ['"é"', '"٣"', '""']),
    ({"type": "string", "pattern": r"^\d$"}, ['"3"'], ['"٣"']),
    ({"type": "string", "pattern": r'^["\\]{2}$'}, [r'"\"\\"', r'"\\\\"', r'"\"\""'], [r'"\""', '"""', r'"\\"']),
    ({"type": "string", "pattern": r"^[^a]$"}, [r'"\""', r'"\n"', '"é"'], ['"a"', '"""']),
    (
        {"type": "string", "pattern": "^a+$", "minLength": 2, "maxLength": 3},
        ['"aa"', '"aaa"'],
        ['"a"', '"aaaa"', '"bb"'],
    ),
    ({"type": "string", "pattern": "a", "maxLength": 3}, ['"a"', '"bab"'], ['"b"', '"bbba"']),
    ({"type": "string", "format": "email", "maxLength": 8}, ['"a@b.de"'], ['"abcd@b.de"', '"a@b"']),
    ({"type": "string", "format": "date", "pattern": "^20"}, ['"2024-02-29"'], ['"1999-01-01"']),
    ({"type": "string", "format": "phone", "maxLength": 2}, ['"ab"'], ['"abc"']),
    ({"type": "integer", "format": "int32"}, ["5"], ['"5"']),
    ({"minLength": 2}, ['"ab"'], ['"a"']),
]
FORMATS: list[Case] = [
    ({"format": name, "type": "string"}, [f'"{each}"' for each in accepted], [f'"{each}"' for each in refused])
    for name, accepted, refused in (
        ("date", ["2024-02-29", "2000-02-29"], ["2023-02-29", "1900-02-29", "2024-13-01", "2024-04-31", "0000-01-01"]),
        ("time", ["10:00:00Z", "23:59:59.5+01:00"], ["24:00:00Z", "10:00:00", "10:60:00Z"]),
        (
            "date-time",
            ["2024-01-01T10:00:00Z", "2024-01-01T10:00:00.123-05:30"],
            ["2024-01-01 10:00:00Z", "2024-01-01"],
        ),
        ("duration", ["P1D", "PT5M", "P3W", "P1Y2M3DT4H5M6S", "PT1H30M"], ["P", "PT", "P1", "1D", "P1W2D", "P1DT"]),
        ("uuid", ["123e4567-e89b-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000"]),
        ("email", ["jane.doe@example.com"], ["jane", "@example.com", "a@@b.de"]),
        ("hostname", ["example.com", "a-b.example.org", "localhost"], ["-a.com", "a_b.com", ""]),
        ("ipv4", ["127.0.0.1", "255.255.255.255"], ["256.0.0.1", "1.2.3", "01.2.3.4"]),
        ("ipv6", ["::", "::1", "1:2:3:4:5:6:7:8", "fe80::1:2"], ["1:2", ":::", "1:2:3:4:5:6:7:8:9", "g::"]),
        ("uri", ["https://example.com/a?b=c#d", "mailto:a@b.de", "urn:x:y"], ["example.com", "https://", "a b:c"]),
        ("uri-reference", ["/a/b", "#x", "https://example.com"], ["a b", "\\u0020"]),
        ("json-pointer", ["", "/a/b~1c"], ["a", "/~2"]),
        ("relative-json-pointer", ["0", "1/a", "0#"], ["a", "/a", "01"]),
        ("regex", ["^[a-z]+$", "abc"], ["(", "["]),
    )
]
ARRAYS: list[Case] = [
    (
        {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
        ["[true]"],
        ["[]", "[true,true,true,true]"],
    ),
    (
        {"type": "array", "prefixItems": [NULL, INTEGER], "items": {"const": 1}, "maxItems": 4},
        ["[null, 5]", "[null, 5, 1, 1]"],
        ["[5]", "[null, 5, 2]", "[null, 5, 1, 1, 1]"],
    ),
    (
        {"$schema": DRAFT_7, "type": "array", "items": [NULL, INTEGER], "additionalItems": False},
        ["[null, 5]"],
        ["[null,5,1]"],
    ),
    (
        {"$schema": DRAFT_7, "items": [NULL], "additionalItems": INTEGER},
        ["[null]", "[null, 3, 4]"],
        ["[3]", '[null, "a"]'],
    ),
    ({"prefixItems": [NULL, False]}, ["[null]"], ["[]", "[null,1]"]),
    ({"type": "array", "prefixItems": [False], "items": INTEGER}, ["[]"], ["[0]"]),
    ({"type": "array", "items": False}, ["[]"], ["[1]"]),
    ({"items": {"enum": ["a", "b", "c"]}, "uniqueItems": True}, ["[]", '["b", "a"]', '["c","a","b"]'], ['["a","a"]']),
    (
        {"items": {"enum": ["a", "b"]}, "uniqueItems": True, "minItems": 2},
        ['["b", "a"]', '["a", "b"]'],
        ['["a"]', "[]"],
    ),
    (
        {"items": {"enum": list("abcdef")}, "uniqueItems": True, "maxItems": 2},
        ['["a", "f"]'],
        ['["a","b","c"]', '["a","a"]'],
    ),
    ({"items": {"type": "boolean"}, "uniqueItems": True}, ["[true, false]", "[false]"], ["[true, true]"]),
    ({"items": {"enum": [1, 1.0, True]}, "uniqueItems": True}, ["[1, true]"], ["[1, 1.0]", "[1, 1]"]),
    ({"items": TEXT, "uniqueItems": True, "minItems": 1}, ['["apple"]', '["apple", "banana"]'], ["[]", '["a", "a"]']),
    ({"prefixItems": [INTEGER, TEXT], "uniqueItems": True, "items": False}, ['[1, "a"]'], ["[1, 1]"]),
    ({"prefixItems": [False], "uniqueItems": True, "type": "array"}, ["[]"], ["[0]"]),
    ({"items": TEXT, "uniqueItems": True, "maxItems": 1}, ['["a"]', "[]"], ['["a","b"]']),
    ({"items": INTEGER, "contains": {"const": 5}}, ["[5]", "[5, 6]"], ["[6]", "[]"]),
    ({"items": INTEGER, "contains": {"minimum": 5}, "minContains": 2}, ["[5, 6]"], ["[5]", "[1, 2]"]),
]
OBJECTS: list[Case] = [
    ({"type": "object", "additionalProperties": INTEGER}, ["{}", '{"a": 1, "b": 2}'], ['{"a": "1"}']),
    (
        {"type": "object", "properties": {"a": NULL}, "additionalProperties": INTEGER},
        ['{"a": null, "b": 2}'],
        ['{"a": 2}'],
    ),
    (
        {"type": "object", "properties": {"a": NULL}, "additionalProperties": True},
        ['{"a": null, "b": [1]}'],
        ['{"a": 2}'],
    ),
    ({"properties": {"a": INTEGER}, "required": ["z"]}, ['{"z": "x"}', '{"a": 1, "z": 1}'], ["{}", '{"a": 1}']),
    ({"properties": {"a": INTEGER}, "required": ["z"], "additionalProperties": NULL}, ['{"z": null}'], ['{"z": 1}']),
    (
        {"properties": {"a": NULL, "b": NULL, "c": NULL}, "minProperties": 2, "additionalProperties": False},
        ['{"a": null, "c": null}'],
        ['{"a": null}', "{}"],
    ),
    (
        {"properties": {"a": NULL, "b": NULL, "c": NULL}, "maxProperties": 1, "additionalProperties": False},
        ['{"b": null}', "{}"],
        ['{"a": null, "b": null}'],
    ),
    (
        {"type": "object", "additionalProperties": NULL, "minProperties": 2},
        ['{"a": null, "b": null}'],
        ['{"a": null, "a": null}', '{"a": null}'],
    ),
    (
        {"patternProperties": {"^x-": INTEGER}, "additionalProperties": False},
        ['{"x-a": 1}', "{}"],
        ['{"y": 1}', '{"x-a": "1"}'],
    ),
    (
        {"patternProperties": {"^x": INTEGER}, "properties": {"xa": {"minimum": 5}}, "additionalProperties": NULL},
        ['{"xa": 5}', '{"xb": 1, "c": null}'],
        ['{"xa": 4}', '{"xb": null}', '{"c": 1}'],
    ),
    ({"additionalProperties": INTEGER, "propertyNames": {"pattern": "^[a-z]+$"}}, ['{"ab": 1}'], ['{"A": 1}']),
    ({"additionalProperties": INTEGER, "propertyNames": {"enum": ["a", "b"]}}, ['{"a": 1}'], ['{"c": 1}']),
    (
        {
            "properties": {"a": INTEGER, "B": INTEGER},
            "propertyNames": {"pattern": "^[a-z]$"},
            "additionalProperties": False,
        },
        ['{"a": 1}'],
        ['{"B": 1}'],
    ),
    (
        {"properties": {"a": INTEGER, "b": INTEGER}, "dependentRequired": {"a": ["b"]}, "additionalProperties": False},
        ['{"a": 1, "b": 1}', '{"b": 1}', "{}"],
        ['{"a": 1}'],
    ),
    (
        {
            "properties": {"a": INTEGER, "b": INTEGER},
            "dependentSchemas": {"a": {"properties": {"b": {"minimum": 5}}}},
            "additionalProperties": False,
        },
        ['{"a": 1, "b": 5}', '{"b": 1}'],
        ['{"a": 1, "b": 1}'],
    ),
    (
        {
            "$schema": DRAFT_7,
            "properties": {"a": INTEGER, "b": INTEGER},
            "dependencies": {"a": ["b"], "b": {"properties": {"b": {"minimum": 5}}}},
            "additionalProperties": False,
        },
        ['{"a": 1, "b": 5}', "{}"],
        ['{"a": 1}', '{"b": 1}'],
    ),
    (
        {"allOf": [{"properties": {"a": INTEGER}}], "properties": {"b": NULL}, "unevaluatedProperties": False},
        ['{"b": null, "a": 1}', "{}"],
        ['{"c": 1}'],
    ),
    (
        {"type": "object", "properties": {"a": False, "b": INTEGER}, "additionalProperties": False},
        ['{"b": 1}', "{}"],
        ['{"a": 1}'],
    ),
    (objects(**{'a"b': NULL, "é/~": NULL}), ['{"a\\"b": null, "é/~": null}'], ["{}"]),
]
FREE: list[Case] = [
    ({}, ["1", '"a"', "null", "[1, [2]]", '{"a": {"b": [true]}}'], ["", "a", "[1,]"]),
    (objects(a=True), ['{"a": 1}', '{"a": {"b": []}}'], ["{}"]),
    ({"type": "array"}, ["[]", '[1, "a", {}]'], ["1"]),
    ({"type": "object"}, ["{}", '{"a": [1]}'], ["[]"]),
    ({"type": ["string", "array"], "maxLength": 2, "items": INTEGER}, ['"ab"', "[1]"], ['"abc"', '["a"]', "1"]),
]
COMBINED: list[Case] = [
    (
        {"oneOf": [{"type": ["string", "null"], "maxLength": 3}, {"type": ["integer", "boolean"]}]},
        ['"abc"', "null", "1", "true"],
        ['"abcd"'],
    ),
    ({"oneOf": [{"type": ["string", "null"]}, INTEGER]}, ['"a"', "null", "1"], ["[]"]),
    ({"oneOf": [{"type": ["string", "null"]}, NULL]}, ['"a"'], ["null"]),
    ({"oneOf": [{"type": ["object", "null"]}, {"type": ["null", "string"]}]}, ["{}", '"a"'], ["null"]),
    ({"oneOf": [{"const": "a"}, {"const": "b"}]}, ['"a"', '"b"'], ['"c"']),
    ({"oneOf": [{"enum": ["a", "b"]}, {"enum": ["b", "c"]}]}, ['"a"', '"c"'], ['"b"']),
    ({"oneOf": [{"enum": ["a"]}, {"type": "string", "pattern": "^b+$"}]}, ['"a"', '"bb"'], ['"ab"']),
    ({"oneOf": [{"type": "integer", "maximum": 3}, {"type": "integer", "minimum": 10}]}, ["3", "10"], ["5"]),
    ({"oneOf": [{"type": "integer", "maximum": 5}, {"type": "integer", "minimum": 3}]}, ["2", "6"], ["3", "5", "4"]),
    (
        {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}], "$defs": {"A": INTEGER, "B": NULL}},
        ["1", "null"],
        ['"a"'],
    ),
    (
        {
            "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
            "discriminator": {"propertyName": "kind", "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}},
            "$defs": {
                "Cat": objects(kind={"const": "cat"}, lives=INTEGER),
                "Dog": objects(kind={"const": "dog"}, name=TEXT),
            },
        },
        ['{"kind": "cat", "lives": 9}', '{"kind": "dog", "name": "Rex"}'],
        ['{"kind": "cat", "name": "Rex"}', '{"kind": "cow"}'],
    ),
    (
        {
            "oneOf": [
                {"type": "object", "properties": {"kind": {"const": "a"}, "x": NULL}, "required": ["kind"]},
                {"type": "object", "properties": {"kind": {"const": "b"}}, "required": ["kind"]},
                {"type": "string", "format": "uuid"},
            ]
        },
        ['{"kind": "a", "x": null}', '{"kind": "b"}'],
        ['{"kind": "c"}', '"a"', "{}"],
    ),
    ({"allOf": [INTEGER, {"type": "number"}]}, ["1"], ["1.5"]),
    (
        {
            "allOf": [
                objects(a=INTEGER) | {"additionalProperties": True},
                {"properties": {"a": {"minimum": 5}, "b": NULL}},
            ]
        },
        ['{"a": 5, "b": null}', '{"a": 6}'],
        ['{"a": 4}', "{}"],
    ),
    ({"anyOf": [INTEGER], "minimum": 3}, ["3"], ["2"]),
    (
        {
            "type": "object",
            "properties": {"a": INTEGER, "b": INTEGER},
            "anyOf": [{"required": ["a"]}, {"required": ["b"]}],
            "additionalProperties": False,
        },
        ['{"a": 1}', '{"b": 1}', '{"a": 1, "b": 1}'],
        ["{}"],
    ),
    (
        {
            "type": "object",
            "properties": {"a": INTEGER, "b": INTEGER},
            "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
            "additionalProperties": False,
        },
        ['{"a": 1}', '{"b": 1}'],
        ["{}", '{"a": 1, "b": 1}'],
    ),
    ({"type": "string", "not": {"enum": ["a", "b"]}}, ['"c"', '"ab"'], ['"a"', '"b"', "1"]),
    ({"type": "string", "not": {"pattern": "^a"}}, ['"ba"', '""'], ['"ab"']),
    ({"type": ["string", "integer"], "not": {"type": "string"}}, ["1"], ['"a"']),
    ({"type": "integer", "not": {"minimum": 5}}, ["4"], ["5"]),
    ({"type": "integer", "not": {"anyOf": [{"exclusiveMinimum": 5}, {"exclusiveMaximum": 1}]}}, ["1", "5"], ["0", "6"]),
    ({"type": "integer", "not": {"allOf": [{"minimum": 3}, {"maximum": 5}]}}, ["2", "6"], ["3", "5"]),
    (
        {"$schema": DRAFT_4, "type": "integer", "not": {"maximum": 3, "exclusiveMaximum": True}},
        ["3", "4"],
        ["2"],
    ),
    (
        {"$schema": DRAFT_4, "type": "integer", "not": {"minimum": 3, "exclusiveMinimum": True}},
        ["3", "2"],
        ["4"],
    ),
    ({"type": "string", "not": {"minLength": 2}}, ['"a"'], ['"ab"']),
    ({"type": "string", "not": {"maxLength": 2}}, ['"abc"'], ['"ab"']),
    ({"type": "array", "items": INTEGER, "not": {"maxItems": 1}}, ["[1, 2]"], ["[1]"]),
    ({"type": "object", "additionalProperties": NULL, "not": {"minProperties": 1}}, ["{}"], ['{"a": null}']),
    ({"type": ["boolean", "integer", "null"], "not": {"enum": [True, 5]}}, ["false", "4", "null"], ["true", "5"]),
    ({"type": ["boolean", "null"], "not": {"enum": [True, False]}}, ["null"], ["true", "false"]),
    ({"type": ["array", "null"], "items": INTEGER, "not": {"const": [1]}}, ["null"], ["[1]"]),
    ({"type": "integer", "not": False}, ["1"], ['"a"']),
    (
        {
            **objects(a=INTEGER, b=INTEGER),
            "not": {"properties": {"a": {"const": 1}, "b": {"const": 2}}, "required": ["a", "b"]},
        },
        ['{"a": 2, "b": 2}', '{"a": 1, "b": 1}'],
        ['{"a": 1, "b": 2}'],
    ),
    ({"allOf": [True, INTEGER]}, ["1"], ['"a"']),
    (
        {
            "enum": [[1, {"a": 2}], [2], {"a": 1}],
            "type": "array",
            "maxItems": 2,
            "items": {"type": ["integer", "object"]},
        },
        ['[1, {"a": 2}]', "[2]"],
        ['{"a": 1}'],
    ),
    ({"enum": [[], [1, 1], [1, 2, 3]], "minItems": 1, "maxItems": 2}, ["[1, 1]"], ["[]", "[1, 2, 3]"]),
    ({"enum": [[1, 1.0], [1, True]], "uniqueItems": True}, ["[1, true]"], ["[1, 1.0]"]),
    (
        {
            "enum": [{}, {"a": 1}, {"b": 1}, {"a": 1, "b": 1}, {"a": "x"}],
            "properties": {"a": INTEGER},
            "required": ["a"],
            "maxProperties": 1,
        },
        ['{"a": 1}'],
        ["{}", '{"b": 1}', '{"a": 1, "b": 1}', '{"a": "x"}'],
    ),
    ({"enum": [{}, {"a": 1}], "minProperties": 1, "propertyNames": {"pattern": "a"}}, ['{"a": 1}'], ["{}"]),
    ({"enum": ["", "a", "abc"], "minLength": 1, "maxLength": 2}, ['"a"'], ['""', '"abc"']),
    (
        {
            "type": "string",
            "maxLength": 3,
            "anyOf": [
                {"pattern": "^a"},
                {"pattern": "^b", "not": {"pattern": "c$"}},
                {"pattern": "^d", "minLength": 3},
            ],
        },
        ['"a"', '"abc"', '"bb"', '"dcc"'],
        ['"abcd"', '"bbc"', '"dc"', '"e"'],
    ),
    (
        {
            "type": "object",
            "properties": {"country": {"enum": ["US", "DE"]}, "code": TEXT},
            "required": ["country", "code"],
            "additionalProperties": False,
            "if": {"properties": {"country": {"const": "US"}}},
            "then": {"properties": {"code": {"pattern": "^[0-9]{5}$"}}},
            "else": {"properties": {"code": {"maxLength": 2}}},
        },
        ['{"country": "US", "code": "12345"}', '{"country": "DE", "code": "ab"}'],
        ['{"country": "US", "code": "ab"}', '{"country": "DE", "code": "12345"}'],
    ),
]
REFERENCES: list[Case] = [
    ({"$ref": "#/$defs/A", "$defs": {"A": INTEGER}}, ["1"], ['"a"']),
    ({"$ref": "#/$defs/A%20b", "$defs": {"A b": INTEGER}}, ["1"], ['"a"']),
    ({"$ref": "#/$defs/A~1b~0", "$defs": {"A/b~": INTEGER}}, ["1"], ['"a"']),
    ({"$ref": "#here", "$defs": {"A": {"$anchor": "here", **INTEGER}}}, ["1"], ['"a"']),
    (
        {"$schema": DRAFT_7, "allOf": [{"$ref": "#here"}], "definitions": {"A": {"$id": "#here", **INTEGER}}},
        ["1"],
        ['"a"'],
    ),
    ({"$id": "https://example.com/a", "$ref": "b", "$defs": {"B": {"$id": "b", **INTEGER}}}, ["1"], ['"a"']),
    ({"prefixItems": [INTEGER, {"$ref": "#/prefixItems/0"}], "items": False}, ["[1, 2]"], ['[1, "a"]']),
    ({"$ref": "#/$defs/A", "minimum": 5, "$defs": {"A": INTEGER}}, ["5"], ["4"]),
    (
        {"$schema": DRAFT_7, "$ref": "#/definitions/A", "description": "x", "definitions": {"A": INTEGER}},
        ["5"],
        ['"a"'],
    ),
    (objects(a={"$ref": "#/properties/b"}, b=INTEGER), ['{"a": 1, "b": 2}'], ['{"a": "x", "b": 2}']),
]
ANNOTATED: list[Case] = [
    (
        {**INTEGER, "title": "t", "description": "d", "default": "x", "examples": ["y"], "example": 1, "x-order": 3},
        ["1"],
        ['"x"'],
    ),
    (
        {**TEXT, "contentEncoding": "base64", "contentMediaType": "image/png", "$comment": "c", "deprecated": True},
        ['"a"'],
        ["1"],
    ),
    ({**TEXT, "readOnly": True, "writeOnly": False, "xml": {"name": "n"}, "externalDocs": {}}, ['"a"'], ["1"]),
]
ALL = [JSON, NUMBERS, TEXTS, FORMATS, ARRAYS, OBJECTS, FREE, COMBINED, REFERENCES, ANNOTATED]


@pytest.mark.parametrize(("schema", "accepted", "refused"), [each for kind in ALL for each in kind])
def test_a_schema_allows_what_it_says(schema: dict[str, Any], accepted: list[str], refused: list[str]) -> None:
    automaton, rng = of_schema(schema), random.Random(0)
    assert [text for text in accepted if not automaton.accepts(text)] == []
    assert [text for text in refused if automaton.accepts(text)] == []
    for text in [*accepted, *(sampled(automaton, rng) for _ in range(12))]:
        assert fault(schema, text) == "", text


def test_nullable_means_what_it_does_in_openapi() -> None:
    automaton = of_schema(objects(a={"type": "string", "nullable": True}, b={"type": "string", "nullable": False}))
    assert automaton.accepts('{"a": null, "b": "x"}')
    assert not automaton.accepts('{"a": "x", "b": null}')


def test_whole_numbers_between_bounds_and_no_others() -> None:
    rng = random.Random(0)
    for _ in range(150):
        low, high = rng.choice([None, rng.randint(-300, 300)]), rng.choice([None, rng.randint(-300, 1300)])
        if low is not None and high is not None and low > high:
            low, high = high, low
        pattern = re.compile(integer_between(low, high))
        for number in range(-1400, 1400):
            inside = (low is None or number >= low) and (high is None or number <= high)
            assert bool(pattern.fullmatch(str(number))) == inside, (low, high, number)


def test_decimal_numbers_between_bounds_and_no_others() -> None:
    rng = random.Random(0)
    for _ in range(40):
        low, high = sorted(rng.choice([rng.randint(-9, 9), round(rng.uniform(-3, 3), rng.randint(1, 3))]) for _ in "ab")
        low_keyword, high_keyword = (
            rng.choice(["minimum", "exclusiveMinimum"]),
            rng.choice(["maximum", "exclusiveMaximum"]),
        )
        schema = {"type": "number", low_keyword: low, high_keyword: high}
        try:
            automaton = of_schema(schema)
        except ConstraintError:
            assert low == high
            continue
        for _ in range(100):
            text = str(
                round(rng.choice([low, high, 0]) + rng.choice([0, 0.001, -0.01, 0.5, -2, rng.uniform(-3, 3)]), 4)
            )
            assert automaton.accepts(text) == (not fault(schema, text)), (schema, text)


@pytest.mark.parametrize(
    "pattern", ["^[ -~]+$", "abc|^x", r"\.\\\d", '"', "a.b$", r"^\S$", r"^[^a]$", "^a\tb$", r"^\x22?a\tb$"]
)
def test_a_pattern_inside_json_finds_what_python_finds_in_the_string(pattern: str) -> None:
    automaton = of_schema({"type": "string", "pattern": pattern})
    rng = random.Random(0)
    for _ in range(30):
        assert re.search(pattern, json.loads(sampled(automaton, rng)))
    for text in ["xabcx", "x", "yx", "a.b", ".\\3", "a", "b", " a ", "a\tb", '"']:
        assert automaton.accepts(json.dumps(text)) == bool(re.search(pattern, text)), text


# schemas that have no end


NODE = {
    "$ref": "#/$defs/Node",
    "$defs": {"Node": objects(name={"enum": ["x"]}, children={"type": "array", "items": {"$ref": "#/$defs/Node"}})},
}
"""A pydantic model with a field `children: list["Node"]`."""
LINKED = {
    "type": "object",
    "properties": {"value": INTEGER, "next": {"anyOf": [{"$ref": "#"}, NULL]}},
    "required": ["value", "next"],
    "additionalProperties": False,
}


def node(levels: int) -> str:
    return f'{{"name": "x", "children": [{node(levels - 1) if levels else ""}]}}'


def linked(levels: int) -> str:
    return f'{{"value": 1, "next": {linked(levels - 1) if levels else "null"}}}'


@pytest.mark.parametrize(("schema", "text"), [(NODE, node), (LINKED, linked)])
def test_a_part_may_stand_within_itself_to_a_depth(schema: dict[str, Any], text: Any) -> None:
    for depth in (0, 1, 3):
        automaton, rng = of_schema(schema, depth), random.Random(0)
        assert [automaton.accepts(text(levels)) for levels in range(6)] == [levels <= depth for levels in range(6)]
        for _ in range(10):
            assert fault(schema, sampled(automaton, rng, 100)) == ""
    [note] = [each for each in described(JsonSchema(schema, max_depth=3)).notes if "refers to itself" in each]
    assert note == "what refers to itself is written 3 levels deep"


def test_a_part_that_must_stand_within_itself_has_no_values() -> None:
    with pytest.raises(ConstraintError, match="no value is valid for it, or none of so few levels"):
        of_schema({"properties": {"a": {"$ref": "#"}}, "required": ["a"], "type": "object"})


def test_two_parts_may_refer_to_each_other() -> None:
    schema = {
        "$ref": "#/$defs/A",
        "$defs": {
            "A": {"properties": {"b": {"$ref": "#/$defs/B"}}, "additionalProperties": False},
            "B": {"properties": {"a": {"$ref": "#/$defs/A"}}, "additionalProperties": False, "type": "object"},
        },
    }
    automaton = of_schema(schema, 1)
    assert automaton.accepts('{"b": {"a": {"b": {}}}}')
    assert not automaton.accepts('{"b": {"a": {"b": {"a": {"b": {"a": {}}}}}}}')


def test_an_end_that_the_schema_does_not_have_is_noted() -> None:
    for schema, note in (
        ({**TEXT, "maxLength": 5000}, "texts of up to 5,000 characters are written with up to"),
        ({"type": "array", "items": INTEGER, "maxItems": 100_000}, "of up to 100,000 items, up to"),
        ({}, "values without a schema are written with up to"),
    ):
        assert any(each.startswith(note) for each in described(JsonSchema(schema)).notes), schema
    assert described(JsonSchema(objects(a=INTEGER))).notes == ()


def test_keywords_that_no_standard_knows_are_named_and_refused_where_one_is_strict() -> None:
    schema = {**INTEGER, "x-order": 3, "maxLenght": 5}
    assert described(JsonSchema(schema)).unknown == ("x-order", "maxLenght")
    with pytest.raises(ConstraintError, match="the keyword 'x-order' is none of JSON schema's"):
        described(JsonSchema(schema, is_strict=True))


# sizes


def fields(names: list[str], kind: dict[str, Any], *, required: bool) -> dict[str, Any]:
    return {**objects(**dict.fromkeys(names, kind)), "required": names if required else []}


def nested(levels: int, *, required: bool) -> dict[str, Any]:
    inner = TEXT if levels == 1 else nested(levels - 1, required=required)
    return fields([f"level{levels}_{number}" for number in range(8)], inner, required=required)


@pytest.mark.parametrize(
    "schema",
    [
        lambda count: {**TEXT, "maxLength": 10 * count},
        lambda count: fields([f"field{number:03}" for number in range(5 * count)], TEXT, required=True),
        lambda count: fields([f"field{number:03}" for number in range(5 * count)], TEXT, required=False),
        lambda count: {"type": "array", "items": objects(id=INTEGER, name=TEXT), "maxItems": 5 * count},
        lambda count: {"type": "string", "pattern": "^[a-z]+$", "maxLength": 5 * count},
    ],
    ids=["maxLength", "required", "optional", "maxItems", "pattern"],
)
def test_the_states_grow_with_the_schema_and_no_faster(schema: Any) -> None:
    sizes = [len(of_schema(schema(count)).steps) for count in (2, 4, 8)]
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0]) < 3000


@pytest.mark.parametrize("required", [True, False])
def test_fields_within_fields_are_as_many_states_as_their_texts_are_long(required: bool) -> None:
    schema = nested(3, required=required)
    assert len(of_schema(schema).steps) < 2 * len(json.dumps(schema))


def test_arrays_within_arrays_are_written() -> None:
    schema: dict[str, Any] = INTEGER
    for _ in range(40):
        schema = {"type": "array", "items": schema}
    assert of_schema(schema).accepts(40 * "[" + "1" + 40 * "]")


def choices_met(count: int) -> dict[str, Any]:
    """A schema whose alternatives have the square of `count` combinations."""
    one, other = [f"a{number}" for number in range(count)], [f"b{number}" for number in range(count)]
    alternatives = [{"anyOf": [{"required": [name]} for name in names]} for names in (one, other)]
    names = dict.fromkeys([*one, *other], NULL)
    return objects(x={"type": "object", "properties": names, "additionalProperties": False, "allOf": alternatives})


def test_some_of_very_many_combinations_are_written() -> None:
    schema, rng = choices_met(12), random.Random(0)
    automaton = of_schema(schema)
    assert automaton.accepts('{"x": {"a0": null, "b0": null}}')
    for _ in range(10):
        assert fault(schema, sampled(automaton, rng)) == ""
    [note] = described(JsonSchema(schema)).notes
    assert note == "of the combinations of alternatives of properties.x, 100 are written"


def test_too_many_combinations_are_refused() -> None:
    with pytest.raises(ConstraintError, match=r"json_schema at properties\.x: it has too many combinations"):
        of_schema(choices_met(130))


@pytest.mark.parametrize(
    "inner",
    [
        {"$ref": "#"},
        {"anyOf": [{"$ref": "#"}, NULL], "default": None},
        {"oneOf": [NULL, {"$ref": "#"}]},
        {"type": "array", "items": {"$ref": "#"}},
        {"allOf": [{"$ref": "#"}], "title": "Child"},
    ],
)
def test_a_part_with_many_parts_like_itself_is_written_less_deep(inner: dict[str, Any]) -> None:
    names = [f"child{number}" for number in range(8)]
    schema = {"type": "object", "properties": dict.fromkeys(names, inner), "additionalProperties": False}
    automaton, rng = of_schema(schema), random.Random(0)
    assert automaton.accepts("{}")
    for _ in range(10):
        assert fault(schema, sampled(automaton, rng, 100)) == ""
    [note] = described(JsonSchema(schema)).notes
    assert note in [f"what refers to itself is written {levels} levels deep" for levels in (2, 3)]
