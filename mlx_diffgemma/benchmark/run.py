"""A benchmark from its plan to what it found, told as events.

    SuiteChosen
    per model: Loaded -> Began -> Prefilled* -> Began -> Stepped* -> Began -> Attempt*      Dropped at any place

One model is in memory at a time: the baseline is loaded when the other one is gone.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TypeAlias

import mlx.core as mx

from mlx_diffgemma.benchmark.answers import Asking, ask
from mlx_diffgemma.benchmark.baseline import BaselineChoice, check_baseline, load_baseline
from mlx_diffgemma.benchmark.diffusion import ModelChoice, load_diffusion
from mlx_diffgemma.benchmark.measure import Sizes, fit, time_prefill, time_steps
from mlx_diffgemma.benchmark.prompts import choose
from mlx_diffgemma.benchmark.results import Attempt, Benchmark, Loaded, Measured, Point
from mlx_diffgemma.benchmark.subject import Subject
from mlx_diffgemma.benchmark.suite import Case, Suite
from mlx_diffgemma.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class BenchmarkPlan:
    """What to do. `suite`: prompts, or the name of built-in ones, or None to choose those by the model.

    `only` keeps the prompts with this text in their names. `sizes` of None: no speeds. `max_tokens` goes over what the
    prompts say. Raises OptionError.
    """

    source: ModelChoice
    baseline: BaselineChoice | None
    suite: Suite | str | None
    only: str | None
    sizes: Sizes | None
    answers: bool
    repeats: int
    retries: int
    seed: int
    max_tokens: int | None

    def __post_init__(self) -> None:
        for name, least in (("repeats", 1), ("retries", 1), ("max_tokens", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise OptionError(f"{name}={value} must be at least {least}")
        if self.seed + self.repeats * self.retries > 2**64:
            raise OptionError(f"seed={self.seed} is too large: the last attempt's must be below 2**64")
        if self.sizes is None and not self.answers:
            raise OptionError("neither speeds nor answers: there is nothing to measure")


@dataclass(frozen=True, kw_only=True, eq=False)
class SuiteChosen:
    """The prompts that will be asked, and how."""

    suite: Suite
    asking: Asking


@dataclass(frozen=True, kw_only=True)
class Began:
    """Work on `model` that has so many pieces: points, or answers; 0 where it has none."""

    model: str
    what: str
    pieces: int = 0


@dataclass(frozen=True, kw_only=True)
class PrefillTimed:
    """A prefill was timed."""

    point: Point


@dataclass(frozen=True, kw_only=True)
class StepsTimed:
    """Steps were timed."""

    point: Point


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """Something is left out, and why."""

    reason: str


BenchmarkEvent: TypeAlias = SuiteChosen | Began | Loaded | PrefillTimed | StepsTimed | Attempt | Dropped


def run(plan: BenchmarkPlan) -> Iterator[BenchmarkEvent]:
    """Do what the plan says. Raises DiffGemmaError; what was found until then has been told."""
    if plan.baseline is not None:
        # It is loaded when the first model has been measured, which may take an hour.
        yield Began(model=plan.baseline.model, what="checking")
        check_baseline(plan.baseline)
        _forget()
    yield Began(model=plan.source.model, what="loading")
    subject = load_diffusion(plan.source)
    yield subject.loaded
    chosen = SuiteChosen(
        suite=_suite(plan, subject.canvas),
        asking=Asking(max_tokens=subject.config.max_tokens, repeats=plan.repeats, retries=plan.retries, seed=plan.seed),
    )
    if plan.answers:
        yield chosen
    yield from _measure(subject, plan, chosen)
    del subject
    _forget()
    if plan.baseline is not None:
        yield Began(model=plan.baseline.model, what="loading")
        baseline = load_baseline(plan.baseline)
        yield baseline.loaded
        yield from _measure(baseline, plan, chosen)


def _suite(plan: BenchmarkPlan, canvas: int) -> Suite:
    suite = plan.suite if isinstance(plan.suite, Suite) else choose(plan.suite, canvas)
    kept = [case for case in suite.cases if plan.only is None or plan.only in case.name]
    if not kept:
        names = ", ".join(case.name for case in suite.cases)
        raise OptionError(f"only={plan.only!r} is in no name of the suite {suite.name}: {names}")
    return replace(suite, cases=tuple(replace(case, max_tokens=plan.max_tokens or case.max_tokens) for case in kept))


def _measure(subject: Subject, plan: BenchmarkPlan, chosen: SuiteChosen) -> Iterator[BenchmarkEvent]:
    """Everything that is measured of one model."""
    asking = chosen.asking
    # What cannot be asked is found out before anything takes its time.
    cases: list[Case] = []
    for case in chosen.suite.cases if plan.answers else ():
        if problem := subject.problem(case.prompt, case.max_tokens or asking.max_tokens):
            yield Dropped(reason=f"prompt {case.name} for {subject.loaded.model}: {problem}")
        else:
            cases.append(case)
    if plan.sizes is not None:
        yield from _speed(subject, plan.sizes)
    if cases:
        yield Began(model=subject.loaded.model, what="answers", pieces=len(cases) * asking.repeats)
        subject.warm_up(cases[0].prompt)
    for case in cases:
        yield from ask(subject, case, asking)


def _speed(subject: Subject, sizes: Sizes) -> Iterator[BenchmarkEvent]:
    fitting = fit(subject, sizes)
    yield from (Dropped(reason=reason) for reason in fitting.dropped)
    yield Began(model=subject.loaded.model, what="prefill", pieces=len(fitting.lengths))
    for length in fitting.lengths:
        point = time_prefill(subject, length)
        yield PrefillTimed(point=point) if isinstance(point, Point) else Dropped(reason=str(point))
    yield Began(model=subject.loaded.model, what="steps", pieces=len(fitting.steps))
    for prefix, canvas in fitting.steps:
        point = time_steps(subject, prefix, canvas)
        yield StepsTimed(point=point) if isinstance(point, Point) else Dropped(reason=str(point))


def _forget() -> None:
    """Give back the memory of a model that nothing refers to any more."""
    gc.collect()
    mx.clear_cache()


class Findings:
    """What the events up to now amount to."""

    def __init__(self) -> None:
        self._chosen: SuiteChosen | None = None
        self._models: list[Measured] = []
        self._dropped: list[str] = []

    def add(self, event: BenchmarkEvent) -> None:
        """Take in the next event."""
        match event:
            case SuiteChosen():
                self._chosen = event
            case Loaded():
                self._models.append(Measured(loaded=event))
            case PrefillTimed(point=point):
                self._models[-1] = replace(self._models[-1], prefill=(*self._models[-1].prefill, point))
            case StepsTimed(point=point):
                self._models[-1] = replace(self._models[-1], steps=(*self._models[-1].steps, point))
            case Attempt():
                self._models[-1] = replace(self._models[-1], attempts=(*self._models[-1].attempts, event))
            case Dropped(reason=reason):
                self._dropped.append(reason)
            case Began():
                pass

    def benchmark(self, *, whole: bool) -> Benchmark | None:
        """All of it; None where the run was ended before anything was measured."""
        if not whole and not any(model.prefill or model.steps or model.attempts for model in self._models):
            return None
        chosen = self._chosen
        return Benchmark(
            suite=chosen.suite.name if chosen else "",
            prompts=tuple(case.name for case in chosen.suite.cases) if chosen else (),
            models=tuple(self._models),
            asking=asdict(chosen.asking) if chosen else {},
            dropped=tuple(self._dropped),
            whole=whole,
        )
