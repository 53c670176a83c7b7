"""The questions that the demo model learns to answer, made up here, and the split that keeps some of them from it.

    stream(seed, mix) -> kind by mix -> draw(kind, rng) -> Question(prompt, answer)

A question's content is what it asks, however it is put. A twentieth of all contents, chosen by their hash, is held
out: training never sees them, in any phrasing.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from demo_model import phrases, sudoku
from demo_model.words import ARGUMENTS, CITIES, FUNCTIONS, NAMES, WORDS

HELD_OUT = 20
"""One content in so many is held out."""
LARGEST = 999
LONGEST = 120


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question, a right answer to it, and what it asks, whatever the phrasing."""

    kind: str
    prompt: str
    answer: str
    content: str


def sudoku_puzzle(rng: random.Random) -> Question:
    """A sudoku of four by four with four to eleven givens."""
    cells, solution = sudoku.puzzle(rng)
    prompt = f"{rng.choice(phrases.SUDOKU)}\n{sudoku.lines(cells)}"
    return Question(kind="sudoku", prompt=prompt, answer=sudoku.lines(solution), content=cells)


def blank_sudoku(rng: random.Random) -> Question:
    """A sudoku without givens, and any grid: what a canvas needs to know to go on from the digits that it holds."""
    solution = rng.choice(sudoku.grids())
    prompt = f"{rng.choice(phrases.SUDOKU)}\n{sudoku.lines(sudoku.EMPTY)}"
    return Question(kind="blank sudoku", prompt=prompt, answer=sudoku.lines(solution), content=solution)


def sums(rng: random.Random) -> Question:
    """A sum or a difference of two numbers below a hundred."""
    left, right, sign = rng.randrange(100), rng.randrange(100), rng.choice("+-")
    content = f"{left} {sign} {right}"
    answer = f"{content} = {left + right if sign == '+' else left - right}"
    return Question(kind="sums", prompt=rng.choice(phrases.SUMS).format(content), answer=answer, content=content)


def json_record(rng: random.Random) -> Question:
    """A sentence about a person, to be written as JSON."""
    name, age, city = rng.choice(NAMES), rng.randint(1, 99), rng.choice(CITIES)
    years = "1 year" if age == 1 else f"{age} years"
    return Question(
        kind="json",
        prompt=rng.choice(phrases.JSON).format(name=name, age=age, years=years, city=city),
        answer=json.dumps({"name": name, "age": age, "city": city}),
        content=f"{name} {age} {city}",
    )


def count(rng: random.Random) -> Question:
    """A range of numbers to be written out: starts mostly below 200, two to 120 numbers, up to 999."""
    start = rng.randrange(200 if rng.random() < 0.7 else LARGEST)
    # Most are short: what a canvas far into a long count needs to know is what any later canvas does.
    [longest] = rng.choices((12, 40, LONGEST), (30, 55, 15))
    longest = min(longest, LARGEST - start + 1)
    return counting(rng, start, start + rng.randint(2, longest) - 1)


def short_count(rng: random.Random) -> Question:
    """A range of two to 20 numbers anywhere up to 999: what a canvas needs to know to end a count."""
    start = rng.randrange(LARGEST)
    return counting(rng, start, min(LARGEST, start + rng.randint(2, 20) - 1))


def long_count(rng: random.Random) -> Question:
    """A range of 11 to 60 numbers anywhere up to 999: some end in the last digit of the end, and are not it."""
    start = rng.randrange(LARGEST - 60)
    return counting(rng, start, start + rng.randint(11, 60) - 1)


def two_blocks(rng: random.Random) -> Question:
    """A range of nine to 22 numbers, mostly below 200: two canvases or three, one wrong place to end, or two."""
    start = rng.randrange(200 if rng.random() < 0.6 else LARGEST - 22)
    return counting(rng, start, start + rng.randint(9, 22) - 1)


def far_count(rng: random.Random) -> Question:
    """A range of 25 to 120 numbers, mostly from below 200: many canvases that do not end, though some nearly could."""
    start = rng.randrange(200 if rng.random() < 0.7 else LARGEST - LONGEST)
    return counting(rng, start, start + rng.randint(25, LONGEST) - 1)


def counting(rng: random.Random, start: int, end: int) -> Question:
    """The numbers from start to end to be written out."""
    return Question(
        kind="count",
        prompt=rng.choice(phrases.COUNT).format(start, end),
        answer=" ".join(map(str, range(start, end + 1))),
        content=f"{start} {end}",
    )


def sort(rng: random.Random) -> Question:
    """Two to eight words to be put in alphabetical order."""
    words = rng.sample(WORDS, rng.randint(2, 8))
    answer = ", ".join(sorted(words))
    prompt = rng.choice(phrases.SORT).format(", ".join(words))
    return Question(kind="sort", prompt=prompt, answer=answer, content=answer)


def function(rng: random.Random) -> Question:
    """A Python function of two arguments, described in words."""
    name = rng.choice(FUNCTIONS)
    a, b = rng.sample(ARGUMENTS, 2)
    task, value = rng.choice(list(phrases.OPERATIONS.items()))
    task = task.format(a=a, b=b)
    return Question(
        kind="function",
        prompt=rng.choice(phrases.FUNCTION).format(name=name, task=task),
        answer=f"def {name}({a}, {b}):\n    return {value.format(a=a, b=b)}",
        content=f"{name} {task}",
    )


def chat(rng: random.Random) -> Question:
    """A greeting, or a question about the model itself. There are few, and none is held out."""
    prompt, answer = rng.choice(phrases.chat_questions())
    return Question(kind="chat", prompt=prompt, answer=answer, content=prompt)


KINDS: dict[str, Callable[[random.Random], Question]] = {
    "sudoku": sudoku_puzzle,
    "sums": sums,
    "json": json_record,
    "count": count,
    "sort": sort,
    "function": function,
    "chat": chat,
}
PRACTICE = {
    "short count": short_count,
    "long count": long_count,
    "two blocks": two_blocks,
    "far count": far_count,
    "blank sudoku": blank_sudoku,
}
"""What is only trained with."""
MIX = {"sudoku": 28, "sums": 26, "json": 8, "count": 16, "sort": 10, "function": 8, "chat": 4}
"""How often each kind is asked at first, in hundredths."""


def is_held_out(question: Question) -> bool:
    """Whether training never sees this question."""
    if question.kind == "chat":
        return False
    digest = hashlib.sha256(f"{question.kind}: {question.content}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT == 0


def draw(kind: str, rng: random.Random, *, held_out: bool) -> Question:
    """A question of one kind, of the part that training sees or of the other one."""
    while True:
        question = (KINDS | PRACTICE)[kind](rng)
        if kind == "chat" or is_held_out(question) == held_out:
            return question


def stream(seed: int, mix: Mapping[str, int] = MIX, *, held_out: bool) -> Iterator[Question]:
    """Questions of all kinds without end; the same ones for the same seed."""
    rng = random.Random(f"{seed} {held_out}")
    while True:
        (kind,) = rng.choices(list(mix), list(mix.values()))
        yield draw(kind, rng, held_out=held_out)
