"""A JSON schema is said as a file, as JSON, as a short form, as a dict or a model, and in the wrapper of an API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mlx_diffgemma.cli.request import check_constraints
from mlx_diffgemma.constraint.description import described
from mlx_diffgemma.constraint.schema_source import read_schema
from mlx_diffgemma.constraint.short_form import NAMED_TYPES, schema_of
from mlx_diffgemma.constraint.spec import Choices, JsonSchema, Regex
from mlx_diffgemma.errors import ConstraintError, OptionError

WHOLE = {"type": "integer"}
TREE = {"type": "object", "properties": {"next": {"$ref": "#"}}, "additionalProperties": False}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Names of files are those of an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def person(**properties: Any) -> dict[str, Any]:
    """The schema of an object that has these properties and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


# where it comes from


@pytest.mark.parametrize("text", ['{"type": "integer"}', '\n {"type":\n"integer"} '])
def test_a_text_that_begins_with_a_brace_is_the_schema(text: str) -> None:
    assert JsonSchema(text) == JsonSchema(WHOLE)


def test_true_and_false_are_schemas() -> None:
    for everything in ("true", True):
        assert JsonSchema(everything) == JsonSchema({})
    for nothing in ("false", False):
        with pytest.raises(ConstraintError, match="no value is valid"):
            described(JsonSchema(nothing))


def test_a_file_is_read_whatever_its_name(folder: Path) -> None:
    for name in ("schema.json", "two words", "name, age int"):
        (folder / name).write_text('{"type": "integer"}')
        assert JsonSchema(name) == JsonSchema(folder / name) == JsonSchema(WHOLE)


def test_what_is_no_file_is_a_short_form_if_it_can_be_one(folder: Path) -> None:
    assert read_schema("name, age int") == schema_of("name, age int")
    assert read_schema("age int") == schema_of("age int")
    assert JsonSchema("a" * 300 + ", b").document["required"] == ["a" * 300, "b"]
    with pytest.raises(ConstraintError, match=r"the schema person cannot be read: No such file .*'name str'"):
        JsonSchema("person")
    with pytest.raises(ConstraintError, match=r"the schema name, age cannot be read: No such file or directory$"):
        JsonSchema(Path("name, age"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ('{"type"', "json_schema='{\"type\"' is not JSON: Expecting"),
        ("", "json_schema='' is no file, and not a short form such as 'name, age int': the name of a property is miss"),
        ("a, b nit", "json_schema='a, b nit' is no file, and not a short form such as 'name, age int': 'nit', the typ"),
        (5, "json_schema=5 is no dict, file or pydantic model"),
        (int, "is no dict, file or pydantic model"),
    ],
)
def test_what_is_no_schema_is_named(source: Any, message: str) -> None:
    with pytest.raises(ConstraintError) as raised:
        JsonSchema(source)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_file_without_a_schema_is_named(folder: Path) -> None:
    for content, message in (("[1]", r"must be an object, true or false, not \[1\]"), ("{", "is not JSON")):
        (folder / "file").write_text(content)
        with pytest.raises(ConstraintError, match=f"the schema file {message}"):
            JsonSchema("file")
    (folder / "file").write_bytes(b"\xff\x00")
    with pytest.raises(ConstraintError, match=r"the schema file is not JSON: .* can't decode"):
        JsonSchema("file")


# the wrapper


@pytest.mark.parametrize(
    "wrapper",
    [
        {"type": "json_schema", "json_schema": {"name": "a", "description": "b", "schema": WHOLE}},
        {"type": "json_schema", "name": "a", "schema": WHOLE, "strict": False},
        {"name": "a", "schema": WHOLE},
        {"schema": WHOLE},
    ],
    ids=json.dumps,
)
def test_a_schema_is_taken_out_of_its_wrapper(wrapper: dict[str, Any]) -> None:
    assert JsonSchema(wrapper) == JsonSchema(json.dumps(wrapper)) == JsonSchema(WHOLE)


