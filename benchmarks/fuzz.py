"""Give the programs random command lines and mangled files: they must answer, or refuse in one line.

    python benchmarks/run.py fuzz
    python benchmarks/run.py fuzz --case config:17 --case options:5
    python benchmarks/run.py fuzz --reader schema --files 500 --first 100

What is checked: no traceback, one line of error with exit code 1 or 2, no process that dies or hangs for 60 seconds,
no file left behind, no file of the user's changed. Cases that fail are written into a folder, with their files.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzzing.cases import OPTIONS, READERS, Case, case_of
from fuzzing.judging import Outcome, faults
from fuzzing.sandbox import set_up, warm_up, write_originals
from fuzzing.workers import Worker, environment, run_in_process
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

INTERRUPTED = 130


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A case, what came of it, and what is wrong with that."""

    case: Case
    outcome: Outcome
    faults: Sequence[str]

    @property
    def kind(self) -> str:
        """The row of the table that counts it."""
        reader = self.case.name.partition(":")[0]
        return f"{reader}: {self.case.program}" if reader == OPTIONS else reader


def run_cases(names: Sequence[str], processes: int, workspace: Path) -> Iterator[Judged]:
    """Yield the judged cases: all in one process that is watched, then the first `processes` in one of their own."""
    home, originals = workspace / "home", workspace / "originals"
    os.environ.update(environment(home))
    home.mkdir()
    write_originals(originals)
    warm_up(originals)
    worker = Worker(originals, workspace / "case")
    try:
        for name in names:
            case, outcome = case_of(name, originals), worker.run(name)
            yield Judged(case=case, outcome=outcome, faults=faults(case, outcome))
    finally:
        worker.close()
    for name in names[:processes]:
        case = case_of(name, originals)
        outcome = run_in_process(case, originals, workspace / "case", home)
        yield Judged(case=case, outcome=outcome, faults=faults(case, outcome))


def keep(judged: Judged, folder: Path, originals: Path) -> None:
    """Write a case that failed into a folder: its files as they were, the command, what it wrote."""
    own = folder / judged.case.name.replace(":", "-")
    set_up(originals, own, judged.case.changed)
    (own / "stdin").write_bytes(judged.case.stdin)
    command = shlex.join([sys.executable, "-m", f"mlx_diffgemma.{judged.case.program}", *judged.case.words])
    report = [*judged.faults, f"exit code {judged.outcome.code}", f"{command} < stdin", judged.outcome.stderr]
    (own / "report.txt").write_text("\n".join(report), encoding="utf-8", errors="surrogateescape")


def table(all_judged: Sequence[Judged]) -> Table:
    """Return the counts of exit codes and of faults, per reader and per program."""
    result = Table("cases", "run", "answered", "refused", "misused", "Ctrl-C", "faults", "longest", box=None)
    result.columns[0].no_wrap = True
    for column in result.columns[1:]:
        column.justify = "right"
    kinds = Counter(judged.kind for judged in all_judged)
    for kind in [*kinds, "all"]:
        own = [judged for judged in all_judged if kind in (judged.kind, "all")]
        codes = Counter(judged.outcome.code for judged in own)
        faulty, longest = sum(bool(judged.faults) for judged in own), max(judged.outcome.seconds for judged in own)
        counts = (len(own), *(codes[code] for code in (0, 1, 2, INTERRUPTED)), faulty)
        result.add_row(kind, *map(str, counts), f"{longest:.1f} s")
    return result


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Run the cases and print the table; exit with 1 if one failed."""
    parser.add_argument("--case", action="append", help="run this case alone, such as config:17; can be repeated")
    parser.add_argument("--reader", action="append", choices=(OPTIONS, *READERS), help="run cases of this reader alone")
    parser.add_argument("--options", type=int, default=300, help="random command lines")
    parser.add_argument("--files", type=int, default=100, help="mangled files per reader")
    parser.add_argument("--processes", type=int, default=12, help="command lines that also get a process of their own")
    parser.add_argument("--first", type=int, default=0, help="number of the first case of each reader")
    parser.add_argument("--failures", type=Path, default=Path("fuzz-failures"), help="folder for cases that fail")
    arguments = parser.parse_args(words)
    counts = {name: arguments.options if name == OPTIONS else arguments.files for name in (OPTIONS, *READERS)}
    names = arguments.case or [
        f"{reader}:{arguments.first + number}"
        for reader in arguments.reader or counts
        for number in range(counts[reader])
    ]
    console, all_judged = Console(stderr=True, soft_wrap=True), list[Judged]()
    with TemporaryDirectory() as scratch, Progress(console=console, transient=True) as progress:
        workspace = Path(scratch)
        task = progress.add_task("fuzzing", total=len(names))
        for judged in run_cases(names, 0 if arguments.reader else arguments.processes, workspace):
            all_judged.append(judged)
            progress.update(task, advance=1, description=judged.case.name)
            if judged.outcome.code == INTERRUPTED:
                words = f"{judged.case.name}: Ctrl-C was needed: {judged.case.program} {shlex.join(judged.case.words)}"
                console.print(words[:500], highlight=False, markup=False)
            if judged.faults:
                keep(judged, arguments.failures, workspace / "originals")
                console.print(f"{judged.case.name}: {'; '.join(judged.faults)}", highlight=False, markup=False)
        shutil.rmtree(workspace / "case", ignore_errors=True)
    Console().print(table(all_judged))
    if any(judged.faults for judged in all_judged):
        sys.exit(f"cases that failed are in {arguments.failures}: --case NAME runs one again")
