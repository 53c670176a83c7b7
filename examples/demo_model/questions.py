"""Make up the questions that the demo model learns to answer, and hold out some of them from its training.

    stream(seed, mix) -> kind by mix -> draw(kind, rng) -> Question(prompt, answer)

The content of a question is what it asks, in whatever words. A twentieth of all contents, chosen by hash, is held out:
training never sees them in any wording.
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
"""One content of this many is held out."""
LARGEST = 999
LONGEST = 120


@dataclass(frozen=True, kw_only=True)
class Question:
    """A question, a right answer, and the content of the question."""

    kind: str
    prompt: str
    answer: str
    content: str


def sudoku_puzzle(rng: random.Random) -> Question:
    """Return a sudoku of four by four cells with four to eleven givens."""
    cells, solution = sudoku.puzzle(rng)
    prompt = f"{rng.choice(phrases.SUDOKU)}\n{sudoku.lines(cells)}"
    return Question(kind="sudoku", prompt=prompt, answer=sudoku.lines(solution), content=cells)


def blank_sudoku(rng: random.Random) -> Question:
    """Return an empty sudoku with any grid as its answer; it teaches to complete the digits on a canvas."""
    solution = rng.choice(sudoku.grids())
    prompt = f"{rng.choice(phrases.SUDOKU)}\n{sudoku.lines(sudoku.EMPTY)}"
    return Question(kind="blank sudoku", prompt=prompt, answer=sudoku.lines(solution), content=solution)


def sums(rng: random.Random) -> Question:
    """Return a sum or a difference of two numbers below a hundred."""
    left, right, sign = rng.randrange(100), rng.randrange(100), rng.choice("+-")
    content = f"{left} {sign} {right}"
    answer = f"{content} = {left + right if sign == '+' else left - right}"
    return Question(kind="sums", prompt=rng.choice(phrases.SUMS).format(content), answer=answer, content=content)


def json_record(rng: random.Random) -> Question:
    """Return a sentence about a person, to be written as JSON."""
    name, age, city = rng.choice(NAMES), rng.randint(1, 99), rng.choice(CITIES)
    years = "1 year" if age == 1 else f"{age} years"
    return Question(
        kind="json",
        prompt=rng.choice(phrases.JSON).format(name=name, age=age, years=years, city=city),
        answer=json.dumps({"name": name, "age": age, "city": city}),
        content=f"{name} {age} {city}",
    )


def count(rng: random.Random) -> Question:
    """Return a range of two to 120 numbers up to 999, most of them from below 200."""
    start = rng.randrange(200 if rng.random() < 0.7 else LARGEST)
    # Most are short, because every canvas after the first of a long count teaches the same.
    [longest] = rng.choices((12, 40, LONGEST), (30, 55, 15))
    longest = min(longest, LARGEST - start + 1)
    return counting(rng, start, start + rng.randint(2, longest) - 1)


def short_count(rng: random.Random) -> Question:
    """Return a range of two to 20 numbers up to 999; it teaches to end a count."""
    start = rng.randrange(LARGEST)
    return counting(rng, start, min(LARGEST, start + rng.randint(2, 20) - 1))


def long_count(rng: random.Random) -> Question:
    """Return a range of 11 to 60 numbers up to 999; earlier numbers in it end in the last digit of its end."""
    start = rng.randrange(LARGEST - 60)
    return counting(rng, start, start + rng.randint(11, 60) - 1)


def two_blocks(rng: random.Random) -> Question:
    """Return a range of nine to 22 numbers, mostly below 200: two or three canvases, one or two wrong places to end."""
    start = rng.randrange(200 if rng.random() < 0.6 else LARGEST - 22)
    return counting(rng, start, start + rng.randint(9, 22) - 1)


def far_count(rng: random.Random) -> Question:
    """Return a range of 25 to 120 numbers, mostly from below 200: many canvases that must not end the count."""
    start = rng.randrange(200 if rng.random() < 0.7 else LARGEST - LONGEST)
    return counting(rng, start, start + rng.randint(25, LONGEST) - 1)


def counting(rng: random.Random, start: int, end: int) -> Question:
    """Return a question for the numbers from start to end."""
    return Question(
        kind="count",
        prompt=rng.choice(phrases.COUNT).format(start, end),
        answer=" ".join(map(str, range(start, end + 1))),
        content=f"{start} {end}",
    )


def sort(rng: random.Random) -> Question:
    """Return two to eight words to be put in alphabetical order."""
    words = rng.sample(WORDS, rng.randint(2, 8))
    answer = ", ".join(sorted(words))
    prompt = rng.choice(phrases.SORT).format(", ".join(words))
    return Question(kind="sort", prompt=prompt, answer=answer, content=answer)


def function(rng: random.Random) -> Question:
    """Return a Python function of two arguments, described in words."""
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
    """Return a greeting or a question about the model itself; they are few, and none is held out."""
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
"""Kinds for training only."""
MIX = {"sudoku": 28, "sums": 26, "json": 8, "count": 16, "sort": 10, "function": 8, "chat": 4}
"""Frequency of each kind in the first stage of training, in percent."""


def is_held_out(question: Question) -> bool:
    """Return whether training never sees this question."""
    if question.kind == "chat":
        return False
    digest = hashlib.sha256(f"{question.kind}: {question.content}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT == 0


def draw(kind: str, rng: random.Random, *, held_out: bool) -> Question:
    """Return a random question of one kind, either held out or not."""
    while True:
        question = (KINDS | PRACTICE)[kind](rng)
        if kind == "chat" or is_held_out(question) == held_out:
            return question


def stream(seed: int, mix: Mapping[str, int] = MIX, *, held_out: bool) -> Iterator[Question]:
    """Yield questions of all kinds without end, determined by the seed."""
    rng = random.Random(f"{seed} {held_out}")
    while True:
        (kind,) = rng.choices(list(mix), list(mix.values()))
        yield draw(kind, rng, held_out=held_out)
