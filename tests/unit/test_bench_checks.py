"""How answers of a benchmark are judged: by pattern, by text, by JSON schema, by a command."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mlx_diffgemma.benchmark.checks import TIMEOUT, Check, CommandCheck, embedded_json, read_check
from mlx_diffgemma.errors import BenchmarkError, DataError

AGE: dict[str, Any] = {
    "type": "object",
    "properties": {"age": {"$ref": "#/$defs/years"}},
    "required": ["age"],
    "$defs": {"years": {"type": "integer", "minimum": 0}},
}


def check(**record: object) -> Check:
    return read_check("here", record)


def python(code: str, **options: object) -> Check:
    return check(command=[sys.executable, "-c", code], **options)


# regex


@pytest.mark.parametrize(
    ("pattern", "answer", "accepted"),
    [
        (r"\b42\b", "It is 42.", True),
        (r"\b42\b", "It is 420.", False),
        (r"\A42\Z", "It is 42", False),
        ("lima", "Lima", False),
        ("(?i)lima", "It is\nLIMA", True),
        (".", "\n", False),
    ],
)
def test_a_pattern_is_searched_for(pattern: str, answer: str, accepted: bool) -> None:
    assert (check(regex=pattern).refusal(answer) is None) is accepted


def test_a_pattern_that_is_not_found_is_the_reason_shortened() -> None:
    assert check(regex="yes|no").refusal("maybe") == "no match for yes|no"
    assert check(regex="a" * 50 + "b" * 50).refusal("") == f"no match for {'a' * 25} ... {'b' * 10}"


# exact


def test_an_exact_answer_may_have_blanks_around_it() -> None:
    assert check(exact=" 1243\n4312\n").refusal("1243\n4312") is None
    assert check(exact="a b").refusal("a  b") == "not 'a b'"
    assert check(exact="a").refusal("A") == "not 'a'"


# JSON schema


@pytest.mark.parametrize(
    "answer",
    [
        '{"age": 3}',
        '  {"age": 3, "name": "Ida"}\n',
        '```json\n{"age": 3}\n```',
        'Here it is:\n\n```\n{"age": 3}\n```\nAnything else?',
        '```python\nprint("no JSON")\n```\nand\n```json\n{"age": 3}\n```',
        '``` {"age": 3} ```',
    ],
)
def test_json_is_accepted_bare_and_in_a_fence(answer: str) -> None:
    assert check(json_schema=AGE).refusal(answer) is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("three", "no JSON"),
        ("", "no JSON"),
        ('{"age": 3', "no JSON"),
        ('{"age": NaN}', "no JSON"),
        ('Sure: {"age": 3}', "no JSON"),
        ('{"age": "3"}', "$.age: '3' is not of type 'integer'"),
        ('{"age": -1}', "$.age: -1 is less than the minimum of 0"),
        ("{}", "$: 'age' is a required property"),
        ("[" * 100_000, "JSON nested too deeply"),
    ],
)
def test_json_that_is_wrong_is_refused_with_its_place(answer: str, reason: str) -> None:
    assert check(json_schema=AGE).refusal(answer) == reason


def test_an_older_draft_is_followed_where_the_schema_names_it() -> None:
    pair = {"items": [{"const": 1}, {"const": 2}], "$schema": "http://json-schema.org/draft-07/schema#"}
    assert check(json_schema=pair).refusal("[1, 2]") is None
    assert check(json_schema=pair).refusal("[1, 3]") == "$[1]: 2 was expected"


def test_the_first_json_counts() -> None:
    assert embedded_json("```\n1\n```\n```\n2\n```") == 1


# JSON


def test_json_of_one_value_is_accepted_bare_and_in_a_fence() -> None:
    wanted = check(json={"age": 3, "names": ["Ida", "Eva"]})
    assert wanted.refusal('{"names": ["Ida", "Eva"],\n "age": 3}') is None
    assert wanted.refusal('Here:\n```json\n{"age": 3, "names": ["Ida", "Eva"]}\n```') is None


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("three", "no JSON"),
        ('{"age": 1', "no JSON"),
        ('{"age": true}', "not {'age': 1}"),
        ('{"age": 1.0}', "not {'age': 1}"),
        ('{"age": "1"}', "not {'age': 1}"),
        ('{"age": 1, "name": "Ida"}', "not {'age': 1}"),
        ("[" * 100_000, "JSON nested too deeply"),
    ],
)
def test_json_of_another_value_is_refused(answer: str, reason: str) -> None:
    assert check(json={"age": 1}).refusal(answer) == reason


# packages of extras


@pytest.mark.parametrize("missing", ["jsonschema", "referencing"])
def test_a_schema_check_without_its_packages_says_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == missing]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(BenchmarkError) as raised:
        check(json_schema=AGE)
    assert str(raised.value) == "here: a json_schema check needs more packages: pip install 'mlx-diffgemma[bench]'"
    assert check(json={}).refusal("{}") is None


# commands


def test_a_command_reads_the_answer_and_accepts_with_exit_code_0() -> None:
    wants = python("import sys; sys.exit(sys.stdin.read() != 'caf\\xe9\\n')")
    assert wants.refusal("café\n") is None
    assert wants.refusal("tea") == "exit code 1"


def test_what_a_command_says_last_is_the_reason() -> None:
    assert python("import sys; print('first'); sys.exit('no verb')").refusal("x") == "exit code 1: no verb"


def test_a_command_need_not_read_and_may_say_much() -> None:
    assert python("print('word ' * 1_000_000)").refusal("answer " * 1_000_000) is None


def test_a_command_is_a_line_too() -> None:
    assert check(command="grep -q 'a b'").refusal("x a b y") is None
    assert check(command="grep -q 'a b'").refusal("a  b") == "exit code 1"


def test_a_command_without_end_is_ended_with_all_it_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen(['sh', '-c', 'sleep 60; touch {tmp_path / 'ended'}'])\n"
        f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        "time.sleep(60)"
    )
    assert python(code, timeout=2).refusal("x") == "no verdict within 2 s"
    assert not (tmp_path / "ended").exists()
    deadline = time.monotonic() + 10
    while is_running(int((tmp_path / "child").read_text())):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(process: int) -> bool:
    """Whether a process is there, and has not ended only to be waited for."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{process}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_command_that_leaves_something_running_is_not_waited_for(tmp_path: Path) -> None:
    running = f"(sleep 20; touch {tmp_path / 'ended'}) & exit 0"
    assert check(command=["sh", "-c", running]).refusal("x") is None
    assert not (tmp_path / "ended").exists()


