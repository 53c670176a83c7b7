"""Send the requests in turns, so that other work on the machine slows all programs alike.

per prefix
  1  every program that has just started warms up on shorter requests, which are not counted
  2  every program returns the most likely tokens of one canvas after one prefix: do they compute equal tokens?
  per turn, one program after the other:
  3    in the first turns: encode the prefix                     -> seconds and peak memory of a prefill
  4    steps, ours both with exact and with top-k conditioning   -> seconds of a step, peak memory of steps
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean

from comparing.link import Worker
from comparing.shapes import Shape

OURS = "ours"
SEED = 7


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much is measured; `apart`: a program ends before the next one starts, for a memory that holds only one."""

    canvas: int
    steps: int
    turns: int
    prefill_turns: int
    top_k: int | None
    apart: bool


@dataclass(kw_only=True)
class Series:
    """The measurements of one program after one prefix: a value per turn, by what was measured."""

    seconds: dict[str, list[float]] = field(default_factory=dict)
    peaks: dict[str, list[int]] = field(default_factory=dict)
    resident: int = 0
    best: list[int] = field(default_factory=list)

    def add(self, what: str, seconds: Sequence[float], peak: int, resident: int) -> None:
        """Add the answer to one request."""
        self.seconds.setdefault(what, []).append(fmean(seconds))
        self.peaks.setdefault(what, []).append(peak)
        self.resident = max(self.resident, resident)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The measurements of all programs on one shape after one prefix."""

    shape: str
    prefix: int
    plan: Plan
    series: dict[str, Series]


PREFILL, EXACT = "prefill", "step, exact"


def top_k_name(top_k: int) -> str:
    """Return the name of steps with this conditioning."""
    return f"step, top-{top_k}"


def measure(shape: Shape, prefix: int, workers: Sequence[Worker], plan: Plan) -> Iterator[str | Measured]:
    """Carry out phases 1 to 4; yield a line for every turn, then the result. Raises ProgramError."""
    series = {worker.name: Series() for worker in workers}
    for turn in range(plan.turns):
        for worker in workers:
            yield f"{shape.name}, prefix {prefix}: turn {turn + 1} of {plan.turns}, {worker.name}"
            own = series[worker.name]
            fresh = not worker.running
            if fresh:
                # 1
                worker.ask(do="prefill", tokens=min(prefix, 2048), seed=SEED)
                _steps(worker, plan, Series(), count=1)
            # 3
            if turn < plan.prefill_turns or fresh:
                _prefill(worker, prefix, own if prefix and turn < plan.prefill_turns else Series())
            # 2
            if not own.best:
                own.best = worker.ask(do="best", canvas=plan.canvas, seed=SEED + 1)["best"]
            # 4
            _steps(worker, plan, own, count=plan.steps)
            if plan.apart:
                worker.close()
    yield Measured(shape=shape.name, prefix=prefix, plan=plan, series=series)


def _prefill(worker: Worker, prefix: int, series: Series) -> None:
    reply = worker.ask(do="prefill", tokens=prefix, seed=SEED)
    series.add(PREFILL, reply["seconds"], reply["peak"], reply["resident"])


def _steps(worker: Worker, plan: Plan, series: Series, *, count: int) -> None:
    kinds: dict[str, int | None] = {EXACT: None}
    if worker.name == OURS and plan.top_k is not None:
        kinds[top_k_name(plan.top_k)] = plan.top_k
    for what, top_k in kinds.items():
        reply = worker.ask(do="steps", canvas=plan.canvas, count=count, top_k=top_k, seed=SEED + 1)
        series.add(what, reply["seconds"], reply["peak"], reply["resident"])
