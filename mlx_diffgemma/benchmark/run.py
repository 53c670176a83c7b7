"""Carry out a benchmark: a plan -> events -> Benchmark.

    SuiteChosen
    per model: Loaded -> Began -> PrefillTimed* -> Began -> StepsTimed* -> Began -> Attempt*      Dropped anywhere

One model is in memory at a time: the baseline is loaded when the other model has been freed.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TypeAlias

import mlx.core as mx

from mlx_diffgemma.benchmark import SuiteName
from mlx_diffgemma.benchmark.answers import Asking, ask
from mlx_diffgemma.benchmark.baseline import BaselineChoice, check_baseline, load_baseline
from mlx_diffgemma.benchmark.diffusion import ModelChoice, load_diffusion
from mlx_diffgemma.benchmark.measure import Sizes, fit, time_prefill, time_steps
from mlx_diffgemma.benchmark.prompts import built_in_suite, default_suite
from mlx_diffgemma.benchmark.results import Attempt, Benchmark, Loaded, Measured, Point
from mlx_diffgemma.benchmark.subject import Subject
from mlx_diffgemma.benchmark.suite import Case, Suite
from mlx_diffgemma.checkpoint.hub import model_folder
from mlx_diffgemma.errors import OptionError
from mlx_diffgemma.files import read_json
from mlx_diffgemma.model.config import parse_config


@dataclass(frozen=True, kw_only=True)
class BenchmarkPlan:
    """What to measure. Raises OptionError.

    suite: prompts, or the name of a built-in suite; None chooses one by the model's canvas length.
    only: ask the prompts whose names contain this text. sizes: None measures no speeds.
    max_tokens: replaces what the prompts say.
    """

    source: ModelChoice
    baseline: BaselineChoice | None
    suite: Suite | SuiteName | None
    only: str | None
    sizes: Sizes | None
    answers: bool
    repeats: int
    retries: int
    seed: int
    max_tokens: int | None

    def __post_init__(self) -> None:
        for name, minimum in (("repeats", 1), ("retries", 1), ("max_tokens", 1), ("seed", 0)):
            value = getattr(self, name)
            if value is not None and value < minimum:
                raise OptionError(f"{name}={value} must be at least {minimum}")
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
    """A kind of work on a model began; `count` points or answers follow, 0 if there is nothing to count."""

    model: str
    what: str
    count: int = 0


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
    """Something is left out, with the reason."""

    reason: str


BenchmarkEvent: TypeAlias = SuiteChosen | Began | Loaded | PrefillTimed | StepsTimed | Attempt | Dropped


def run_benchmark(plan: BenchmarkPlan) -> Iterator[BenchmarkEvent]:
    """Carry out a plan. Raises DiffGemmaError; the events until then hold what was measured."""
    if plan.baseline is not None:
        # The baseline is loaded after the first model was measured, which may take an hour.
        yield Began(model=plan.baseline.model, what="checking")
        check_baseline(plan.baseline)
        _free_memory()
    yield Began(model=plan.source.model, what="loading")
    suite = _suite(plan) if plan.answers else None
    subject = load_diffusion(plan.source)
    yield subject.loaded
    asking = Asking(max_tokens=subject.config.max_tokens, repeats=plan.repeats, retries=plan.retries, seed=plan.seed)
    if suite is not None:
        yield SuiteChosen(suite=suite, asking=asking)
    cases = () if suite is None else suite.cases
    yield from _measure(subject, plan.sizes, cases, asking)
    del subject
    _free_memory()
    if plan.baseline is not None:
        yield Began(model=plan.baseline.model, what="loading")
        baseline = load_baseline(plan.baseline)
        yield baseline.loaded
        yield from _measure(baseline, plan.sizes, cases, asking)


def _suite(plan: BenchmarkPlan) -> Suite:
    """Return the suite of a plan, before gigabytes are read, with the prompts that are asked. Raises DiffGemmaError."""
    suite = plan.suite
    if not isinstance(suite, Suite):
        suite = built_in_suite(suite or default_suite(_canvas_length(plan.source)))
    kept = [case for case in suite.cases if plan.only is None or plan.only in case.name]
    if not kept:
        names = ", ".join(dict.fromkeys(case.row for case in suite.cases))
        raise OptionError(f"only={plan.only!r} is in no name of the suite {suite.name}: {names}")
    return replace(suite, cases=tuple(replace(case, max_tokens=plan.max_tokens or case.max_tokens) for case in kept))


def _canvas_length(choice: ModelChoice) -> int:
    """Return the canvas length in the config.json of a model. Raises DiffGemmaError."""
    folder = model_folder(choice.model, choice.revision)
    return parse_config(read_json(folder / "config.json")).canvas_length


def _measure(
    subject: Subject, sizes: Sizes | None, cases: tuple[Case, ...], asking: Asking
) -> Iterator[BenchmarkEvent]:
    """Measure one model."""
    # Prompts that cannot be asked are found before anything is measured.
    possible: list[Case] = []
    for case in cases:
        if problem := subject.problem(case, case.max_tokens or asking.max_tokens):
            yield Dropped(reason=f"prompt {case.name} for {subject.loaded.model}: {problem}")
        else:
            possible.append(case)
    if sizes is not None:
        yield from _speed(subject, sizes)
    if possible:
        yield Began(model=subject.loaded.model, what="answers", count=len(possible) * asking.repeats)
        subject.warm_up(possible[0])
    for case in possible:
        yield from ask(subject, case, asking)


def _speed(subject: Subject, sizes: Sizes) -> Iterator[BenchmarkEvent]:
    fitting = fit(subject, sizes)
    yield from (Dropped(reason=reason) for reason in fitting.dropped)
    yield Began(model=subject.loaded.model, what="prefill", count=len(fitting.lengths))
    for length in fitting.lengths:
        point = time_prefill(subject, length)
        yield PrefillTimed(point=point) if isinstance(point, Point) else Dropped(reason=str(point))
    yield Began(model=subject.loaded.model, what="steps", count=len(fitting.steps))
    for prefix, canvas in fitting.steps:
        point = time_steps(subject, prefix, canvas)
        yield StepsTimed(point=point) if isinstance(point, Point) else Dropped(reason=str(point))


def _free_memory() -> None:
    """Free the memory of a model that nothing refers to any more."""
    gc.collect()
    mx.clear_cache()


class Findings:
    """Collects events into a Benchmark, also of a run that ends early."""

    def __init__(self) -> None:
        self._chosen: SuiteChosen | None = None
        self._models: list[Measured] = []
        self._dropped: list[str] = []

    def add(self, event: BenchmarkEvent) -> None:
        """Add the next event."""
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
        """Return the results; None for a run that ended before anything was measured.

        whole: whether the run came to its end.
        """
        if not whole and not any(model.prefill or model.steps or model.attempts for model in self._models):
            return None
        chosen = self._chosen
        cases = chosen.suite.cases if chosen else ()
        return Benchmark(
            suite=chosen.suite.name if chosen else "",
            prompts=tuple(case.name for case in cases),
            groups={case.name: case.group for case in cases if case.group is not None},
            models=tuple(self._models),
            asking=asdict(chosen.asking) if chosen else {},
            dropped=tuple(self._dropped),
            whole=whole,
        )
