"""Build matchers of real JSON schemas with this project and with others, and check them against marked instances.

    python benchmarks/run.py schemas FILE
    python benchmarks/run.py schemas FILE --engine ours --answers 50 --json results.json
    python benchmarks/run.py schemas FILE --engine ours --vocabulary FOLDER    # over tokens, too

FILE has an object a line: name, group, schema, and tests of description, valid, data; JSONSchemaBench's MaskBench has
such schemas. Every engine runs in a process of its own; a schema that takes too long ends the process, and the next
schema gets a new one. An instance is written as this project writes JSON, and once more with its keys in the schema's
order. llguidance does most of its work while a text is read, which building times do not show.

The exit code is 1 if the first engine takes an instance that is marked invalid, or writes a text that `jsonschema`
refuses.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from constraining.cases import Case, read_cases
from constraining.engines import DEMO, ENGINES, REFERENCE, engine_class
from constraining.judging import Outcome, outcome_of, work_of
from constraining.report import disputed, groups_table, instances_table, reasons_tables, totals_table, wrong
from constraining.watching import WatchedProcess
from rich.console import Console
from rich.progress import Progress

_DEMO_LIMIT = 120.0
"""Seconds that the demo may take for an answer."""


def outcomes_of(
    cases: Sequence[Case], engine: str, vocabulary: Path | None, answers: int, limit: float
) -> list[Outcome]:
    """Return what comes of every schema with an engine, in a process that is watched."""
    process = WatchedProcess(partial(work_of, engine, vocabulary, answers), limit)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        try:
            return [outcome_of(case, process, limit) for case in progress.track(cases, description=engine)]
        finally:
            process.close()


def demo_outcomes(cases: Sequence[Case], count: int) -> list[Outcome]:
    """Return what comes of the demo's answers for `count` of the schemas, spread over all."""
    chosen = [cases[number * len(cases) // count] for number in range(min(count, len(cases)))]
    without_instances = [replace(case, instances=()) for case in chosen]
    return outcomes_of(without_instances, DEMO, None, 1, _DEMO_LIMIT)


def print_disputed(console: Console, cases: Sequence[Case], limit: float) -> list[Outcome]:
    """Print how many marks `jsonschema` disagrees with, and return what it says."""
    outcomes = outcomes_of(cases, REFERENCE, None, 0, limit)
    unjudged = sum(outcome.checked is None for outcome in outcomes)
    refused, taken = (len(disputed(outcomes, valid=valid)) for valid in (True, False))
    console.print(f"jsonschema refuses {refused} instances that are marked valid, and takes {taken} marked invalid;")
    console.print(f"it cannot judge by {unjudged} of {len(cases)} schemas")
    return outcomes


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Run the engines and print the tables; exit with 1 if the first engine was wrong."""
    parser.add_argument("file", type=Path, help="lines of JSON: name, group, schema, tests")
    parser.add_argument(
        "--engine", action="append", help=f"run this engine: {', '.join(ENGINES)}, or MODULE:CLASS; can be repeated"
    )
    parser.add_argument("--limit", type=float, default=6.0, help="seconds that a schema may take")
    parser.add_argument("--vocabulary", type=Path, help="folder of a tokenizer: ours builds over its tokens, too")
    parser.add_argument("--sampled", type=int, default=5, help="random texts of each of our automata")
    parser.add_argument("--answers", type=int, default=0, help="schemas for which the demo model writes an answer")
    parser.add_argument("--json", type=Path, help="write all outcomes into this file")
    options = parser.parse_args(words)
    cases, engines = read_cases(options.file), options.engine or list(ENGINES)
    for engine in (*engines, REFERENCE):
        engine_class(engine)
    results = {
        engine: outcomes_of(cases, engine, options.vocabulary, options.sampled, options.limit) for engine in engines
    }
    # A file or pipe is as wide as the tables.
    console = Console(width=None if sys.stdout.isatty() else 160, highlight=False, markup=False, soft_wrap=True)
    for table in (groups_table(results), totals_table(results), *reasons_tables(results)):
        console.print(table)
        console.print()
    demo = {"demo": demo_outcomes(cases, options.answers)} if options.answers else {}
    console.print(instances_table({**results, **demo}))
    reference = print_disputed(console, cases, options.limit)
    if options.json is not None:
        everything = {**results, **demo, "jsonschema": reference}
        as_json = {engine: [asdict(outcome) for outcome in outcomes] for engine, outcomes in everything.items()}
        options.json.write_text(json.dumps(as_json, ensure_ascii=False, indent=1), encoding="utf-8", errors="replace")
    faults = [*wrong(results[engines[0]], disputed(reference, valid=False)), *wrong(demo.get("demo", []))]
    for line in faults:
        console.print(line)
    if faults:
        sys.exit(f"{engines[0]}: {len(faults)} wrong")
