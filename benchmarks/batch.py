"""Measure answers per second with several canvases denoised together, and one after another.

    python benchmarks/run.py batch demo --width 8 --assert

On a CPU preload OpenBLAS with OPENBLAS_NUM_THREADS=1, so that its threads do not compete with those of this runtime.

Both ways take turns in one process; the benchmark ends if their answers differ. The prompts are questions of all kinds
from the suite demo-accuracy.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from demo_prompts import demo_prompts
from rich.console import Console
from rich.progress import Progress

from mlx_diffgemma import Completion, Session, load

FASTER = 2.0
"""Minimum ratio of answers per second, together to one by one, at a width of 8."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """The seconds of all prompts, one by one and together."""

    alone: float
    together: float

    @property
    def ratio(self) -> float:
        """How many times as fast the prompts are together."""
        return self.alone / self.together


def answer(session: Session, prompts: list[str], width: int) -> tuple[float, list[Completion]]:
    """Return the seconds of all answers, and the answers."""
    configs = [replace(session.defaults, seed=number) for number in range(len(prompts))]
    begin = time.perf_counter()
    answers = session.generate(prompts, configs, batch_size=width)
    return time.perf_counter() - begin, answers


def turns(session: Session, prompts: list[str], width: int, number: int) -> list[Turn]:
    """Time both ways `number` times each. Exits if their answers differ."""
    result: list[Turn] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for _ in progress.track(range(number), description="answering"):
            alone, expected = answer(session, prompts, 1)
            together, answers = answer(session, prompts, width)
            if [each.tokens for each in answers] != [each.tokens for each in expected]:
                sys.exit("an answer beside others differs from the answer alone")
            result.append(Turn(alone=alone, together=together))
    return result


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Answer both ways and print the figures; with --assert, exit with 1 if the ratio is too low."""
    parser.add_argument("model", nargs="?", default="demo", help="folder or Hub repository")
    parser.add_argument("--width", type=int, default=8, help="canvases denoised together")
    parser.add_argument("--questions", type=int, default=16, help="of each kind, at most 100")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--assert", dest="asserted", action="store_true", help=f"exit with 1 below {FASTER}")
    arguments = parser.parse_args(words)
    session = load(arguments.model)
    prompts = [
        prompt for several in zip(*demo_prompts(arguments.questions).values(), strict=True) for prompt in several
    ]
    answer(session, prompts[: arguments.width], arguments.width)
    taken = turns(session, prompts, arguments.width, arguments.turns)
    ratios = sorted(turn.ratio for turn in taken)
    alone, together = (len(prompts) / median(getattr(turn, way) for turn in taken) for way in ("alone", "together"))
    Console().print(
        f"{len(prompts)} prompts: {alone:.1f} answers/s one by one, {together:.1f} at {arguments.width} together; "
        f"ratio {median(ratios):.2f} ({ratios[0]:.2f}-{ratios[-1]:.2f})",
        highlight=False,
        soft_wrap=True,
    )
    if arguments.asserted and median(ratios) < FASTER:
        sys.exit(f"wanted a ratio of at least {FASTER}")
