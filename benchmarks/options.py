"""Ask a model the same questions with several sets of options: right answers, steps, and positions that were computed.

    python benchmarks/run.py options demo max_steps=16 rows=unsettled,whole_every=4 --questions 25

Each set is a comma-separated list of options by their Python names; the first row has none. Positions are those of
canvases that went through the layers, all steps together, beside those of the first row.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mlx_diffgemma.benchmark.answers import Asking, ask
from mlx_diffgemma.benchmark.diffusion import ModelChoice, load_diffusion
from mlx_diffgemma.benchmark.prompts import built_in_suite
from mlx_diffgemma.benchmark.results import Attempt
from mlx_diffgemma.benchmark.suite import Case, read_suite
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.logits import ProcessedLogits


@dataclass
class Counter:
    """Positions of canvases that went through the layers."""

    positions: int = 0


@contextmanager
def counting() -> Iterator[Counter]:
    """Count the positions whose hidden states are turned into the logits of a step."""
    counter, whole = Counter(), DiffusionGemma.processed_logits

    def counted(model: DiffusionGemma, hidden: mx.array, temperature: float | list[float]) -> ProcessedLogits:
        counter.positions += hidden.shape[0] * hidden.shape[1]
        return whole(model, hidden, temperature)

    DiffusionGemma.processed_logits = counted
    try:
        yield counter
    finally:
        DiffusionGemma.processed_logits = whole


@dataclass(frozen=True, kw_only=True)
class Result:
    """All answers with one set of options."""

    options: str
    attempts: Sequence[Attempt]
    positions: int

    @property
    def steps(self) -> float:
        """Denoising steps per canvas."""
        canvases = sum(each.reply.canvases for each in self.attempts)
        return sum(each.reply.forwards for each in self.attempts) / canvases if canvases else float("nan")

    @property
    def right(self) -> int:
        """Number of right answers."""
        return sum(each.accepted for each in self.attempts)


def questions(suite: str, count: int) -> list[Case]:
    """Return the first `count` questions of every kind of a suite: demo-accuracy, or a file."""
    found = built_in_suite("demo-accuracy") if suite == "demo-accuracy" else read_suite(Path(suite))
    kinds: dict[str, list[Case]] = {}
    for case in found.cases:
        kinds.setdefault(case.row, []).append(case)
    return [case for cases in kinds.values() for case in cases[:count]]


def measure(model: str, options: str, asked: Sequence[Case]) -> Result:
    """Ask every question once with a set of options, with a progress bar on stderr."""
    choice = ModelChoice(model=model, revision=None, dtype=None, adapter=None, force=False, choices=_values(options))
    subject = load_diffusion(choice)
    asking = Asking(max_tokens=subject.config.max_tokens, repeats=1, retries=1, seed=0)
    attempts: list[Attempt] = []
    with counting() as counter, Progress(console=Console(stderr=True), transient=True) as progress:
        for case in progress.track(asked, description=options or "as it is"):
            attempts += ask(subject, replace(case, max_tokens=case.max_tokens or asking.max_tokens), asking)
    return Result(options=options or "none", attempts=attempts, positions=counter.positions)


def _values(options: str) -> Mapping[str, Any]:
    """'rows=unsettled,whole_every=4' -> {"rows": "unsettled", "whole_every": 4}"""
    pairs = [pair.partition("=") for pair in options.split(",") if pair]
    return {name: _value(value) for name, _, value in pairs}


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def table(results: Sequence[Result]) -> Table:
    """Return a row per set of options."""
    shown = Table("options", "right", "steps/canvas", "tokens/forward", "positions")
    first = results[0]
    for each in results:
        forwards = sum(attempt.reply.forwards for attempt in each.attempts)
        tokens = sum(attempt.reply.tokens for attempt in each.attempts)
        shown.add_row(
            each.options,
            f"{each.right}/{len(each.attempts)}",
            f"{each.steps:.2f}",
            f"{tokens / forwards:.2f}",
            f"{each.positions / first.positions:.3f}" if first.positions else "",
        )
    return shown


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Ask, and print the table."""
    parser.add_argument("model", help="folder or Hub repository")
    parser.add_argument("options", nargs="*", help="sets of options, each name=value,name=value")
    parser.add_argument("--suite", default="demo-accuracy", help="demo-accuracy, or a file of prompts")
    parser.add_argument("--questions", type=int, default=25, help="of each kind")
    arguments = parser.parse_args(words)
    asked = questions(arguments.suite, arguments.questions)
    results = [measure(arguments.model, options, asked) for options in ("", *arguments.options)]
    Console(width=120).print(table(results))
