"""Run many generations in one process: are the last as fast as the first, and does memory grow?

    python benchmarks/run.py endurance demo --generations 200 --assert

Lengths of prompts, answers and canvases change from one generation to the next and repeat every ten, so that every ten
generations are equal work. The medians of the first and the last tens are compared, without the very first ten, which
compile kernels. Memory is the peak of the process, which a leak raises.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import median

from memory import peak_resident
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mlx_diffgemma import Session, load

CYCLE = 10
SLOWER, LARGER = 1.10, 1.02
"""Maximum ratio of the last tens to the first, in seconds and in bytes."""


@dataclass(frozen=True, kw_only=True)
class Ten:
    """Ten generations: their seconds together, and the peak memory of the process at their end."""

    seconds: float
    resident: int


def generate_tens(session: Session, generations: int) -> list[Ten]:
    """Generate ten after ten, with a progress bar on stderr."""
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
            tens.append(Ten(seconds=time.perf_counter() - begin, resident=peak_resident()))
    return tens


def ratios(tens: list[Ten]) -> tuple[float, float]:
    """Return the ratios of the last fifth to the first fifth after the first ten: seconds, bytes."""
    fifth = max(1, len(tens) // 5)
    first, last = tens[1 : 1 + fifth], tens[-fifth:]
    seconds = median(ten.seconds for ten in last) / median(ten.seconds for ten in first)
    return seconds, last[-1].resident / first[-1].resident


def table(tens: list[Ten]) -> Table:
    """Return a table with up to four moments of the run."""
    result = Table("generations", "seconds for ten", "peak resident")
    for column in result.columns:
        column.justify = "right"
    for index in sorted({0, 1, len(tens) // 2, len(tens) - 1}):
        ten = tens[index]
        result.add_row(str((index + 1) * CYCLE), f"{ten.seconds:.2f}", f"{ten.resident / 1e6:.1f} MB")
    return result


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Generate and print the table; with --assert, exit with 1 above a limit."""
    parser.add_argument("model", nargs="?", default="demo", help="folder or Hub repository")
    parser.add_argument("--generations", type=int, default=200, help="30 or more")
    parser.add_argument("--assert", dest="asserted", action="store_true", help="exit with 1 above a limit")
    arguments = parser.parse_args(words)
    if arguments.generations < 3 * CYCLE:
        parser.error(f"--generations {arguments.generations}: give {3 * CYCLE} or more")
    tens = generate_tens(load(arguments.model), arguments.generations)
    seconds, resident = ratios(tens)
    console = Console()
    console.print(table(tens))
    console.print(f"last to first: {seconds:.3f} x the seconds, {resident:.3f} x the memory", highlight=False)
    if arguments.asserted and (seconds > SLOWER or resident > LARGER):
        sys.exit(f"wanted at most {SLOWER} x the seconds and {LARGER} x the memory")
