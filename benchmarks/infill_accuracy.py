"""How often the demo model fills gaps right, on questions that its training held out, and whether the text around
them is what it was.

    python benchmarks/infill_accuracy.py demo --cases 200 --assert
    python benchmarks/infill_accuracy.py demo --cases 40 --search --kind json

sudoku     the givens are pinned in the canvas, the prompt has an empty grid
function   the body is missing
json       one value is missing
count      the middle is missing

A gap has as many tokens as the answer, or with --search as many as the runtime finds out; of a sudoku's always one.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

from rich.console import Console
from rich.progress import track
from rich.table import Table

from mlx_diffgemma import Gap, Infilled, Session, load

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from demo_model import sudoku
from demo_model.judge import judge
from demo_model.questions import Question, draw

TARGET = 95
"""Right fillings in percent, at least, of every kind."""
SHORTEST, LONGEST = 4, 10
"""Numbers of a count: as many as a canvas of the demo holds."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """A question and its answer, cut: texts and the fillings between them, in turn."""

    question: Question
    instruction: str
    texts: tuple[str, ...]
    fillings: tuple[str, ...]

    @property
    def whole(self) -> str:
        """The answer."""
        return "".join(text + filling for text, filling in zip(self.texts, (*self.fillings, ""), strict=True))


def sudoku_case(question: Question, rng: random.Random) -> Case:
    """Every empty cell is a gap."""
    del rng
    texts = tuple(re.split(r"\.", sudoku.lines(question.content)))
    digits = [
        right for given, right in zip(question.content, question.answer.replace("\n", ""), strict=True) if given == "."
    ]
    instruction = f"{question.prompt.splitlines()[0]}\n{sudoku.lines(sudoku.EMPTY)}"
    return Case(question=question, instruction=instruction, texts=texts, fillings=tuple(digits))


def function_case(question: Question, rng: random.Random) -> Case:
    """What is returned is missing."""
    del rng
    before, body = question.answer.split("return ")
    return one_gap(question, before + "return ", body, "")


def json_case(question: Question, rng: random.Random) -> Case:
    """One value is missing."""
    answer = question.answer
    name = rng.choice(list(json.loads(answer)))
    match = re.search(rf'"{name}": "?(\w+)', answer)
    assert match is not None
    return one_gap(question, answer[: match.start(1)], match[1], answer[match.end(1) :])


def count_case(question: Question, rng: random.Random) -> Case:
    """Some numbers in the middle are missing."""
    numbers = question.answer.split()
    first = rng.randrange(1, len(numbers) - 1)
    last = rng.randrange(first + 1, len(numbers))
    middle = " ".join(numbers[first:last])
    return one_gap(question, " ".join(numbers[:first]) + " ", middle, " " + " ".join(numbers[last:]))


def one_gap(question: Question, before: str, filling: str, after: str) -> Case:
    """A case of one gap."""
    return Case(question=question, instruction=question.prompt, texts=(before, after), fillings=(filling,))


KINDS = {"sudoku": sudoku_case, "function": function_case, "json": json_case, "count": count_case}


def cases(kind: str, seed: int) -> Iterator[Case]:
    """Cases that training has not seen, without end; the same ones for the same seed."""
    rng = random.Random(f"{kind} {seed}")
    while True:
        question = draw("short count" if kind == "count" else kind, rng, held_out=True)
        if kind != "count" or SHORTEST <= len(question.answer.split()) <= LONGEST:
            yield KINDS[kind](question, rng)


def template(session: Session, case: Case, *, search: bool) -> list[str | Gap]:
    """The texts of a case and gaps, each of its filling's length or of any."""
    parts: list[str | Gap] = []
    for place, text in enumerate(case.texts):
        parts.append(text)
        if place == len(case.fillings):
            break
        filling = case.fillings[place]
        # A space in front of a gap counts to its tokens where it is no token's part.
        spaced = text.endswith(" ") and session.tokenizer.bytes(session.tokenizer.literal(text)[-1]) == b" "
        tokens = len(session.tokenizer.literal(" " * spaced + filling))
        parts.append(Gap() if search and case.question.kind != "sudoku" else Gap(tokens, tokens))
    return [part for part in parts if part != ""]


def is_intact(case: Case, filled: Infilled) -> bool:
    """Whether the text around the gaps is there byte for byte."""
    fillings = (*filled.gaps, "")
    return filled.text == "".join(text + filling for text, filling in zip(case.texts, fillings, strict=True))


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Of one kind."""

    right: float
    intact: float
    steps: float
    seconds: float


def measured(session: Session, kind: str, number: int, *, search: bool) -> Figures:
    """Fill so many cases of a kind, one seed for each."""
    right: list[bool] = []
    intact: list[bool] = []
    steps: list[int] = []
    before = time.perf_counter()
    for seed, case in zip(
        track(range(number), kind, console=Console(stderr=True), transient=True), cases(kind, 0), strict=False
    ):
        config = replace(session.defaults, seed=seed)
        filled = session.infill(template(session, case, search=search), case.instruction, config)
        right.append(judge(case.question, filled.text))
        intact.append(is_intact(case, filled))
        steps.append(filled.stats.steps)
    return Figures(
        right=100 * fmean(right),
        intact=100 * fmean(intact),
        steps=fmean(steps),
        seconds=(time.perf_counter() - before) / number,
    )


def main() -> None:
    """Measure, print the table; with --assert exit 1 where a target is missed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    parser.add_argument("--search", action="store_true", help="gaps of any length")
    parser.add_argument(
        "--assert", action="store_true", dest="strict", help=f"fail below {TARGET} % or with a pin lost"
    )
    arguments = parser.parse_args()
    session = load(arguments.model)
    table = Table("kind", "right", "pins intact", "steps", "s per case")
    missed: list[str] = []
    for kind in arguments.kind or KINDS:
        found = measured(session, kind, arguments.cases, search=arguments.search)
        row = (f"{found.right:.1f} %", f"{found.intact:.1f} %", f"{found.steps:.1f}", f"{found.seconds:.2f}")
        table.add_row(kind, *row)
        print(kind, *row, flush=True)
        if found.right < TARGET or found.intact < 100:
            missed.append(kind)
    Console().print(table)
    if arguments.strict and missed:
        raise SystemExit(f"below {TARGET} %, or a pin lost: {', '.join(missed)}")


if __name__ == "__main__":
    main()