def test_a_command_has_ten_seconds_unless_its_check_says_otherwise() -> None:
    assert TIMEOUT == 10
    assert python("pass") == CommandCheck(words=(sys.executable, "-c", "pass"), timeout=10.0)


# what is wrong with a check


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({}, "the check must have one of regex, exact, json, json_schema, command"),
        ("42", "the check must have one of regex, exact, json, json_schema, command"),
        ({"regex": "a", "exact": "a"}, "the check must have one of regex, exact, json, json_schema, command"),
        ({"regex": "a", "flags": "i"}, "unknown beside regex: flags"),
        ({"exact": "a", "timeout": 3}, "unknown beside exact: timeout"),
        ({"regex": 42}, "regex must be text, not 42"),
        ({"exact": None}, "exact must be text, not None"),
        ({"regex": "a(b"}, "'a(b' is no regular expression: missing ), unterminated subpattern at position 1"),
        ({"json_schema": "object"}, "a JSON schema is an object, not 'object'"),
        (
            {"json_schema": {"type": "text"}},
            "no JSON schema: $.type: 'text' is not valid under any of the given schemas",
        ),
        ({"json_schema": {"pattern": "a(b"}}, "no JSON schema: $.pattern: 'a(b' is not a 'regex'"),
        ({"json_schema": {"$ref": "#/$defs/x"}}, "the JSON schema refers to '#/$defs/x', which is not in it"),
        (
            {"json_schema": {"anyOf": [{"$ref": "https://example.org/x.json"}]}},
            "the JSON schema refers to 'https://example.org/x.json', which is not in it",
        ),
        ({"command": ""}, "a command is a line or a list of words, not ''"),
        ({"command": ["true", 1]}, "a command is a line or a list of words, not ['true', 1]"),
        ({"command": "grep 'a"}, '"grep \'a" is no command: No closing quotation'),
        ({"command": "nosuchcommand -x"}, "there is no command 'nosuchcommand'"),
        ({"command": "true", "timeout": 0}, "timeout must be a number of seconds above 0, not 0"),
        ({"command": "true", "timeout": True}, "timeout must be a number of seconds above 0, not True"),
        ({"command": "true", "shell": True}, "unknown beside command: shell"),
    ],
)
def test_a_check_that_cannot_be_meant_is_refused(record: object, message: str) -> None:
    with pytest.raises(DataError) as raised:
        read_check("prompts.jsonl, line 3", record)
    assert str(raised.value) == f"prompts.jsonl, line 3: {message}"


def test_data_in_a_schema_refers_to_nothing() -> None:
    assert check(json_schema={"const": {"$ref": "x"}}).refusal('{"$ref": "x"}') is None
