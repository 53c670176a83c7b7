"""Many generations in one process: whether the last are as fast as the first, and whether memory grows.

    python benchmarks/endurance.py demo --generations 200 --assert

Lengths of prompts, answers and canvases change from one generation to the next and repeat every ten, so that every ten
do the same work. Compared are the medians of the first and the last tens of a run, the very first ten left out: kernels
are compiled there. Memory is the most that the process ever held: what leaks raises it.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass, replace
from statistics import median

from resident import most
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mlx_diffgemma import Session, load

CYCLE = 10
SLOWER, LARGER = 1.10, 1.02
"""What the last tens may take of the first, in seconds and in bytes."""


@dataclass(frozen=True, kw_only=True)
class Ten:
    """Ten generations: what they took together, and what the process had held at most when they were done."""

    seconds: float
    resident: int


def run(session: Session, generations: int) -> list[Ten]:
    """Generate, ten after ten, with a progress bar on stderr."""
    longest = session.defaults.canvas_length or session.model.config.canvas_length
    tens: list[Ten] = []
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for _ in progress.track(range(generations // CYCLE), description="generating"):
            begin = time.perf_counter()
            for number in range(CYCLE):
                length = longest - number % 5
                config = replace(
                    session.defaults, canvas_length=length, max_tokens=length * (1 + number % 3), seed=number
                )
                session.generate("Sort: " + ", ".join(["pear", "fig"] * (1 + 7 * number)), config)
            tens.append(Ten(seconds=time.perf_counter() - begin, resident=most()))
    return tens


def ratios(tens: list[Ten]) -> tuple[float, float]:
    """What the last fifth takes of the first fifth behind the first ten: seconds, bytes."""
    share = max(1, len(tens) // 5)
    first, last = tens[1 : 1 + share], tens[-share:]
    seconds = median(ten.seconds for ten in last) / median(ten.seconds for ten in first)
    return seconds, last[-1].resident / first[-1].resident


def table(tens: list[Ten]) -> Table:
    """Four places of the run."""
    result = Table("generations", "seconds for ten", "resident, at most")
    for column in result.columns:
        column.justify = "right"
    for place in sorted({0, 1, len(tens) // 2, len(tens) - 1}):
        ten = tens[place]
        result.add_row(str((place + 1) * CYCLE), f"{ten.seconds:.2f}", f"{ten.resident / 1e6:.1f} MB")
    return result


def main() -> None:
    """Run, print the table, and exit with 1 where a limit is passed and --assert was given."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="demo", help="folder or Hub repository")
    parser.add_argument("--generations", type=int, default=200, help="30 or more")
    parser.add_argument("--assert", dest="asserted", action="store_true", help="exit with 1 where a limit is passed")
    arguments = parser.parse_args()
    if arguments.generations < 3 * CYCLE:
        parser.error(f"--generations {arguments.generations}: give {3 * CYCLE} or more")
    tens = run(load(arguments.model), arguments.generations)
    seconds, resident = ratios(tens)
    console = Console()
    console.print(table(tens))
    console.print(f"last to first: {seconds:.3f} x the seconds, {resident:.3f} x the memory", highlight=False)
    if arguments.asserted and (seconds > SLOWER or resident > LARGER):
        sys.exit(f"wanted at most {SLOWER} x the seconds and {LARGER} x the memory")


if __name__ == "__main__":
    main()
