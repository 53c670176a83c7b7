"""What a benchmark asks: a user's lines of JSON, and the built-in prompts with their checks."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

import pytest
from demo_model.judge import judge
from demo_model.questions import Question, draw, is_held_out
from demo_model.suites import ASKED, check, write_suites

from mlx_diffgemma.benchmark import SUITES, SuiteName, prompts
from mlx_diffgemma.benchmark.checks import ExactCheck, RegexCheck, read_check
from mlx_diffgemma.benchmark.prompts import (
    CODE_WITH_GAP,
    PASSAGE,
    PRESENT,
    built_in_suite,
    default_suite,
    demo,
    full,
)
from mlx_diffgemma.benchmark.suite import Case, Suite, read_suite
from mlx_diffgemma.errors import BenchmarkError, DataError
from mlx_diffgemma.infilling.template import Gap

RIGHT = {
    "chat": "Light travels much faster than sound.",
    "code": "`max(merged[-1][1], end)`",
    "passage": "1984.",
    "count": " ".join(map(str, range(1, 201))),
    "json": json.dumps(
        {
            "customer": "Ines Carvalho",
            "city": "Lisbon",
            "items": [
                {"product": "bag of rye flour", "quantity": 12, "price": 18.5},
                {"product": "bucket of honey", "quantity": 3, "price": 42},
            ],
        }
    ),
    "sudoku": "1243\n4312\n3421\n2134",
    "sum": "90 + 48 = 138",
    "sort": "apple, boat, lamp, rocket",
    "function": "def growth(n, time):\n    return n + time",
}
WRONG = {
    "chat": "Because of the clouds.",
    "code": "end",
    "passage": "1983, or 1984.",
    "count": RIGHT["count"].replace(" 117 ", " "),
    "json": RIGHT["json"].replace("18.5", "18"),
    "rewrite": PRESENT,
    "sudoku": "1243\n4312\n3412\n2134",
    "sum": "90 + 48 = 148",
    "sort": "boat, apple, lamp, rocket",
    "function": "def growth(n, time):\n    return n * time",
    "hello": "Hello!",
}


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "prompts.jsonl"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def case(suite: Suite, name: str) -> Case:
    return next(case for case in suite.cases if case.name == name)


# a user's own


def test_prompts_are_read_line_by_line(tmp_path: Path) -> None:
    lines = (
        '\ufeff{"name": "capital", "prompt": "Capital of Peru?", "check": {"regex": "Lima"}, "max_tokens": 64}\r\n'
        "\n"
        '{"prompt": "Say\\u2028yes.", "check": {"exact": "yes"}}'
    )
    suite = read_suite(written(tmp_path, lines))
    assert suite.name == "prompts.jsonl"
    first, second = suite.cases
    assert (first.name, first.prompt, first.max_tokens) == ("capital", "Capital of Peru?", 64)
    assert isinstance(first.check, RegexCheck)
    assert (second.name, second.prompt, second.max_tokens) == ("3", "Say\u2028yes.", None)
    assert second.check == ExactCheck(text="yes")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[1]", "a prompt is a JSON object, not a list"),
        ('{"check": {"regex": "."}}', "prompt must be text that says something, not None"),
        ('{"prompt": " ", "check": {"regex": "."}}', "prompt must be text that says something, not ' '"),
        ('{"prompt": "a", "name": 3, "check": {"regex": "."}}', "name must be text that says something, not 3"),
        ('{"prompt": "\\ud800", "check": {}}', "prompt is not valid Unicode at character 0: remove that character"),
        ('{"prompt": "a"}', 'no check; {"regex": "."} accepts every answer that is not empty'),
        (
            '{"prompt": "a", "check": {"regex": "("}}',
            "'(' is no regular expression: missing ), unterminated subpattern",
        ),
        ('{"prompt": "a", "check": {"regex": "."}, "max_tokens": 0}', "max_tokens must be a whole number, at least 1"),
        (
            '{"prompt": "a", "check": {"regex": "."}, "max_tokens": true}',
            "max_tokens must be a whole number, at least 1",
        ),
        (
            '{"prompt": "a", "check": {"regex": "."}, "sistem": "x", "maxtokens": 3}',
            "unknown: maxtokens, sistem; there are allow_empty, canvas_length, check, choices, ",
        ),
        ('{"name": "one", "prompt": "a", "check": {"regex": "."}}', "a second prompt of the name 'one'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    good = '{"name": "one", "prompt": "a", "check": {"regex": "."}}\n'
    path = written(tmp_path, f"{good}\n{line}\n")
    with pytest.raises(DataError) as raised:
        read_suite(path)
    assert str(raised.value).startswith(f"{path}, line 3: {message}")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.jsonl: no such file"):
        read_suite(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match=r"cannot be read: Is a directory"):
        read_suite(tmp_path)
    with pytest.raises(DataError, match=r"prompts.jsonl, line 2: not UTF-8 text \(invalid continuation byte\)"):
        read_suite(written(tmp_path, b"\n\xc3(\n"))
    with pytest.raises(DataError, match=r"prompts.jsonl has no prompts: it needs one JSON object per line"):
        read_suite(written(tmp_path, " \n\n"))


def test_a_line_may_set_any_option_of_a_generation(tmp_path: Path) -> None:
    line = {
        "prompt": "Yes or no?",
        "check": {"regex": "."},
        "choices": ["yes", "no"],
        "max_steps": 3,
        "seed": 7,
        "conditioning_top_k": None,
        "group": "questions",
    }
    [read] = read_suite(written(tmp_path, json.dumps(line))).cases
    assert (read.group, read.row, read.name, read.seed, read.max_tokens) == ("questions", "questions", "1", 7, None)
    assert read.options == {"choices": ("yes", "no"), "max_steps": 3, "conditioning_top_k": None}
    assert read.template == ()


def test_a_line_may_have_a_conversation(tmp_path: Path) -> None:
    said = [
        {"role": "user", "content": [{"type": "text", "text": "What is 1 + 2?"}]},
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "plus 4"},
    ]
    [case] = read_suite(written(tmp_path, json.dumps({"messages": said, "check": {"exact": "7"}}))).cases
    assert case.asked == case.messages == ({**said[0], "content": "What is 1 + 2?"}, said[1], said[2])
    assert case.conversation == list(case.messages)
    assert case.prompt is None


def test_a_line_may_have_a_template_whose_gaps_take_the_constraint(tmp_path: Path) -> None:
    lines = [
        {"template": "1 <gap:2> 4<gap>", "check": {"exact": "1 2 3 4"}},
        {"template": "<gap>!", "prompt": "Greet.", "check": {"regex": "."}, "regex": "Hi|Hello", "greedy": True},
    ]
    plain, constrained = read_suite(written(tmp_path, "\n".join(map(json.dumps, lines)))).cases
    assert (plain.template, plain.prompt, plain.options) == (("1 ", Gap(2, 2), " 4", Gap()), None, {})
    assert constrained.template == (Gap(regex="Hi|Hello"), "!")
    assert (constrained.prompt, constrained.options) == ("Greet.", {"greedy": True})


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"prompt": "a", "max_steps": 0}, "max_steps=0 must be at least 1"),
        ({"prompt": "a", "seed": None}, "seed=None must be a whole number"),
        ({"prompt": "a", "regex": "a", "choices": ["b"]}, "regex and choices cannot both be kept: give one of them"),
        ({"prompt": "a", "regex": "(a"}, "'(a'"),
        ({"prompt": "a", "json_schema": {"type": "parrot"}}, "json_schema"),
        ({"template": "no place to fill"}, "the template has no gap: mark one with <gap>"),
        ({"template": "<gap:3-2>"}, "a gap of 3 to 2 tokens: "),
        ({"template": ["a"]}, "template must be text that says something, not ['a']"),
        ({"template": "<gap>", "prompt": ""}, "prompt must be text that says something, not ''"),
        ({"messages": []}, "the conversation is empty: give it at least one message"),
        ({"messages": [{"role": "user"}]}, "message 1: the user message has no content: give a text"),
        (
            {"messages": [{"role": "user", "content": "a"}], "prompt": "b"},
            "give messages alone, or a prompt or a template without them",
        ),
        ({"prompt": "a", "group": 3}, "group must be text that says something, not 3"),
    ],
)
def test_an_option_or_a_template_that_no_model_can_use_names_its_line(
    tmp_path: Path, entries: dict[str, object], message: str
) -> None:
    path = written(tmp_path, json.dumps({**entries, "check": {"regex": "."}}))
    with pytest.raises(DataError) as raised:
        read_suite(path)
    assert str(raised.value).startswith(f"{path}, line 1: ")
    assert message in str(raised.value)


# the built-in suites


def test_the_suite_follows_the_canvas_unless_it_is_named() -> None:
    assert [default_suite(length) for length in (16, 32, 63, 64, 256)] == ["demo", "demo", "demo", "full", "full"]


@pytest.mark.parametrize("name", SUITES)
def test_a_built_in_suite_has_its_name_and_different_prompts(name: SuiteName) -> None:
    suite = built_in_suite(name)
    assert suite.name == name
    assert len({case.name for case in suite.cases}) == len(suite.cases)


def test_only_two_suites_need_the_packages_of_a_schema_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    monkeypatch.setitem(sys.modules, "jsonschema.exceptions", None)
    for name in ("demo", "demo-accuracy", "demo-infill"):
        assert built_in_suite(name).cases
    with pytest.raises(BenchmarkError) as raised:
        built_in_suite("full")
    assert str(raised.value) == (
        "prompt json of the suite full: a json_schema check needs more packages: pip install 'mlx-diffgemma[bench]'"
    )
    with pytest.raises(
        BenchmarkError, match=r"demo-constrained.jsonl, line 41: a json_schema check needs more packages"
    ):
        built_in_suite("demo-constrained")


def test_the_suites_of_the_demo_model_are_what_their_script_writes(tmp_path: Path) -> None:
    write_suites(tmp_path)
    folder = Path(prompts.__file__).parent / "suites"
    written = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}
    assert {Path(name).stem for name in written} | {"full", "demo"} == set(SUITES)


@pytest.mark.parametrize("kind", ASKED)
def test_a_check_agrees_with_the_demo_models_judge(kind: str) -> None:
    questions = [draw(kind, random.Random(seed), held_out=True) for seed in range(60)]
    answers = [question.answer for question in questions]
    for question in questions:
        verdict = read_check("here", check(question))
        assert [verdict.refusal(answer) is None for answer in answers] == [
            judge(question, answer) for answer in answers
        ]


def test_operands_and_arguments_may_come_in_another_order_where_it_does_not_matter() -> None:
    [product, quotient] = (
        Question(kind="function", prompt="", answer=f"def area(x, y):\n    return x {sign} y", content="")
        for sign in "*/"
    )
    for question, sign, right in ((product, "*", True), (quotient, "/", False)):
        swapped = f"def area(y, x):\n    return y {sign} x"
        assert judge(question, swapped) is right
        assert (read_check("here", check(question)).refusal(swapped) is None) is right


def test_the_full_suite_has_the_six_kinds() -> None:
    assert [case.name for case in full().cases] == ["chat", "rewrite", "code", "json", "passage", "count"]
    assert 480 <= len(PRESENT.split()) <= 520
    assert PRESENT in case(full(), "rewrite").prompt
    assert PASSAGE in case(full(), "passage").prompt


def test_the_demo_suite_has_what_the_demo_model_learned() -> None:
    names = ["sudoku", "sum", "json", "count", "sort", "function", "hello"]
    assert [case.name for case in demo().cases] == names


@pytest.mark.parametrize("suite", [full(), demo()], ids=lambda suite: suite.name)
def test_checks_accept_right_answers_and_refuse_wrong_ones(suite: Suite) -> None:
    people = '{"name": "Vera", "age": 56, "city": "Copenhagen"}'
    count = " ".join(map(str, range(174, 191)))
    right = RIGHT if suite.name == "full" else {**RIGHT, "json": people, "count": count}
    wrong = WRONG if suite.name == "full" else {**WRONG, "json": people.replace("56", '"56"'), "count": f"{count} 191"}
    for case in suite.cases:
        if case.name in right:
            assert case.check.refusal(right[case.name]) is None
        assert case.check.refusal(wrong[case.name]) is not None
        assert case.check.refusal("") is not None


def test_the_count_may_be_separated_by_anything() -> None:
    count = case(full(), "count").check
    assert count.refusal("\n".join(map(str, range(1, 201)))) is None
    assert count.refusal(", ".join(map(str, range(1, 201))) + ".") is None


def test_a_text_in_the_past_tense_is_accepted_as_a_rewrite() -> None:
    past = PRESENT
    for now, then in (
        ("leaves", "left"), ("stands", "stood"), (" is ", " was "), (" are ", " were "), ("takes", "took"),
        ("carries", "carried"), ("walks", "walked"), ("sees", "saw"), ("comes", "came"), ("has ", "had "),
    ):  # fmt: skip
        past = past.replace(now, then)
    rewrite = case(full(), "rewrite").check
    assert rewrite.refusal(past) is None
    assert rewrite.refusal(past.replace("214", "215")) is not None
    assert rewrite.refusal(past[: len(past) // 2]) is not None


def test_the_gap_is_the_only_one_and_its_filling_makes_the_code_right() -> None:
    assert CODE_WITH_GAP.count("<GAP>") == 1
    names: dict[str, object] = {}
    exec(CODE_WITH_GAP.replace("<GAP>", "max(merged[-1][1], end)"), names)
    free = names["free"]
    assert callable(free)
    assert free([(600, 700), (500, 900), (1000, 1010)]) == [(480, 500), (900, 1000), (1010, 1080)]


def test_the_demo_model_was_not_trained_on_its_suite() -> None:
    contents = {
        "sudoku": "1.43.31.3....13.",
        "sums": "90 + 48",
        "json": "Vera 56 Copenhagen",
        "count": "174 190",
        "sort": "apple, boat, lamp, rocket",
        "function": "growth adds n and time",
    }
    for kind, content in contents.items():
        assert is_held_out(Question(kind=kind, prompt="", answer="", content=content)), kind


def test_the_demo_models_own_judge_agrees() -> None:
    solved = Question(kind="sudoku", prompt="", answer="", content="1.43.31.3....13.")
    assert judge(solved, RIGHT["sudoku"])
    assert RIGHT["sudoku"] not in case(demo(), "sudoku").prompt