def test_a_strict_wrapper_asks_for_a_strict_schema() -> None:
    strict = {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": {**WHOLE, "x-unit": "cm"}}}
    assert JsonSchema(strict) == JsonSchema({**WHOLE, "x-unit": "cm"}, is_strict=True)
    with pytest.raises(ConstraintError, match="the keyword 'x-unit' is none of JSON schema's"):
        described(JsonSchema(strict))


def test_a_schema_with_keywords_is_no_wrapper() -> None:
    schema = {"type": "object", "properties": {}, "schema": WHOLE}
    assert JsonSchema(schema).document == schema


@pytest.mark.parametrize(
    "wrapper", [{"type": "json_schema"}, {"type": "json_schema", "json_schema": 5}, {"name": "a", "schema": 5}]
)
def test_a_wrapper_without_a_schema_is_refused(wrapper: dict[str, Any]) -> None:
    with pytest.raises(ConstraintError, match=r"must have a schema in it|schema must be an object, true or false, not"):
        JsonSchema(wrapper)


# the short form


@pytest.mark.parametrize(
    ("text", "properties"),
    [
        ("name, age int", {"name": NAMED_TYPES["str"], "age": WHOLE}),
        (" name str ,\nborn date", {"name": NAMED_TYPES["str"], "born": {"type": "string", "format": "date"}}),
        ("x float, y number", {"x": {"type": "number"}, "y": {"type": "number"}}),
        ("ok bool, to email", {"ok": {"type": "boolean"}, "to": {"type": "string", "format": "email"}}),
        ("size s|m|l", {"size": {"enum": ["s", "m", "l"]}}),
        ("via email | phone", {"via": {"enum": ["email", "phone"]}}),
        ("tags [str]", {"tags": {"type": "array", "items": NAMED_TYPES["str"]}}),
        ("tags str[]", {"tags": {"type": "array", "items": NAMED_TYPES["str"]}}),
        ("grid [int][]", {"grid": {"type": "array", "items": {"type": "array", "items": WHOLE}}}),
        ("address {street, zip int}", {"address": person(street=NAMED_TYPES["str"], zip=WHOLE)}),
        ("rows [{n int}]", {"rows": {"type": "array", "items": person(n=WHOLE)}}),
        ("name: str, größe: int", {"name": NAMED_TYPES["str"], "größe": WHOLE}),
    ],
)
def test_a_short_form_lists_properties_and_their_types(text: str, properties: dict[str, Any]) -> None:
    assert schema_of(text) == person(**properties)


def test_a_question_mark_makes_a_property_optional() -> None:
    assert schema_of("name, age? int, address? {zip?}") == {
        **person(name=NAMED_TYPES["str"]),
        "properties": {
            "name": NAMED_TYPES["str"],
            "age": WHOLE,
            "address": {**person(zip=NAMED_TYPES["str"]), "required": []},
        },
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,, b", "the name of a property is missing after ','"),
        ("a, b,", "the name of a property is missing after ','"),
        ("[int], b", "the name of a property is missing at the beginning"),
        ("a int b", "there is a 'b' after 'int'"),
        ("a {b}}", "there is a '}' after '}'"),
        (
            "a nit",
            f"'nit', the type of 'a', is none of {', '.join(NAMED_TYPES)}, [str], a|b, {{..}}",
        ),
        ("a [str", "a ']' is missing in the type of 'a', after 'str'"),
        ("a {b, c int", "a '}' is missing in the type of 'a', after 'int'"),
        ("a []", "a type of 'a' is missing after 'a'"),
        ("a x|", "a choice of 'a' is missing after '|'"),
        ("a x|y|x", "the choice 'x' of 'a' is there twice"),
        ("a int|str", "the choices of 'a' must be texts, and int is a type: give a whole schema"),
        ("a, b, a int", "there are two properties 'a'"),
        ("a " + "[" * 10_000, "there are more than 50 levels: give a schema with fewer"),
        ("a {" * 10_000, "there are more than 50 levels: give a schema with fewer"),
    ],
)
def test_a_wrong_part_of_a_short_form_is_named(text: str, message: str) -> None:
    with pytest.raises(ConstraintError) as raised:
        schema_of(text)
    assert str(raised.value) == message


# what is not written


def test_notes_say_what_no_answer_will_have() -> None:
    assert JsonSchema(WHOLE).notes == ()
    assert JsonSchema(TREE).notes == ("what refers to itself is written 5 levels deep",)
    assert JsonSchema(TREE, max_depth=2).notes == ("what refers to itself is written 2 levels deep",)
    assert JsonSchema({}).notes == ("values without a schema are written with up to 3 levels",)
    assert JsonSchema({**WHOLE, "x-unit": "cm"}).unknown == ("x-unit",)
    with pytest.raises(ConstraintError, match="leads out of the schema: copy what it names"):
        _ = JsonSchema({"$ref": "https://example.org/x.json"}).notes


@pytest.mark.parametrize("depth", [-1, 1.5, "3", True, None])
def test_a_depth_is_a_whole_number(depth: Any) -> None:
    with pytest.raises(OptionError, match=r"max_depth=.* must be a whole number from 0 on"):
        JsonSchema(TREE, max_depth=depth)


def test_constraints_of_different_depth_differ() -> None:
    assert JsonSchema(TREE) != JsonSchema(TREE, max_depth=2)
    assert JsonSchema(TREE).key != JsonSchema(TREE, max_depth=2).key
    shallow, deep = (described(JsonSchema(TREE, max_depth=depth)).expression.size for depth in (0, 4))
    assert shallow < deep


def test_every_note_of_several_constraints_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("DEBUG", logger="mlx_diffgemma"):
        tree, annotated = JsonSchema(TREE), JsonSchema({**TREE, "x-unit": "cm"})
        check_constraints([tree, None, Regex("a"), Choices(("a",)), annotated, tree])
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "note: json_schema: what refers to itself is written 5 levels deep"),
        ("DEBUG", "note: json_schema: the keyword 'x-unit' is none of JSON schema's: it is ignored"),
    ]
    with pytest.raises(ConstraintError):
        check_constraints([Regex("a(")])
