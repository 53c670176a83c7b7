"""The demo model's school: questions that are split cleanly, a fair judge, a tokenizer whose pieces are the words."""

from __future__ import annotations

import json
import random
from itertools import islice, pairwise
from pathlib import Path

import pytest
from demo_checkpoint import CONTROLS
from demo_model import phrases, sudoku
from demo_model.data import write_data
from demo_model.judge import judge
from demo_model.questions import KINDS, MIX, Question, draw, is_held_out, stream
from demo_model.vocabulary import vocabulary, write_tokenizer
from demo_model.words import ARGUMENTS, CITIES, FUNCTIONS, NAMES, WORDS
from tokenizers import Tokenizer as Reference

from mlx_diffgemma.text.tokenizer import Tokenizer, load_tokenizer

MADE_UP = [*NAMES, *CITIES, *WORDS, *FUNCTIONS, *ARGUMENTS]
TEXTS = [
    "",
    " ",
    "  two  spaces  ",
    "for value in range(10):\n    if value % 2 == 0:\n\treturn {'a': [value] * 3}\n\n",
    "naïve café 漢字かな 🙂👩‍👩‍👧 \u200d\u0000",
    "a line\r\nanother\r\n",
    "1..4\n.3..\n..2.\n4..1",
    "-5+3 = -2, 3.14: 1,000 / 7 % x * y",
    "The quick brown fox isn't in Rome; Anabel is.",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


@pytest.fixture(scope="module")
def reference(folder: Path) -> Reference:
    return Reference.from_file(str(folder / "tokenizer.json"))


def some(kind: str, number: int = 200, *, held_out: bool = False) -> list[Question]:
    rng = random.Random(f"test {kind}")
    return [draw(kind, rng, held_out=held_out) for _ in range(number)]


def asked(kind: str, answer: str, content: str = "") -> Question:
    return Question(kind=kind, prompt="", answer=answer, content=content)


# The split


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "chat"])
def test_training_never_sees_a_held_out_question_in_any_phrasing(kind: str) -> None:
    held_out = set(map(what_is_asked, some(kind, 300, held_out=True)))
    assert held_out.isdisjoint(map(what_is_asked, some(kind, 3000)))


def what_is_asked(question: Question) -> str:
    """The puzzle, or the answer, which tells all that was asked for."""
    return question.prompt.partition("\n")[2] if question.kind == "sudoku" else question.answer


def test_what_is_held_out_stays_so() -> None:
    held_out = [left for left in range(100) if is_held_out(asked("sums", "", f"{left} + 7"))]
    assert held_out == [16, 33, 43, 55, 86]


def test_a_twentieth_is_held_out() -> None:
    contents = [
        asked("sums", "", f"{left} {sign} {right}") for left in range(100) for right in range(100) for sign in "+-"
    ]
    assert 0.04 < sum(map(is_held_out, contents)) / len(contents) < 0.06


def test_sorted_words_are_one_question_in_any_order() -> None:
    contents = {KINDS["sort"](random.Random(seed)).content for seed in range(100)}
    assert all(content == ", ".join(sorted(content.split(", "))) for content in contents)


def test_a_stream_repeats_itself_for_its_seed_and_has_every_kind_in_its_share() -> None:
    first = list(islice(stream(3, held_out=False), 4000))
    assert first == list(islice(stream(3, held_out=False), 4000))
    assert first[:20] != list(islice(stream(4, held_out=False), 20))
    assert sum(MIX.values()) == 100
    for kind, share in MIX.items():
        assert sum(question.kind == kind for question in first) / 40 == pytest.approx(share, abs=3)


def test_data_files_hold_conversations_of_both_parts(tmp_path: Path) -> None:
    write_data(tmp_path, train=30, valid=10, seed=1)
    for name, number, held_out in (("train", 30, False), ("valid", 10, True)):
        lines = [json.loads(line) for line in (tmp_path / f"{name}.jsonl").read_text().splitlines()]
        expected = list(islice(stream(1, held_out=held_out), number))
        assert [[message["role"] for message in line["messages"]] for line in lines] == [["user", "assistant"]] * number
        assert [line["messages"][0]["content"] for line in lines] == [question.prompt for question in expected]
        assert [line["messages"][1]["content"] for line in lines] == [question.answer for question in expected]


