"""How often the demo model is right, and in how many denoising steps, on questions that its training held out.

    python benchmarks/demo_accuracy.py demo --questions 200
    python benchmarks/demo_accuracy.py demo --causal

Every kind of question is asked at the checkpoint's own settings, one seed per question; counting is asked only where
the answer takes two canvases or more. --causal has the encoder write instead, one token after another.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from statistics import fmean

import mlx.core as mx
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from mlx_diffgemma import Session, load

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from demo_model.judge import judge
from demo_model.questions import KINDS, Question, draw

TARGETS = {"sudoku": 95, "sums": 95, "json": 95, "count": 95, "sort": 90, "function": 95}
CAUSAL_TARGETS = {"sums": 90, "json": 90, "count": 90}
"""Right answers in percent, at least."""
MOST_STEPS = 14
"""Denoising steps per canvas on average, at most."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model said, whether it is right, and what it took; `steps` has one entry per canvas."""

    question: Question
    text: str
    right: bool
    steps: tuple[int, ...]
    seconds: float


def ask(session: Session, question: Question, seed: int) -> Answer:
    """The answer that denoising gives, at the checkpoint's settings."""
    completion = session.generate(question.prompt, replace(session.defaults, seed=seed))
    return Answer(
        question=question,
        text=completion.text,
        right=judge(question, completion.text),
        steps=completion.stats.steps_per_block,
        seconds=completion.stats.seconds,
    )


def ask_causally(session: Session, question: Question, seed: int) -> Answer:
    """The answer that the encoder gives, the most likely token each time; there is nothing to seed."""
    del seed
    begin = time.perf_counter()
    tokens = list(islice(next_tokens(session, question.prompt), session.defaults.max_tokens))
    text = session.tokenizer.decode(tokens)
    seconds = time.perf_counter() - begin
    return Answer(question=question, text=text, right=judge(question, text), steps=(), seconds=seconds)


def next_tokens(session: Session, prompt: str) -> Iterator[int]:
    """Greedy next-token prediction up to the end token, which is left out."""
    cache = session.model.make_cache()
    tokens = session.tokens(prompt)
    while True:
        hidden = session.model.encode(mx.array([tokens]), cache)
        token = int(mx.argmax(session.model.causal_logits(hidden[:, -1:])).item())
        if token in session.defaults.stop_tokens:
            return
        yield token
        tokens = [token]


def questions(session: Session, kind: str, seed: int) -> Iterator[Question]:
    """Held-out questions of one kind without end; counting takes more than a canvas."""
    rng = random.Random(f"accuracy {seed} {kind}")
    canvas = session.defaults.canvas_length or session.model.config.canvas_length
    while True:
        question = draw(kind, rng, held_out=True)
        # `encode` puts a token before the answer; the end token comes after it.
        if kind != "count" or len(session.tokenizer.encode(question.answer)) > canvas:
            yield question


def measure(session: Session, kinds: list[str], number: int, seed: int, causal: bool) -> dict[str, list[Answer]]:
    """Ask `number` questions of every kind, with a progress bar on stderr."""
    answer: Callable[[Session, Question, int], Answer] = ask_causally if causal else ask
    answers: dict[str, list[Answer]] = {kind: [] for kind in kinds}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for kind in kinds:
            asked = islice(zip(questions(session, kind, seed), count(seed)), number)
            for question, own_seed in progress.track(asked, total=number, description=kind):
                answers[kind].append(answer(session, question, own_seed))
    return answers


def percentage(answers: list[Answer]) -> float:
    """Right answers in percent."""
    return 100 * fmean(answer.right for answer in answers)


def steps_per_canvas(answers: list[Answer]) -> float:
    """Denoising steps of a canvas on average; 0 where nothing was denoised."""
    steps = [steps for answer in answers for steps in answer.steps]
    return fmean(steps) if steps else 0.0


def table(answers: dict[str, list[Answer]]) -> Table:
    """One line per kind, one for all of them."""
    result = Table("kind", "questions", "right %", "steps/canvas", "canvases", "seconds")
    for column in result.columns[1:]:
        column.justify = "right"
    together = [answer for given in answers.values() for answer in given]
    for kind, given in [*answers.items(), ("all", together)]:
        result.add_row(
            kind,
            str(len(given)),
            f"{percentage(given):.1f}",
            f"{steps_per_canvas(given):.1f}",
            f"{fmean(len(answer.steps) for answer in given):.2f}",
            f"{sum(answer.seconds for answer in given):.1f}",
            end_section=kind == list(answers)[-1],
        )
    return result


def missed(answers: dict[str, list[Answer]], causal: bool) -> list[str]:
    """The targets that were not reached, in words."""
    targets = CAUSAL_TARGETS if causal else TARGETS
    short = [
        f"{kind}: {percentage(given):.1f} % right, wanted {targets[kind]}"
        for kind, given in answers.items()
        if percentage(given) < targets.get(kind, 0)
    ]
    steps = steps_per_canvas([answer for given in answers.values() for answer in given])
    return [*short, f"{steps:.1f} steps per canvas, wanted {MOST_STEPS}"] if steps > MOST_STEPS else short


def main() -> None:
    """Ask, print the table, and exit with 1 where a target is missed and --assert was given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="demo", help="folder or Hub repository")
    parser.add_argument("--questions", type=int, default=200, help="of each kind")
    parser.add_argument("--kinds", help=f"some of {','.join(KINDS)}")
    parser.add_argument("--causal", action="store_true", help="let the encoder write, token by token")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wrong", type=int, default=0, help="show so many wrong answers of each kind")
    parser.add_argument("--assert", dest="asserted", action="store_true", help="exit with 1 where a target is missed")
    arguments = parser.parse_args()
    kinds = (arguments.kinds or ",".join(CAUSAL_TARGETS if arguments.causal else KINDS)).split(",")
    if arguments.questions < 1 or not set(kinds) <= set(KINDS):
        parser.error(f"ask one question or more, of the kinds {', '.join(KINDS)}")
    answers = measure(load(arguments.model), kinds, arguments.questions, arguments.seed, arguments.causal)
    console = Console()
    console.print(table(answers))
    for given in answers.values():
        for answer in [answer for answer in given if not answer.right][: arguments.wrong]:
            text = f"[bold]{escape(answer.question.prompt)}[/]\n{escape(answer.text)}\n"
            console.print(text, highlight=False, soft_wrap=True)
    if arguments.asserted and (reasons := missed(answers, arguments.causal)):
        sys.exit("\n".join(reasons))


if __name__ == "__main__":
    main()
