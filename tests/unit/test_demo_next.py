"""The questions of the next demo model: right answers, held out by word and by value, the same for one seed."""

from __future__ import annotations

import ast
import json
import random
import re
from collections.abc import Callable
from itertools import islice, pairwise
from pathlib import Path

import pytest
from demo_model.sudoku import CELLS, is_grid
from demo_next import questions, suites, talk
from demo_next.arithmetic import result
from demo_next.question import Question
from demo_next.questions import KINDS, PRACTICE, draw, stream
from demo_next.source import Source, is_held_out
from demo_next.vocabulary import write_tokenizer

from mlx_diffgemma.text.tokenizer import load_tokenizer

COUNT = 150


def drawn(kind: str, *, held_out: bool = False, count: int = COUNT) -> list[Question]:
    source = Source(random.Random(f"test {kind}"), held_out)
    return [draw(kind, source) for _ in range(count)]


def is_right_sudoku(question: Question) -> bool:
    cells = question.answer.replace("\n", "")
    assert question.content is not None
    kept = all(wanted in (".", cell) for wanted, cell in zip(question.content, cells, strict=True))
    return len(cells) == CELLS and is_grid(cells) and kept


def is_right_sum(question: Question) -> bool:
    left, sign, right, equals, found = question.answer.split(" ")
    numbers = re.findall(r"\d+", question.prompt)
    return equals == "=" and int(found) == result(int(left), sign, int(right)) and numbers[:2] == [left, right]


def is_right_count(question: Question) -> bool:
    numbers = [int(number) for number in question.answer.split(" ")]
    steps = {after - before for before, after in pairwise(numbers)}
    assert question.content is not None
    first, last, step = map(int, question.content.split(" "))
    within = abs(last - numbers[-1]) < step
    return numbers[0] == first and within and steps <= {step if last >= first else -step} and len(numbers) <= 120


def is_right_order(question: Question) -> bool:
    items = question.answer.split(", ")
    keys = [int(item) if item.isdigit() else item.casefold() for item in items]
    asked = re.findall(r"[^\W_]+", question.prompt)
    return keys in (sorted(keys), sorted(keys, reverse=True)) and set(items) <= set(asked)


def is_right_record(question: Question) -> bool:
    values = json.loads(question.answer).values()
    texts = re.findall(r'": (?:"([^"]*)"|([0-9.]+))', question.answer)
    return len(values) == len(texts) and all((text or number) in question.prompt for text, number in texts)


def is_right_function(question: Question) -> bool:
    [function] = ast.parse(question.answer).body
    assert isinstance(function, ast.FunctionDef)
    names = {node.id for node in ast.walk(function.body[0]) if isinstance(node, ast.Name)}
    known = {"max", "min", "len", "sum", "abs", "sorted"}
    return function.name in question.prompt and names - known <= {each.arg for each in function.args.args}


def is_right_edit(question: Question) -> bool:
    """The words of the answer are those of the prompt, in some case, or one that takes another's place."""
    prompt = question.prompt.casefold()
    return all(word in prompt for word in re.findall(r"\w+", question.answer.casefold()))


RIGHT: dict[str, Callable[[Question], bool]] = {
    "sudoku": is_right_sudoku,
    "sums": is_right_sum,
    "count": is_right_count,
    "sort": is_right_order,
    "json": is_right_record,
    "function": is_right_function,
    "edit": is_right_edit,
}


@pytest.mark.parametrize("kind", RIGHT)
def test_answers_are_right(kind: str) -> None:
    assert [question for question in drawn(kind) if not RIGHT[kind](question)] == []


@pytest.mark.parametrize("held_out", [False, True])
def test_words_and_names_are_on_one_side_of_the_line(held_out: bool) -> None:
    source = Source(random.Random(0), held_out)
    words = [source.word() for _ in range(COUNT)] + re.split("[-' ]", " ".join(source.name() for _ in range(COUNT)))
    # O' before a name is a name's part.
    assert {is_held_out(word) for word in words if len(word) > 1} == {held_out}


@pytest.mark.parametrize("kind", ["sums", "count", "sudoku"])
def test_values_that_are_tested_are_never_trained(kind: str) -> None:
    taught = {question.content for question in drawn(kind)}
    tested = {question.content for question in drawn(kind, held_out=True)}
    assert not taught & tested
    assert len(tested) > COUNT / 2


def test_a_conversation_ends_with_the_question_and_its_answer() -> None:
    for question in drawn("second turn"):
        messages = question.messages()
        said = [message for message in messages if message["role"] != "system"]
        assert [message["role"] for message in said] == ["user", "assistant"] * (len(said) // 2)
        assert len(said) >= 4
        assert (said[-2]["content"], said[-1]["content"]) == (question.prompt, question.answer)


def test_what_cannot_be_answered_has_one_answer_that_says_what_can_be_asked() -> None:
    found = drawn("else")
    assert {question.answer for question in found} == {talk.ELSE}
    assert len({question.prompt for question in found}) > COUNT * 0.9
    assert all(question.prompt.strip() for question in found)
    assert "demo" in talk.ELSE
    assert "Try" in talk.ELSE


def test_one_seed_gives_one_stream() -> None:
    first, again, other = (list(islice(stream(seed, held_out=False), 30)) for seed in (1, 1, 2))
    assert first == again != other
    assert {*questions.MIX} == {*KINDS, *PRACTICE} - {"long count"}


def test_every_text_is_read_and_written_back(tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    for kind in KINDS:
        for question in drawn(kind, count=20):
            for text in (question.prompt, question.answer):
                ids = tokenizer.literal(text)
                assert b"".join(map(tokenizer.token_bytes, ids)).decode() == text
    assert len(tokenizer.literal(talk.ELSE)) < 10


@pytest.mark.parametrize(
    ("value", "same"),
    [
        ("a * b", ["a * b", "b * a"]),
        ("a - b", ["a - b"]),
        ("max(a, b)", ["max(a, b)", "max(b, a)"]),
        ("(a + b) / 2", ["(a + b) / 2", "(b + a) / 2"]),
        ("a == b", ["a == b", "b == a"]),
        ("a % 2 == 0", ["a % 2 == 0"]),
        ("sum(a) / len(a)", ["sum(a) / len(a)"]),
    ],
)
def test_operands_may_come_in_another_order_where_it_makes_no_difference(value: str, same: list[str]) -> None:
    assert suites.orders(value) == same
    pattern = suites.function_pattern(f"def f(a, b):\n    return {value}")
    assert all(re.search(pattern, f"def f(a, b):\n    return {each}\n") for each in same)


def test_a_suites_lines_have_checks_that_accept_the_answers() -> None:
    lines = list(suites.kinds(4)) + list(suites.infill(2))
    assert len(lines) == 4 * len(suites.ASKED) + 2 * 5
    assert all(("prompt" in line) != ("messages" in line) for line in lines)
