"""Measure the error of conditioning on the k most likely tokens instead of all, on the first canvas of real questions.

    python benchmarks/run.py conditioning demo --questions 20

Canvases are denoised by the reference's rule, so that every k is compared with the exact signal of one step. The error
of a position is the norm of the difference divided by the norm of the exact signal. The model in the package has 1,024
tokens; with 262,144 the tail after the k most likely tokens can be heavier.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean

import mlx.core as mx
from demo_prompts import demo_prompts
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mlx_diffgemma import Denoised, Session, load
from mlx_diffgemma.generation.engine import stream
from mlx_diffgemma.model.logits import ProcessedLogits
from mlx_diffgemma.sampling.sampler import Draft, Sampler
from mlx_diffgemma.sampling.strategy import default_rules

COUNTS = (1, 8, 64, 256)


@dataclass(eq=False)
class RecordingSampler:
    """A sampler that keeps the processed logits of the last step."""

    sampler: Sampler
    processed: ProcessedLogits = field(init=False)

    def start(self, shape: tuple[int, int], key: mx.array) -> mx.array:
        """See Sampler."""
        return self.sampler.start(shape, key)

    def step(self, processed: ProcessedLogits, canvas: mx.array, key: mx.array) -> Draft:
        """See Sampler."""
        self.processed = processed
        return self.sampler.step(processed, canvas, key)


def steps(session: Session, prompt: str, seed: int) -> Iterator[ProcessedLogits]:
    """Yield the processed logits [1, C, V] of every step of the first canvas, by the reference's rule."""
    length = session.defaults.canvas_length or session.model.config.canvas_length
    config = replace(session.defaults.exact(), max_tokens=length, seed=seed)
    recording = RecordingSampler(default_rules(session.model, config).sampler)
    for event in stream(session.model, session.tokens(prompt), config, sampler=recording):
        if isinstance(event, Denoised):
            yield recording.processed


def errors(session: Session, processed: ProcessedLogits, count: int) -> list[float]:
    """Return the relative error of `count` tokens at every position."""
    exact = session.model.signal(processed)
    difference = mx.linalg.norm(session.model.signal(processed, count) - exact, axis=-1)
    relative = difference / mx.linalg.norm(exact, axis=-1)
    return [float(error) for error in relative.flatten().tolist()]  # pyright: ignore[reportArgumentType]


def measure(session: Session, number: int) -> dict[tuple[int, int], list[float]]:
    """Return all errors by step and k, with a progress bar on stderr; later steps count as the third."""
    found: dict[tuple[int, int], list[float]] = {}
    asked = [prompt for prompts in demo_prompts(number).values() for prompt in prompts]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for seed, prompt in enumerate(progress.track(asked, description="denoising")):
            for step, processed in enumerate(steps(session, prompt, seed), start=1):
                for count in COUNTS:
                    found.setdefault((min(step, 3), count), []).extend(errors(session, processed, count))
    return found


def table(found: dict[tuple[int, int], list[float]]) -> Table:
    """Return a table of the mean, the 99th percentile and the maximum by step and k."""
    result = Table("step", "k", "positions", "mean", "p99", "max")
    for column in result.columns:
        column.justify = "right"
    for (step, count), values in sorted(found.items()):
        ranked = sorted(values)
        high = ranked[int(0.99 * (len(ranked) - 1))]
        name = f"{step}" if step < 3 else "later"
        last = count == COUNTS[-1]
        figures = (f"{value:.1e}" for value in (fmean(ranked), high, ranked[-1]))
        result.add_row(name, str(count), str(len(ranked)), *figures, end_section=last)
    return result


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Denoise and print the table."""
    parser.add_argument("model", nargs="?", default="demo", help="folder or Hub repository")
    parser.add_argument("--questions", type=int, default=20, help="of each kind, at most 100")
    arguments = parser.parse_args(words)
    Console().print(table(measure(load(arguments.model), arguments.questions)))
