"""The benchmarks of real schemas and of hard constraints: what they count, and what they take for a fault."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import constraints
import pytest
import run
from constraining.cases import read_cases
from constraining.engines import engine_class
from constraining.hard import Step, hard_constraints, strict_size
from constraining.instances import reason, reordered
from constraining.ours import schema_automaton
from constraining.report import kind_of
from constraining.validity import UnjudgedError, Validity, has_key_twice
from constraining.walks import ByteWalker
from constraining.watching import Ended

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name"],
    "additionalProperties": False,
}
SCRIPTED = "scripted_engine:ScriptedEngine"


def instance(data: Any, valid: bool = True) -> dict[str, Any]:
    return {"description": f"about {data}", "valid": valid, "data": data}


PEOPLE = [instance({"name": "Ana"}), instance({"age": 34, "name": "Ana"}), instance({"age": 34}, valid=False)]


def write_cases(folder: Path, *schemas: dict[str, Any]) -> Path:
    cases = [
        {"name": f"case {number}", "group": schema.get("title", "people"), "schema": schema, "tests": PEOPLE}
        for number, schema in enumerate(schemas)
    ]
    file = folder / "schemas.jsonl"
    file.write_text("\n".join(map(json.dumps, cases)))
    return file


def test_every_engine_is_given_every_schema_and_what_goes_wrong_is_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    titles = ("slow", "dies", "fails", "refused")
    file, out = write_cases(tmp_path, PERSON, *({**PERSON, "title": title} for title in titles)), tmp_path / "out.json"
    words = ["--engine", "ours", "--engine", SCRIPTED, "--limit", "2", "--json", str(out)]
    run.main(["schemas", str(file), *words])
    results = json.loads(out.read_text())
    assert [outcome["built"]["status"] for outcome in results["ours"]] == ["built"] * 5
    found = [outcome["built"]["status"] for outcome in results[SCRIPTED]]
    assert found == ["built", "too slow", "crashed", "crashed", "refused"]
    verdicts = [(each["takes_written"], each["reason"]) for each in results["ours"][0]["checked"]["verdicts"]]
    assert verdicts == [(True, ""), (False, "key order"), (False, "")]
    assert all(outcome["checked"]["answers"] == 5 for outcome in results["ours"])
    printed = capsys.readouterr().out
    assert "the keyword … is in …" in printed
    assert "crashed: KeyError: …" in printed
    assert "jsonschema refuses 0 instances that are marked valid, and takes 0 marked invalid" in printed


def test_taking_an_invalid_instance_or_writing_an_invalid_answer_is_a_fault_of_the_first_engine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_cases(tmp_path, PERSON)
    with pytest.raises(SystemExit, match=f"{SCRIPTED}: 3 wrong"):
        run.main(["schemas", str(file), "--engine", SCRIPTED])
    printed = capsys.readouterr().out
    assert "case 0: takes what is marked invalid: about {'age': 34}" in printed
    assert "case 0: an answer is not valid: $: 'name' is a required property: {\"age\": 1}" in printed
    assert "case 0: an answer is not valid: JSONDecodeError" in printed


@pytest.mark.parametrize("line", ["[", "{}", '{"name": "a", "group": "b", "schema": {}, "tests": [1]}'])
def test_a_line_that_is_no_case_is_named(tmp_path: Path, line: str) -> None:
    file = write_cases(tmp_path, PERSON)
    file.write_text(f"{file.read_text()}\n{line}")
    with pytest.raises(SystemExit, match=r"schemas\.jsonl, line 2 is no case"):
        read_cases(file)


@pytest.mark.parametrize("name", ["x", "x:", "constraining.engines:Missing", "no_such_module:Engine"])
def test_an_engine_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(SystemExit, match="is no engine: give one of ours, llguidance, outlines-core"):
        engine_class(name)


def test_an_engine_whose_library_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_class("llguidance"), "needs", "no_such_library")
    with pytest.raises(SystemExit, match=r"needs no_such_library: pip install 'mlx-diffgemma\[bench\]'"):
        engine_class("llguidance")


# instances


@pytest.mark.parametrize(
    ("schema", "data", "keys"),
    [
        (PERSON, {"age": 1, "x": 2, "name": ""}, ["name", "age", "x"]),
        ({"$ref": "#/$defs/a~1b", "$defs": {"a/b": PERSON}}, {"age": 1, "name": ""}, ["name", "age"]),
        (
            {
                "oneOf": [
                    {"properties": {"age": {}, "name": {}, "x": {}}},
                    {"properties": {"name": {}, "age": {}, "y": {}}},
                ]
            },
            {"y": 1, "age": 1, "name": ""},
            ["name", "age", "y"],
        ),
    ],
)
def test_keys_are_put_in_the_order_of_the_schema(schema: Any, data: Any, keys: list[str]) -> None:
    assert list(reordered(schema, data)) == keys
    assert list(reordered({"items": schema, "$defs": schema.get("$defs", {})}, [data])[0]) == keys
    assert reordered(schema, data) == data


@pytest.mark.parametrize(
    ("schema", "data", "why"),
    [
        (PERSON, {"name": "", "x": 1}, "undeclared keys"),
        ({}, [[[[[[[]]]]]]], "depth"),
        ({"properties": {"a": {"$ref": "#"}}}, {"a": {"a": {"a": {"a": {"a": {"a": {}}}}}}}, "depth"),
        ({"items": {"uniqueItems": True}}, [[1, 2]], "uniqueness"),
        ({"type": "integer"}, 1.0, "number form"),
        ({"type": "number"}, 1e-20, "number form"),
        ({"items": {"format": "date"}}, ["2026-01-01"], "format date"),
        ({"type": "string"}, 'say "hi"', "string escapes"),
        ({"type": "string"}, "hi", "other"),
    ],
)
def test_a_refused_instance_has_a_reason(schema: Any, data: Any, why: str) -> None:
    assert reason(schema, data) == why


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (
            "json_schema at /a/b: the keyword 'not' is not supported",
            "json_schema at …: the keyword 'not' is not supported",
        ),
        ("json_schema at a.b: 'x' repeats 2000 times", "json_schema at …: … repeats # times"),
        ('Unimplemented keys: ["if", "mine"]', 'Unimplemented keys: ["if", …]'),
        ('structure {"a": 1}\nmore', "structure …"),
    ],
)
def test_refusals_are_counted_without_what_belongs_to_one_schema(message: str, kind: str) -> None:
    assert kind_of(message) == kind


# answers


def test_random_texts_are_those_of_the_automaton() -> None:
    walker = ByteWalker(schema_automaton(PERSON))
    texts = walker.answers(20)
    assert len(set(texts)) > 10
    assert all(walker.accepts(text) for text in texts)
    assert {key for text in texts for key in json.loads(text)} == {"name", "age"}
    assert not walker.accepts(texts[0] + b" x")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b'{"name": "a"}', None),
        (b'{"name": "a", "name": "b"}', None),
        (b'{"name": "a", "name": 1}', "$.name: 1 is not of type 'string'"),
        (b'{"name": 1, "name": "a"}', "$.name: 1 is not of type 'string'"),
        (b'{"name": NaN}', "ValueError: NaN is no JSON"),
        (b'{"name": "\xff"}', "UnicodeDecodeError"),
        (b'{"name": 1}', "$.name: 1 is not of type 'string'"),
    ],
)
def test_an_answer_is_judged_as_a_text(text: bytes, fault: str | None) -> None:
    found = Validity(PERSON).fault(text)
    assert found == fault if found is None or fault is None else found.startswith(fault)


def test_a_schema_that_leads_out_of_itself_is_not_judged() -> None:
    with pytest.raises(UnjudgedError, match="Unresolvable"):
        Validity({"$ref": "https://example.com/other.json"}).fault(b"1")


def test_a_key_twice_is_found_at_any_level() -> None:
    assert has_key_twice(b'[{"a": {"b": 1, "b": 2}}]')
    assert not has_key_twice(b'[{"a": {"b": 1}, "b": {"b": 2}}]')


# hard constraints


def test_a_hard_constraint_is_built_in_a_process_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    run.main(["constraints", "--only", "maxLength 20", "--limit", "60"])
    [row] = [line for line in capsys.readouterr().out.splitlines() if "maxLength" in line]
    seconds, states, transitions, *_ = row.removeprefix(" maxLength 20").split()
    assert float(seconds) >= 0
    assert 20 < int(states) < int(transitions.replace(",", ""))


def test_a_row_says_why_a_constraint_was_not_built() -> None:
    start = Step(part="start", seconds=0, peak_memory=5 << 20)
    assert constraints.row("a", [start, Ended("too slow", "over 9 s", 7 << 20)])[5:] == [
        "5",
        "7",
        "",
        "too slow: over 9 s",
    ]
    refused = Step(part="bytes", seconds=0.5, peak_memory=6 << 20, refusal="it is too large")
    assert constraints.row("a", [start, refused]) == ["a", "0.50", "", "", "", "5", "6", "", "it is too large"]


def test_the_hard_constraints_have_the_sizes_that_they_are_named_by() -> None:
    def properties(schema: Any) -> list[Any]:
        own = list(schema.get("properties", {}).values())
        return own + [inner for each in own for inner in properties(each)]

    found = properties(strict_size())
    assert len(found) == 100
    assert sum(len(each.get("enum", [])) for each in found if len(each.get("enum", [])) == 10) == 500
    assert len(set(hard_constraints()["50,000 choices"].texts)) == 50_000  # type: ignore[union-attr]
