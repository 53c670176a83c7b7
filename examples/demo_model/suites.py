"""Write the benchmark suites of the demo model: JSON lines with questions that its training held out.

    python examples/demo_model/suites.py mlx_diffgemma/benchmark/suites

demo-accuracy     100 questions of each kind; counting only where the answer takes more than one canvas
demo-infill       answers with gaps: a JSON value, numbers of a count, a function's body, the empty cells of a sudoku
demo-constrained  JSON questions, free and under a schema, in five conditions; then questions whose answer has to be one
                  of five choices, or a date

A number in a name is also the seed of the attempts, so that every question has its own.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from demo_model import phrases, sudoku
from demo_model.questions import KINDS, Question, draw

from mlx_diffgemma.checkpoint.hub import DEMO, model_folder
from mlx_diffgemma.text.tokenizer import Tokenizer, load_tokenizer

QUESTIONS, GAPS, SEARCHES, CONSTRAINED = 100, 50, 20, 20
"""Lines per kind or condition."""
CANVAS = 32
"""Tokens on a canvas of the demo model."""
SHORTEST, LONGEST = 4, 10
"""How many numbers a count with a gap has, so that it fits a canvas."""
ASKED = tuple(kind for kind in KINDS if kind != "chat")
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "city": {"type": "string"},
    },
    "required": ["name", "age", "city"],
    "additionalProperties": False,
}
CHOICES = ["yes", "no", "New York", "New York City", "(none)"]
DATE = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
UNSEEN_NAMES = ['Jo"e', "O'Hara-Smith", "Zoë Müller", "Ka\\te", "李雷", "name", "{Bob}", "🙂", "x" * 12, "von der Tann"]
CONDITIONS: dict[str, dict[str, Any]] = {
    "default": {"max_tokens": 64},
    "unseen names": {"max_tokens": 64},
    "one step": {"max_tokens": 64, "max_steps": 1},
    "canvas of 8": {"max_tokens": 64, "canvas_length": 8},
    "hot": {"max_tokens": 64, "t_min": 1.5, "t_max": 3.0, "max_steps": 4},
}
"""Options under which JSON is asked for; a free answer fails under the last four."""


def accuracy(tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """Yield questions of every kind."""
    for kind in ASKED:
        for number, question in enumerate(islice(questions(tokenizer, kind), QUESTIONS)):
            yield line(kind, number, prompt=question.prompt, check=check(question))


def questions(tokenizer: Tokenizer, kind: str) -> Iterator[Question]:
    """Yield held-out questions of one kind without end."""
    rng = random.Random(f"accuracy 0 {kind}")
    while True:
        question = draw(kind, rng, held_out=True)
        # `encode` puts a token before the answer, in the place of the end token after it.
        if kind != "count" or len(tokenizer.encode(question.answer)) > CANVAS:
            yield question


def infill(tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """Yield templates whose gaps have the right number of tokens, then templates whose gaps have any."""
    for kind in ("sudoku", "function", "json", "count"):
        for number, (question, template) in enumerate(islice(templates(tokenizer, kind), GAPS)):
            yield line(kind, number, prompt=instruction(question), template=template, check=check(question))
    for kind in ("function", "json", "count"):
        for number, (question, template) in enumerate(islice(templates(tokenizer, kind), SEARCHES)):
            free = re.sub(r"<gap:\d+>", "<gap>", template)
            group = f"{kind}, any length"
            yield line(group, number, prompt=instruction(question), template=free, check=check(question))


def instruction(question: Question) -> str:
    """Return what is asked beside a template; the grid of a sudoku is empty there, because the template has it."""
    if question.kind == "sudoku":
        return f"{question.prompt.splitlines()[0]}\n{sudoku.lines(sudoku.EMPTY)}"
    return question.prompt


def templates(tokenizer: Tokenizer, kind: str) -> Iterator[tuple[Question, str]]:
    """Yield held-out questions of one kind and their answers with gaps, without end."""
    rng = random.Random(f"{kind} 0")
    while True:
        question = draw("short count" if kind == "count" else kind, rng, held_out=True)
        if kind != "count" or SHORTEST <= len(question.answer.split()) <= LONGEST:
            yield question, with_gaps(tokenizer, question, rng)


def with_gaps(tokenizer: Tokenizer, question: Question, rng: random.Random) -> str:
    """Return the answer to a question with a part of it missing."""
    answer = question.answer
    match question.kind:
        case "sudoku":
            return sudoku.lines(question.content).replace(".", "<gap:1>")
        case "function":
            before, body = answer.split("return ")
            return one_gap(tokenizer, before + "return ", body, "")
        case "json":
            name = rng.choice(list(json.loads(answer)))
            value = re.search(rf'"{name}": "?(\w+)', answer)
            assert value is not None
            return one_gap(tokenizer, answer[: value.start(1)], value[1], answer[value.end(1) :])
        case _:
            numbers = answer.split()
            first = rng.randrange(1, len(numbers) - 1)
            last = rng.randrange(first + 1, len(numbers))
            before, after = " ".join(numbers[:first]) + " ", " " + " ".join(numbers[last:])
            return one_gap(tokenizer, before, " ".join(numbers[first:last]), after)


def one_gap(tokenizer: Tokenizer, before: str, filling: str, after: str) -> str:
    """Return a template with a gap of as many tokens as `filling` has."""
    # A space before a gap belongs to the gap's tokens, unless the tokenizer makes it part of the token before.
    spaced = before.endswith(" ") and tokenizer.token_bytes(tokenizer.literal(before)[-1]) == b" "
    return f"{before}<gap:{len(tokenizer.literal(' ' * spaced + filling))}>{after}"


def constrained() -> Iterator[dict[str, Any]]:
    """Yield JSON questions without and with a schema, then questions with choices and with a pattern."""
    for condition, options in CONDITIONS.items():
        for kind, constraint in (("free", {}), ("schema", {"json_schema": PERSON})):
            for number, question in enumerate(people(condition)):
                # The model cannot copy a name that it never saw: no answer is right, but it can be valid.
                valid = {"json_schema": PERSON} if condition == "unseen names" else check(question)
                asked = {**options, **constraint, "prompt": question.prompt, "check": valid}
                yield line(f"{condition}, {kind}", number, **asked)
    choice = {"regex": rf"\A(?:{'|'.join(map(escaped, CHOICES))})\Z"}
    for number, question in enumerate(others()):
        yield line("choices", number, prompt=question.prompt, choices=CHOICES, max_tokens=64, check=choice)
    for number, question in enumerate(others()):
        date = {"regex": rf"\A{DATE}\Z"}
        yield line("date", number, prompt=question.prompt, regex=DATE, max_tokens=64, check=date)


def people(condition: str) -> list[Question]:
    """Return held-out questions for JSON; among unseen names with another name."""
    rng = random.Random("constrained 0")
    drawn = [draw("json", rng, held_out=True) for _ in range(CONSTRAINED)]
    if condition != "unseen names":
        return drawn
    return [renamed(question, rng.choice(UNSEEN_NAMES)) for question in drawn]


def renamed(question: Question, name: str) -> Question:
    """Return the question about somebody else."""
    answer = json.loads(question.answer)
    prompt = question.prompt.replace(answer["name"], name)
    return replace(question, prompt=prompt, answer=json.dumps({**answer, "name": name}))


def others() -> list[Question]:
    """Return questions of all kinds but JSON in turn."""
    rng = random.Random("unrelated 0")
    kinds = [kind for kind in KINDS if kind != "json"]
    return [draw(kinds[n % len(kinds)], rng, held_out=True) for n in range(CONSTRAINED)]


def check(question: Question) -> dict[str, Any]:
    """Return a check that accepts what the demo model's judge accepts: see `judge`."""
    match question.kind:
        case "json":
            return {"json": json.loads(question.answer)}
        case "function":
            return {"regex": function_pattern(question.answer)}
        case _:
            return {"exact": question.answer}