# The kinds


def test_there_are_288_grids_as_brute_force_finds_them() -> None:
    assert len(set(sudoku.grids())) == 288
    assert all(sudoku.is_grid(grid) for grid in sudoku.grids())
    assert sorted(solve("." * 16)) == sorted(sudoku.grids())


def test_puzzles_have_one_solution_and_four_to_eleven_givens() -> None:
    puzzles = some("sudoku", 150)
    for question in puzzles:
        assert solve(question.content) == [question.answer.replace("\n", "")]
    givens = [16 - question.content.count(".") for question in puzzles]
    assert set(givens) == set(range(4, 12))


def solve(cells: str) -> list[str]:
    """Every solution, by trying each digit in the first empty cell."""
    empty = cells.find(".")
    if empty < 0:
        return [cells]
    seen = {cells[cell] for unit in sudoku.UNITS if empty in unit for cell in unit}
    return [grid for digit in "1234" if digit not in seen for grid in solve(cells[:empty] + digit + cells[empty + 1 :])]


def test_counting_is_short_and_long_and_begins_anywhere() -> None:
    ranges = [[int(number) for number in question.answer.split()] for question in some("count", 3000)]
    assert all(numbers == list(range(numbers[0], numbers[-1] + 1)) for numbers in ranges)
    lengths = {len(numbers) for numbers in ranges}
    assert lengths >= set(range(2, 41))
    assert 110 < max(lengths) <= 120
    assert max(numbers[-1] for numbers in ranges) <= 999
    assert 0.6 < sum(numbers[0] < 200 for numbers in ranges) / 3000 < 0.9
    assert sum(len(numbers) <= 12 for numbers in ranges) > 800


def test_sums_and_records_follow_from_what_is_asked() -> None:
    for question in some("sums", 500):
        left, sign, right, _, result = question.answer.split()
        assert f"{left} {sign} {right}" in question.prompt
        assert int(result) == (int(left) + int(right) if sign == "+" else int(left) - int(right))
    for question in some("json", 500):
        said = question.prompt.removesuffix(".").replace(",", "").split()
        assert all(str(value) in said for value in json.loads(question.answer).values())


def test_a_question_about_the_model_may_be_written_in_several_ways() -> None:
    answers = dict(phrases.chat_questions())
    for written in ("Who are you?", "who are you?", "who are you"):
        assert answers[written] == phrases.SELF
    assert answers["Hello"] == answers["hi!"] == phrases.GREETING


def test_subtraction_and_division_keep_their_order() -> None:
    for question in some("function", 500):
        words = question.prompt.rstrip(".").split()
        if "subtracts" in words:
            assert question.answer.endswith(f"return {words[-1]} - {words[-3]}")
        if "divides" in words or "remainder" in words:
            sign = "/" if "divides" in words else "%"
            assert question.answer.endswith(f"return {words[-3]} {sign} {words[-1]}")


# The judge


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("held_out", [False, True])
def test_every_given_answer_is_judged_right_and_that_of_another_question_wrong(kind: str, held_out: bool) -> None:
    questions = some(kind, 100, held_out=held_out)
    assert all(judge(question, question.answer) for question in questions)
    assert all(judge(question, f"\n{question.answer}\n") for question in questions)
    assert not any(judge(question, "") for question in questions)
    others = [(left, right) for left, right in pairwise(questions) if left.answer != right.answer]
    assert others
    assert not any(judge(left, right.answer) for left, right in others)


