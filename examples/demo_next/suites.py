"""Write the benchmark suites of the demo model: JSON lines with questions that its training held out.

    python examples/demo_next/suites.py FOLDER

demo          200 questions of each kind: `kinds`
demo-infill   answers with gaps: a value of a JSON object, a number of a count, a function's body, cells of a sudoku

A number in a name is also the seed of the attempts, so that every question has its own.
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))
from demo_model import sudoku
from demo_next.question import Question
from demo_next.questions import draw
from demo_next.source import Source

QUESTIONS, GAPS = 200, 50
"""Lines per kind."""
ASKED = ("sudoku", "sums", "json", "count", "sort", "function", "edit", "second turn", "chat", "else")
SWAPPED = {ast.Add, ast.Mult}
"""Operations whose operands may come in any order."""


def kinds(count: int = QUESTIONS) -> Iterator[dict[str, Any]]:
    """Yield questions of every kind."""
    for kind in ASKED:
        source = Source(random.Random(f"suite 0 {kind}"), True)
        for number in range(count):
            question = draw(kind, source)
            yield line(kind, number, **asked(question), check=check(question))


def asked(question: Question) -> dict[str, Any]:
    """Return a question as a line of a suite asks it."""
    if question.before or question.system:
        return {"messages": question.messages()[:-1]}
    return {"prompt": question.prompt}


def infill(count: int = GAPS) -> Iterator[dict[str, Any]]:
    """Yield answers with a gap of any length or, in sudokus, with many of one token."""
    for kind in ("sudoku", "sums", "function", "json", "short count"):
        source = Source(random.Random(f"infill 0 {kind}"), True)
        for number in range(count):
            question = draw(kind, source)
            instruction = question.prompt
            if kind == "sudoku":
                instruction = f"{question.prompt.split(chr(10))[0]}\n{sudoku.lines(sudoku.EMPTY)}"
            yield line(kind, number, prompt=instruction, template=with_gap(source, question), check=check(question))


def with_gap(source: Source, question: Question) -> str:
    """Return the answer to a question with a part of it missing."""
    answer = question.answer
    match question.kind:
        case "sudoku":
            return sudoku.lines(question.content or "").replace(".", "<gap:1>")
        case "function":
            return answer[: answer.index("return ") + len("return ")] + "<gap>"
        case "json":
            value = source.pick(list(re.finditer(r'(?<=: ")[^"]+(?=")|(?<=": )[0-9.]+', answer)))
            return f"{answer[: value.start()]}<gap>{answer[value.end() :]}"
        case "sums":
            return answer[: answer.index("= ") + 2] + "<gap>"
        case _:
            numbers = answer.split(" ")
            place = source.rng.randrange(len(numbers))
            return " ".join(["<gap>" if n == place else number for n, number in enumerate(numbers)])


def check(question: Question) -> dict[str, Any]:
    """Return a check that accepts every right answer."""
    if question.answer.startswith("def "):
        return {"regex": function_pattern(question.answer)}
    if question.answer.startswith("{"):
        return {"json": json.loads(question.answer)}
    return {"exact": question.answer}


def function_pattern(answer: str) -> str:
    """Return a pattern for a function; operands come in any order where that makes no difference."""
    head, value = answer.split("\n    return ")
    values = "|".join(sorted({readable(text) for text in orders(value)}))
    return rf"\A\s*{readable(head)}\n\s+return (?:{values})\s*\Z"


def readable(text: str) -> str:
    """Return a pattern that matches a text, without the backslashes before spaces that `re.escape` writes."""
    return re.escape(text).replace("\\ ", " ")


def orders(value: str) -> list[str]:
    """Return an expression, and the same with its two operands the other way round if it has the same value."""
    tree = ast.parse(value, mode="eval").body
    match tree:
        case ast.BinOp(op=operation, left=left, right=right) if type(operation) in SWAPPED:
            tree.left, tree.right = right, left
        case ast.Compare(left=ast.Name() as left, ops=[ast.Eq()], comparators=[ast.Name() as right]):
            tree.left, tree.comparators = right, [left]
        case ast.Call(func=ast.Name(id="max" | "min"), args=[first, second]):
            tree.args = [second, first]
        case ast.BinOp(op=ast.Div(), left=ast.BinOp(op=ast.Add(), left=left, right=right) as total):
            total.left, total.right = right, left
        case _:
            return [value]
    return [value, ast.unparse(tree)]


def line(group: str, number: int, **entries: Any) -> dict[str, Any]:
    """Return a line of a suite."""
    return {"name": f"{group} {number}", "group": group, "seed": number, **entries}


def write_suites(folder: Path, *, count: int = QUESTIONS, gaps: int = GAPS) -> None:
    """Write the suites into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in {"demo": kinds(count), "demo-infill": infill(gaps)}.items():
        text = "".join(json.dumps(each, ensure_ascii=False) + "\n" for each in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="lines per kind")
    parser.add_argument("--gaps", type=int, default=GAPS, help="lines per kind of demo-infill")
    arguments = parser.parse_args()
    write_suites(arguments.folder, count=arguments.questions, gaps=arguments.gaps)