def function_pattern(answer: str) -> str:
    """Return a pattern for a function; the arguments come in any order, and so do operands where it does not matter."""
    parts = re.fullmatch(r"def (\w+)\((\w+), (\w+)\):\n    return (.*)", answer)
    assert parts is not None
    name, first, second, value = parts.groups()
    arguments = f"(?:{first}, {second}|{second}, {first})"
    operation = next(o for o in phrases.OPERATIONS.values() if value in orders(o, first, second))
    ordered = operation in ("{a} - {b}", "{a} / {b}", "{a} % {b}")
    values = [value] if ordered else orders(operation, first, second)
    return rf"\A\s*def {name}\({arguments}\):\n\s+return (?:{'|'.join(map(escaped, values))})\s*\Z"


def orders(operation: str, first: str, second: str) -> list[str]:
    """Return an operation on two operands in both orders."""
    return [operation.format(a=first, b=second), operation.format(a=second, b=first)]


def escaped(text: str) -> str:
    """Return a pattern that matches a text, readable where `re.escape` escapes spaces for nothing."""
    return re.escape(text).replace("\\ ", " ")


def line(group: str, number: int, **entries: Any) -> dict[str, Any]:
    """Return a line of a suite."""
    return {"name": f"{group} {number}", "group": group, "seed": number, **entries}


def write_suites(folder: Path) -> None:
    """Write the suites into a folder."""
    tokenizer = load_tokenizer(model_folder(DEMO))
    suites = {
        "demo-accuracy": accuracy(tokenizer),
        "demo-infill": infill(tokenizer),
        "demo-constrained": constrained(),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in suites.items():
        text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    write_suites(parser.parse_args().folder)