SUDOKU = asked("sudoku", "1234\n3412\n2143\n4321", "1..43.....4....1")
SUM = asked("sums", "12 - 47 = -35")
RECORD = asked("json", '{"name": "Ana", "age": 1, "city": "Rome"}')
RANGE = asked("count", "8 9 10 11")
WORDS_IN_ORDER = asked("sort", "apple, fig, pear")
DIFFERENCE = asked("function", "def profit(price, cost):\n    return price - cost")
LARGER = asked("function", "def area(x, y):\n    return max(x, y)")


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (SUDOKU, "1234\n3412\n2143\n432"),
        (SUDOKU, "1234\n3412\n2143\n4312"),
        (SUDOKU, "2134\n4312\n1243\n3421"),
        (SUDOKU, "1234341221434321"),
        (SUDOKU, "1..4\n3412\n2143\n4321"),
        (SUDOKU, "1234\n3412\n2143\n4321\n1234"),
        (SUM, "12 - 47 = 35"),
        (SUM, "-35"),
        (SUM, "12 - 47 = -35 5"),
        (SUM, "12 + 47 = -35"),
        (RECORD, '{"name": "Ana", "age": 2, "city": "Rome"}'),
        (RECORD, '{"name": "Ana", "age": "1", "city": "Rome"}'),
        (RECORD, '{"name": "Ana", "age": true, "city": "Rome"}'),
        (RECORD, '{"name": "Ana", "age": 1, "city": "Rome"'),
        (RECORD, '{"name": "Ana", "age": 1}'),
        (RECORD, "[" * 100_000),
        (RANGE, "8 9 11"),
        (RANGE, "8 9 10 11 12"),
        (RANGE, "8, 9, 10, 11"),
        (WORDS_IN_ORDER, "apple, pear, fig"),
        (WORDS_IN_ORDER, "apple, fig"),
        (WORDS_IN_ORDER, "apple, fig, fig, pear"),
        (WORDS_IN_ORDER, "apple fig pear"),
        (DIFFERENCE, "def profit(price, cost):\n    return cost - price"),
        (DIFFERENCE, "def profit(price, cost):\n    return price + cost"),
        (DIFFERENCE, "def gain(price, cost):\n    return price - cost"),
        (DIFFERENCE, "def profit(price, tax):\n    return price - tax"),
        (DIFFERENCE, "def profit(price, cost, cost):\n    return price - cost"),
        (DIFFERENCE, "def profit(price, cost=1):\n    return price - cost"),
        (DIFFERENCE, "def profit(price, cost):\nreturn price - cost"),
        (DIFFERENCE, "def profit(price, cost):\n    price - cost"),
        (DIFFERENCE, "```\ndef profit(price, cost):\n    return price - cost\n```"),
        (DIFFERENCE, "def profit(price, cost):\n    return price - cost\nprofit(1, 2)"),
        (DIFFERENCE, "def profit(price, cost):\n    return eval('price - cost')"),
        (DIFFERENCE, "def profit(price, cost):\n    return price - total"),
        (DIFFERENCE, "def profit(price, cost):\n    return"),
        (DIFFERENCE, "@max\ndef profit(price, cost):\n    return price - cost"),
        (DIFFERENCE, "def profit(price, cost):\n    return price - cost\x00"),
        (LARGER, "def area(x, y):\n    return min(x, y)"),
        (LARGER, "def area(x, y):\n    return max(x)"),
        (LARGER, "def area(x, y):\n    return x / 0"),
        (LARGER, "def area(x, y):\n    return 9 ** 9 ** 9 ** 9"),
        (LARGER, "def area(x, y):\n    return " + "(" * 5000 + "x"),
        (asked("chat", phrases.SELF), phrases.GREETING),
        (asked("chat", phrases.SELF), phrases.SELF[:-10]),
    ],
)
def test_wrong_answers_are_judged_wrong(question: Question, answer: str) -> None:
    assert judge(question, question.answer)
    assert not judge(question, answer)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        (RECORD, '{"city":"Rome","name":"Ana","age":1}'),
        (DIFFERENCE, "def profit(cost, price):\n    return -cost + price\n"),
        (LARGER, "def area(x, y): return max(y, x)"),
        (WORDS_IN_ORDER, "apple,fig,pear"),
    ],
)
def test_right_answers_in_another_form_are_judged_right(question: Question, answer: str) -> None:
    assert judge(question, answer)


# The tokenizer


