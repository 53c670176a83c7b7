"""Measure constraints that are hard to build: seconds, size and memory of each, or how it is refused.

    python benchmarks/run.py constraints --vocabulary FOLDER
    python benchmarks/run.py constraints --only choices --only maxLength    # over bytes alone

Each constraint has a process of its own, which is ended when the automaton over bytes, or the one over tokens, takes
longer than the limit. Memory is what the process holds before the build (Python, numpy, the vocabulary), and at most
until the build's end. The search is that of one denoising step over 256 positions of random logits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from constraining.hard import Step, hard_constraints, hard_work
from constraining.watching import Ended, WatchedProcess
from rich.console import Console
from rich.table import Table


def row(name: str, reports: Sequence[object]) -> list[str]:
    """Return the row of a constraint: seconds of each part, size, memory, and why it ended early."""
    steps = {report.part: report for report in reports if isinstance(report, Step)}
    ended = next((report for report in reports if isinstance(report, Ended)), None)
    search = steps.pop("search", None)
    built = [step for step in steps.values() if step.states]
    seconds = [f"{steps[part].seconds:.2f}" if part in steps else "" for part in ("bytes", "tokens")]
    sizes = [f"{built[-1].states:,}", f"{built[-1].transitions:,}"] if built else ["", ""]
    peaks = [step.peak_memory for step in steps.values()] + [ended.peak_memory if ended else 0]
    memory = [f"{peak >> 20}" for peak in (peaks[0], max(peaks))]
    refusal = "".join(step.refusal for step in steps.values())
    said = f"{ended.status}: {ended.message}" if ended else refusal
    return [name, *seconds, *sizes, *memory, f"{1000 * search.seconds:.0f}" if search else "", said[:200]]


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Build the constraints and print the table."""
    parser.add_argument("--vocabulary", type=Path, help="folder of a tokenizer: build over its tokens, too")
    parser.add_argument("--limit", type=float, default=10.0, help="seconds that a part may take")
    parser.add_argument("--only", action="append", help="only constraints with this in their names; can be repeated")
    options = parser.parse_args(words)
    names = [name for name in hard_constraints() if not options.only or any(each in name for each in options.only)]
    if not names:
        sys.exit(f"no constraint has {options.only} in its name: {', '.join(hard_constraints())}")
    table = Table(
        "constraint", "bytes s", "tokens s", "states", "transitions", "start MB", "peak MB", "search ms", "", box=None
    )
    for column in table.columns[1:-1]:
        column.justify = "right"
    progress = Console(stderr=True)
    for name in names:
        process = WatchedProcess(partial(hard_work, options.vocabulary), options.limit)
        try:
            with progress.status(name):
                table.add_row(*row(name, list(process.run(name))))
        finally:
            process.close()
    Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False).print(table)
