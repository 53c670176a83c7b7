"""How often the demo model is right, and in how many denoising steps, on questions that its training held out.

    python benchmarks/demo_accuracy.py demo --questions 200
    python benchmarks/demo_accuracy.py demo --causal

Every kind of question is asked at the checkpoint's own settings, side by side, one seed per question; counting is asked
only where the answer takes two canvases or more. --causal has the encoder write instead, one token after another.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import fmean

import mlx.core as mx
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from mlx_diffgemma import BlockCommitted, Finished, GenerationConfig, Session, load

sys.path.insert(0, str(Path(__file__).parent.parent / "examples"))
from demo_model.judge import judge
from demo_model.questions import KINDS, Question, draw

TARGETS = {"sudoku": 95, "sums": 95, "json": 95, "count": 95, "sort": 90, "function": 95}
CAUSAL_TARGETS = {"sums": 90, "json": 90, "count": 90}
"""Right answers in percent, at least."""
BATCH_SIZE = 16
MOST_STEPS = 14
"""Denoising steps per canvas on average, at most."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the model said, whether it is right, and what it took; `steps` has one entry per canvas."""

    question: Question
    text: str
    right: bool
    steps: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Asked:
    """All questions of a kind, and the seconds that they took together."""

    answers: list[Answer]
    seconds: float


def ask(
    session: Session, questions: list[Question], config: GenerationConfig, told: Callable[[], object]
) -> list[Answer]:
    """The answers that denoising gives, side by side; each question has a seed of its own."""
    configs = [replace(config, seed=config.seed + number) for number in range(len(questions))]
    texts, steps = [""] * len(questions), [()] * len(questions)
    events = session.stream_many([question.prompt for question in questions], configs, batch_size=BATCH_SIZE)
    for number, event in events:
        match event:
            case BlockCommitted(text=text):
                texts[number] += text
            case Finished(stats=stats):
                steps[number] = stats.steps_per_block
                told()
            case _:
                pass
    return [
        Answer(question=question, text=text, right=judge(question, text), steps=taken)
        for question, text, taken in zip(questions, texts, steps, strict=True)
    ]


def ask_causally(
    session: Session, questions: list[Question], config: GenerationConfig, told: Callable[[], object]
) -> list[Answer]:
    """The answers that the encoder gives, the most likely token each time; there is nothing to seed."""
    answers: list[Answer] = []
    for question in questions:
        text = session.tokenizer.decode(list(islice(next_tokens(session, question.prompt), config.max_tokens)))
        answers.append(Answer(question=question, text=text, right=judge(question, text)))
        told()
    return answers


def next_tokens(session: Session, prompt: str) -> Iterator[int]:
    """Greedy next-token prediction up to the end token, which is left out."""
    cache = session.model.make_cache()
    tokens = session.tokens(prompt)
    while True:
        (hidden,) = session.model.encode([mx.array([tokens])], [cache])
        token = int(mx.argmax(session.model.logits(hidden[:, -1:])).item())
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


def measure(
    session: Session, kinds: list[str], number: int, config: GenerationConfig, causal: bool
) -> dict[str, Asked]:
    """Ask `number` questions of every kind, with a progress bar on stderr."""
    answers: dict[str, Asked] = {}
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for kind in kinds:
            asked = list(islice(questions(session, kind, config.seed), number))
            task = progress.add_task(kind, total=number)
            begin = time.perf_counter()
            given = (ask_causally if causal else ask)(session, asked, config, partial(progress.advance, task))
            answers[kind] = Asked(answers=given, seconds=time.perf_counter() - begin)
            progress.remove_task(task)
    return answers


def percentage(answers: list[Answer]) -> float:
    """Right answers in percent."""
    return 100 * fmean(answer.right for answer in answers)


def steps_per_canvas(answers: list[Answer]) -> float:
    """Denoising steps of a canvas on average; 0 where nothing was denoised."""
    steps = [steps for answer in answers for steps in answer.steps]
    return fmean(steps) if steps else 0.0


def table(asked: dict[str, Asked]) -> Table:
    """One line per kind, one for all of them."""
    result = Table("kind", "questions", "right %", "steps/canvas", "canvases", "seconds")
    for column in result.columns[1:]:
        column.justify = "right"
    for kind, given in [*asked.items(), ("all", together(asked))]:
        result.add_row(
            kind,
            str(len(given.answers)),
            f"{percentage(given.answers):.1f}",
            f"{steps_per_canvas(given.answers):.1f}",
            f"{fmean(len(answer.steps) for answer in given.answers):.2f}",
            f"{given.seconds:.1f}",
            end_section=kind == list(asked)[-1],
        )
    return result


def together(asked: dict[str, Asked]) -> Asked:
    """All kinds as one."""
    return Asked(
        answers=[answer for given in asked.values() for answer in given.answers],
        seconds=sum(given.seconds for given in asked.values()),
    )


def missed(asked: dict[str, Asked], causal: bool) -> list[str]:
    """The targets that were not reached, in words."""
    targets = CAUSAL_TARGETS if causal else TARGETS
    short = [
        f"{kind}: {percentage(given.answers):.1f} % right, wanted {targets[kind]}"
        for kind, given in asked.items()
        if percentage(given.answers) < targets.get(kind, 0)
    ]
    steps = steps_per_canvas(together(asked).answers)
    return [*short, f"{steps:.1f} steps per canvas, wanted {MOST_STEPS}"] if steps > MOST_STEPS else short


def options(text: str) -> dict[str, object]:
    """`max_steps=24,trim=true` as options of a generation."""
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {name.strip(): json.loads(value) for name, _, value in pairs}


def main() -> None:
    """Ask, print the table, and exit with 1 where a target is missed and --assert was given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="demo", help="folder or Hub repository")
    parser.add_argument("--questions", type=int, default=200, help="of each kind")
    parser.add_argument("--kinds", help=f"some of {','.join(KINDS)}")
    parser.add_argument("--causal", action="store_true", help="let the encoder write, token by token")
    parser.add_argument("--exact", action="store_true", help="by the reference's rule")
    parser.add_argument("--options", type=options, default={}, help="other options, as max_steps=24,trim=true")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wrong", type=int, default=0, help="show so many wrong answers of each kind")
    parser.add_argument("--assert", dest="asserted", action="store_true", help="exit with 1 where a target is missed")
    arguments = parser.parse_args()
    kinds = (arguments.kinds or ",".join(CAUSAL_TARGETS if arguments.causal else KINDS)).split(",")
    if arguments.questions < 1 or not set(kinds) <= set(KINDS):
        parser.error(f"ask one question or more, of the kinds {', '.join(KINDS)}")
    session = load(arguments.model)
    config = replace(session.defaults, seed=arguments.seed, **arguments.options)
    asked = measure(
        session, kinds, arguments.questions, config.exact() if arguments.exact else config, arguments.causal
    )
    console = Console()
    console.print(table(asked))
    for given in asked.values():
        for answer in [answer for answer in given.answers if not answer.right][: arguments.wrong]:
            text = f"[bold]{escape(answer.question.prompt)}[/]\n{escape(answer.text)}\n"
            console.print(text, highlight=False, soft_wrap=True)
    if arguments.asserted and (reasons := missed(asked, arguments.causal)):
        sys.exit("\n".join(reasons))


if __name__ == "__main__":
    main()