def test_the_vocabulary_is_small_has_the_releases_control_tokens_and_all_bytes(reference: Reference) -> None:
    pieces = vocabulary()
    assert reference.get_vocab() == pieces
    assert len(pieces) <= 1024
    assert sorted(pieces.values()) == list(range(len(pieces)))
    assert all(pieces[piece] == token for token, piece in CONTROLS.items())
    assert all(f"<0x{value:02X}>" in pieces for value in range(256))
    assert all(chr(code) in pieces for code in range(33, 127))


def test_the_same_files_are_written_each_time(folder: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == {
        file.name: file.read_bytes() for file in folder.iterdir()
    }


@pytest.mark.parametrize("text", TEXTS)
def test_any_text_comes_back_byte_for_byte(tokenizer: Tokenizer, reference: Reference, text: str) -> None:
    tokens = reference.encode(text).ids
    assert reference.decode(tokens, skip_special_tokens=False) == text
    assert tokenizer.encode(text)[1:] == tokens
    assert tokenizer.decode(tokens) == text


@pytest.mark.parametrize("kind", KINDS)
def test_questions_and_answers_come_back(tokenizer: Tokenizer, kind: str) -> None:
    for question in some(kind, 50):
        for text in (question.prompt, question.answer):
            assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_that_is_said_falls_apart_into_letters(reference: Reference, kind: str) -> None:
    for question in some(kind, 300):
        for token in reference.encode(f"{question.prompt}\n{question.answer}").tokens:
            assert not (len(token) == 1 and token.isalpha()) or token in {"I", "a", "x", "y", "m", "n"}, question


def test_digits_are_tokens_of_their_own_and_take_the_space(reference: Reference) -> None:
    assert reference.encode("12 13 140").tokens == ["1", "2", "▁1", "3", "▁1", "4", "0"]
    assert reference.encode("47 + 38 = -85").tokens == ["4", "7", "▁+", "▁3", "8", "▁=", "▁-", "8", "5"]
    assert reference.encode("Ana, 34: 5").tokens == ["Ana", ",", "▁3", "4", ":", "▁5"]
    for text in [*TEXTS, *(question.prompt + question.answer for kind in KINDS for question in some(kind, 50))]:
        for token in reference.encode(text).tokens:
            bare = token.removeprefix("▁")
            assert token.startswith("<0x") or bare.isdigit() == any(map(str.isdigit, token)), token
            assert not bare.isdigit() or len(bare) == 1


def test_sudoku_lines_are_single_characters(reference: Reference) -> None:
    assert reference.encode("1..4\n.3..\n..2.\n4..1").tokens == list("1..4\n.3..\n..2.\n4..1")


@pytest.mark.parametrize("context", ["{}", "of {}", "of {} and", ": {}", ", {}", "({}, {})", '"{}"', "{}."])
def test_made_up_words_have_one_form_wherever_they_stand(reference: Reference, context: str) -> None:
    for word in MADE_UP:
        assert word in reference.encode(context.replace("{}", word)).tokens


def test_scaffolding_is_one_piece_each(reference: Reference) -> None:
    assert reference.encode('{"name": "Ana", "age": 34, "city": "Rome"}').tokens == [
        '{"name":▁"', "Ana", '",▁"age":', "▁3", "4", ',▁"city":▁"', "Rome", '"}',
    ]  # fmt: skip
    assert reference.encode("def area(width, height):\n    return width * height").tokens == [
        "def▁", "area", "(", "width", ",▁", "height", "):", "\n▁▁▁▁return▁", "width", "▁*▁", "height",
    ]  # fmt: skip
    assert reference.encode("Sort: pear, fig").tokens == ["Sort", ":▁", "pear", ",▁", "fig"]


@pytest.mark.parametrize(
    ("kind", "longest"), [("sudoku", 19), ("sums", 9), ("json", 8), ("sort", 15), ("function", 15), ("chat", 63)]
)
def test_answers_fit_into_a_canvas_of_64(reference: Reference, kind: str, longest: int) -> None:
    assert max(len(reference.encode(question.answer)) for question in some(kind, 500)) <= longest


def test_other_text_is_letters_and_not_bytes(reference: Reference) -> None:
    assert reference.encode("Zoology xyz").tokens == [*"Zoology", "▁", *"xyz"]
