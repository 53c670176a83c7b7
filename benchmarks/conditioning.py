"""How far conditioning on the k most likely tokens is from conditioning on all, on the first canvas of real questions.

    python benchmarks/conditioning.py demo --questions 20

Canvases are denoised by the reference's rule, so that every k is held against the exact signal of the same step: the
error is the norm of the difference by the norm of the exact signal of each position. The model in the package has 1,024
tokens; where there are 262,144 the tail behind the k most likely can be heavier.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from statistics import fmean

import mlx.core as mx
from demo_accuracy import questions
from demo_options import KINDS
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from mlx_diffgemma import Denoised, Session, load
from mlx_diffgemma.generation.engine import stream
from mlx_diffgemma.sampling.sampler import Draft, Sampler
from mlx_diffgemma.sampling.strategy import default_rules

COUNTS = (1, 8, 64, 256)


@dataclass(eq=False)
class Watching:
    """A sampler that shows the logits it was last given."""

    sampler: Sampler
    processed: mx.array

    def start(self, shape: tuple[int, int], key: mx.array) -> mx.array:
        """What the sampler inside does."""
        return self.sampler.start(shape, key)

    def step(self, processed: mx.array, canvas: mx.array, key: mx.array) -> Draft:
        """What the sampler inside does."""
        self.processed = processed
        return self.sampler.step(processed, canvas, key)


def steps(session: Session, prompt: str, seed: int) -> Iterator[mx.array]:
    """The processed logits [1, C, V] of every step of the first canvas, by the reference's rule."""
    length = session.defaults.canvas_length or session.model.config.canvas_length
    config = replace(session.defaults.exact(), max_tokens=length, seed=seed)
    watching = Watching(default_rules(session.model, config).sampler, mx.array([]))
    for event in stream(session.model, session.tokens(prompt), config, sampler=watching):
        if isinstance(event, Denoised):
            yield watching.processed


def errors(session: Session, processed: mx.array, count: int) -> list[float]:
    """The relative error at every position with `count` tokens."""
    exact = session.model.signal(processed)
    difference = mx.linalg.norm(session.model.signal(processed, count) - exact, axis=-1)
    relative = difference / mx.linalg.norm(exact, axis=-1)
    return [float(error) for error in relative.flatten().tolist()]  # pyright: ignore[reportArgumentType]


def measure(session: Session, number: int) -> dict[tuple[int, int], list[float]]:
    """All errors by step and k, with a progress bar on stderr; the steps behind the second count as the third."""
    found: dict[tuple[int, int], list[float]] = {}
    asked = [question for kind in KINDS for question in islice(questions(session, kind, 0), number)]
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for seed, question in enumerate(progress.track(asked, description="denoising")):
            for step, processed in enumerate(steps(session, question.prompt, seed), start=1):
                for count in COUNTS:
                    found.setdefault((min(step, 3), count), []).extend(errors(session, processed, count))
    return found


def table(found: dict[tuple[int, int], list[float]]) -> Table:
    """Mean, 99th percentile and maximum, relative to the signal."""
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


def main() -> None:
    """Denoise, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="demo", help="folder or Hub repository")
    parser.add_argument("--questions", type=int, default=20, help="of each kind")
    arguments = parser.parse_args()
    Console().print(table(measure(load(arguments.model), arguments.questions)))


if __name__ == "__main__":
    main()
