"""Answers per second with several canvases denoised together, beside the same prompts one after another.

    python benchmarks/side_by_side.py demo --width 8 --assert

On a CPU preload OpenBLAS with OPENBLAS_NUM_THREADS=1, so that its threads do not compete with MLX's.

Both ways take turns in one process, and give the same answers (checked). Prompts are held-out questions of all kinds of
the demo model, as they come in demo_accuracy.py.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from itertools import islice
from statistics import median

from demo_accuracy import questions
from demo_options import KINDS
from rich.console import Console
from rich.progress import Progress

from mlx_diffgemma import Completion, Session, load

FASTER = 2.0
"""How many times as many answers per second are wanted at least, at a width of 8."""


@dataclass(frozen=True, kw_only=True)
class Turn:
    """Seconds for all prompts, one by one and together."""

    alone: float
    together: float

    @property
    def ratio(self) -> float:
        """How many times as fast they are together."""
        return self.alone / self.together


def answer(session: Session, prompts: list[str], width: int) -> tuple[float, list[Completion]]:
    """Seconds, and the answers."""
    configs = [replace(session.defaults, seed=number) for number in range(len(prompts))]
    begin = time.perf_counter()
    answers = session.generate(prompts, configs, batch_size=width)
    return time.perf_counter() - begin, answers


def turns(session: Session, prompts: list[str], width: int, number: int) -> list[Turn]:
    """Both ways, `number` times each. Exits where they do not give the same."""
    result: list[Turn] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for _ in progress.track(range(number), description="answering"):
            alone, expected = answer(session, prompts, 1)
            together, given = answer(session, prompts, width)
            if [each.tokens for each in given] != [each.tokens for each in expected]:
                sys.exit("an answer given beside others is not the one given alone")
            result.append(Turn(alone=alone, together=together))
    return result


def main() -> None:
    """Answer both ways, print the figures, and exit with 1 where --assert was given and the ratio is too low."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="demo", help="folder or Hub repository")
    parser.add_argument("--width", type=int, default=8, help="canvases denoised together")
    parser.add_argument("--questions", type=int, default=16, help="of each kind")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--assert", dest="asserted", action="store_true", help=f"exit with 1 below {FASTER}")
    arguments = parser.parse_args()
    session = load(arguments.model)
    asked = [list(islice(questions(session, kind, 0), arguments.questions)) for kind in KINDS]
    prompts = [question.prompt for several in zip(*asked, strict=True) for question in several]
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
        sys.exit(f"wanted at least {FASTER} times as many")


if __name__ == "__main__":
    main()
