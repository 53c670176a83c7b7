"""What a constraint does to the demo model's answers: whether they match, whether they are right, in how many steps.

    python benchmarks/constrained_accuracy.py demo --questions 200
    python benchmarks/constrained_accuracy.py demo --assert

JSON questions that training held out are asked with and without a schema, under conditions of which the last four make
free answers fail: names that the model never saw, one step, a canvas shorter than the answer, a hot draw. Then
questions of every other kind, with choices and with the pattern of a date: there is nothing right to say, but the
answer must be one of the choices, or a date.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import jsonschema
from rich.console import Console
from rich.progress import track
from rich.table import Table

from mlx_diffgemma import Completion, GenerationConfig, Session, load

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from demo_model.judge import judge
from demo_model.questions import KINDS, Question, draw

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
UNSEEN = ['Jo"e', "O'Hara-Smith", "Zoë Müller", "Ka\\te", "李雷", "name", "{Bob}", "🙂", "x" * 12, "von der Tann"]
BATCH_SIZE = 16
CONDITIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "unseen names": {},
    "one step": {"max_steps": 1},
    "canvas of 8": {"canvas_length": 8, "max_tokens": 64},
    "hot": {"t_min": 1.5, "t_max": 3.0, "max_steps": 4},
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """Shares of answers, in percent, and denoising steps and seconds per answer."""

    valid: float
    right: float
    steps: float
    seconds: float


def people(number: int, seed: int, condition: str) -> list[Question]:
    """Held-out questions; of unseen names the name is another one."""
    rng = random.Random(f"constrained {seed}")
    questions = [draw("json", rng, held_out=True) for _ in range(number)]
    if condition != "unseen names":
        return questions
    return [renamed(question, rng.choice(UNSEEN)) for question in questions]


def renamed(question: Question, name: str) -> Question:
    """The question about somebody else."""
    answer = json.loads(question.answer)
    prompt = question.prompt.replace(answer["name"], name)
    return replace(question, prompt=prompt, answer=json.dumps({**answer, "name": name}))


def asked(session: Session, questions: list[Question], config: GenerationConfig, **matching: Any) -> list[Completion]:
    """The answers, side by side, each with a seed of its own."""
    configs = [replace(config, seed=config.seed + number) for number in range(len(questions))]
    prompts = [question.prompt for question in questions]
    return session.generate(prompts, configs, batch_size=BATCH_SIZE, **matching)


def validates(text: str) -> bool:
    """Whether this is JSON, and valid."""
    try:
        jsonschema.validate(json.loads(text), PERSON)
    except (ValueError, jsonschema.ValidationError):
        return False
    return True


def measure(session: Session, questions: list[Question], config: GenerationConfig, **matching: Any) -> Row:
    """Ask them all."""
    begin = time.perf_counter()
    answers = asked(session, questions, config, **matching)
    seconds = time.perf_counter() - begin
    return Row(
        valid=100 * fmean(validates(answer.text) for answer in answers),
        right=100 * fmean(judge(question, answer.text) for question, answer in zip(questions, answers, strict=True)),
        steps=fmean(answer.stats.steps for answer in answers),
        seconds=seconds / len(answers),
    )


def others(number: int, seed: int) -> list[Question]:
    """Questions of all other kinds in turn."""
    rng = random.Random(f"unrelated {seed}")
    kinds = [kind for kind in KINDS if kind != "json"]
    return [draw(kinds[n % len(kinds)], rng, held_out=True) for n in range(number)]


def main() -> None:
    """Ask, print, and judge if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="demo")
    parser.add_argument("--questions", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--assert", dest="asserted", action="store_true", help="exit with 1 where a target is missed")
    options = parser.parse_args()
    session = load(options.model)
    base = replace(session.defaults, seed=options.seed, max_tokens=64)
    table = Table("condition", "", "valid %", "right %", "steps", "seconds")
    missed: list[str] = []
    for condition, changes in track(CONDITIONS.items(), console=Console(stderr=True), transient=True):
        questions, config = people(options.questions, options.seed, condition), replace(base, **changes)
        free = measure(session, questions, config)
        held = measure(session, questions, config, json_schema=PERSON)
        for name, row in (("free", free), ("schema", held)):
            table.add_row(condition, name, *(f"{value:.2f}" for value in vars(row).values()))
        if held.valid < 100:
            missed.append(f"{condition}: {held.valid:.1f} % of the answers are valid")
        if held.right < free.right:
            missed.append(f"{condition}: {held.right:.1f} % right with the schema, {free.right:.1f} % without")
    Console().print(table)
    unrelated = others(options.questions, options.seed)
    chosen = asked(session, unrelated, base, choices=CHOICES)
    dated = asked(session, unrelated, base, regex=DATE)
    told = {
        "one of the choices": fmean(answer.text in CHOICES for answer in chosen),
        "a date": fmean(bool(re.fullmatch(DATE, answer.text)) for answer in dated),
    }
    for name, share in told.items():
        print(f"{options.questions} unrelated questions: {100 * share:.1f} % {name}")
        if share < 1:
            missed.append(f"{name}: {100 * share:.1f} %")
    if options.asserted and missed:
        sys.exit("\n".join(missed))


if __name__ == "__main__":
    main()
