"""What each option that is not the reference's does to the demo model: right answers, steps, seconds, side by side.

    python benchmarks/demo_options.py demo --questions 200

The first row is the reference's rule; every other row changes what it names, and nothing else. Questions and seeds are
those of demo_accuracy.py. `same` are answers equal to those of the first row, in percent; `steps` are denoising steps
per answer, of all its canvases; `ratio` is to the first row's.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import fmean

from demo_accuracy import TARGETS, Asked, measure, percentage, together
from rich.console import Console
from rich.table import Table

from mlx_diffgemma import GenerationConfig, Session, load

KINDS = tuple(TARGETS)
DEFAULTS, EXACT = vars(GenerationConfig()), vars(GenerationConfig().exact())
QUICK = {name: value for name, value in DEFAULTS.items() if value != EXACT[name]}
"""What is on by default."""
SURE: Mapping[str, object] = {"mean_entropy": 0.005, "min_steps": 1}
ROWS: Mapping[str, Mapping[str, object]] = {
    "reference": {},
    "conditioning_top_k=64": {"conditioning_top_k": 64},
    "conditioning_top_k=8": {"conditioning_top_k": 8},
    "until_end": {"until_end": True},
    "allow_empty=False": {"allow_empty": False},
    "mean_entropy=0.005, min_steps=1": SURE,
    "mean_entropy=0.05, min_steps=1": {"mean_entropy": 0.05, "min_steps": 1},
    "stability_threshold=0": {"stability_threshold": 0},
    "trim": {"trim": True},
    "verify=0.01": {"verify": 0.01},
    "verify=0.1": {"verify": 0.1},
    "defaults": QUICK,
    "defaults, mean_entropy=0.005, min_steps=1": {**QUICK, **SURE},
    "defaults, mean_entropy=0.01, min_steps=1": {**QUICK, "mean_entropy": 0.01, "min_steps": 1},
    "defaults, verify=0.1": {**QUICK, "verify": 0.1},
}


@dataclass(frozen=True, kw_only=True)
class Effect:
    """One row: what was asked under which options."""

    name: str
    asked: dict[str, Asked]

    @property
    def steps(self) -> float:
        """Denoising steps per answer."""
        return fmean(sum(answer.steps) for answer in together(self.asked).answers)

    def same(self, other: Effect) -> float:
        """Answers that are the other's too, in percent."""
        pairs = zip(together(self.asked).answers, together(other.asked).answers, strict=True)
        return 100 * fmean(own.text == theirs.text for own, theirs in pairs)


def effects(session: Session, number: int, rows: list[str]) -> list[Effect]:
    """Ask the same questions under the options of each row."""
    reference: GenerationConfig = session.defaults.exact()
    return [
        Effect(name=name, asked=measure(session, list(KINDS), number, replace(reference, **ROWS[name]), causal=False))
        for name in rows
    ]


def table(found: list[Effect]) -> Table:
    """Right answers in percent, per kind and together; steps per answer; seconds for everything."""
    result = Table("options", *KINDS, "together", "same", "steps", "ratio", "seconds")
    for column in result.columns[1:]:
        column.justify = "right"
    for effect in found:
        right = [percentage(effect.asked[kind].answers) for kind in KINDS]
        everything = together(effect.asked)
        result.add_row(
            effect.name,
            *(f"{percent:.1f}" for percent in [*right, percentage(everything.answers)]),
            f"{effect.same(found[0]):.1f}",
            f"{effect.steps:.2f}",
            f"{effect.steps / found[0].steps:.2f}",
            f"{everything.seconds:.0f}",
        )
    return result


def main() -> None:
    """Ask, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", default="demo", help="folder or Hub repository")
    parser.add_argument("--questions", type=int, default=200, help="of each kind, for every row")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW", help="some of them")
    arguments = parser.parse_args()
    found = effects(load(arguments.model), arguments.questions, arguments.rows)
    Console(width=160).print(table(found))


if __name__ == "__main__":
    main()
