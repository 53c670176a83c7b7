"""What the program `mlx_diffgemma bench` does.

options -> BenchmarkPlan -> benchmark.run -> events -> screen (stderr), Findings -> report (stdout), plot (file)
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from mlx_diffgemma.benchmark.settings import BenchmarkSettings
from mlx_diffgemma.cli.console import stdout_line
from mlx_diffgemma.cli.options import OUTPUT, Chosen, adapter_option, dtype_option, force_option, revision_option
from mlx_diffgemma.errors import DiffGemmaError, OptionError
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.option import option

if TYPE_CHECKING:
    from mlx_diffgemma.benchmark.results import Benchmark
    from mlx_diffgemma.benchmark.run import BenchmarkPlan

_WIDTH, _NARROWEST = 120, 80
"""Columns for tables: without a terminal, and at least on a terminal."""

_NOT_MEASURED = ("raw", "stop_tokens", "stop", "max_tokens", "seed", "regex", "json_schema", "choices")

BenchmarkChoices: TypeAlias = Annotated[dict[str, Any], Chosen(GenerationConfig, without=_NOT_MEASURED)]
"""The generation options that were given; length and seed are the benchmark's own."""


@dataclass(frozen=True, kw_only=True)
class SubjectOptions:
    """How the measured model is loaded."""

    adapter: Path | None = adapter_option()
    revision: str | None = revision_option()
    dtype: str | None = dtype_option()
    force: bool = force_option()


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where the figures go."""

    json: bool = option(False, "Print one JSON object with every measurement and every answer.", OUTPUT)
    plot: Path | None = option(None, "Draw the figures into a PNG file.", OUTPUT, metavar="FILE")


def benchmark_plan(
    model: str,
    subject: SubjectOptions,
    settings: BenchmarkSettings,
    chosen: Mapping[str, Any],
) -> BenchmarkPlan:
    """Return the benchmark that the options describe. Raises OptionError, DataError."""
    from mlx_diffgemma.benchmark.baseline import BaselineChoice
    from mlx_diffgemma.benchmark.diffusion import ModelChoice
    from mlx_diffgemma.benchmark.measure import Sizes, read_sizes
    from mlx_diffgemma.benchmark.run import BenchmarkPlan
    from mlx_diffgemma.benchmark.suite import read_suite

    if settings.suite is not None and settings.prompts is not None:
        raise OptionError("--suite and --prompts are both given: choose one of them")
    sizes = Sizes(
        lengths=read_sizes("--lengths", settings.lengths),
        prefixes=read_sizes("--prefixes", settings.prefixes),
        canvases=None if settings.canvases is None else read_sizes("--canvases", settings.canvases),
    )
    source = ModelChoice(
        model=model,
        revision=subject.revision,
        dtype=subject.dtype,
        adapter=subject.adapter,
        force=subject.force,
        choices=chosen,
    )
    system, thinking = chosen.get("system"), chosen.get("thinking", False)
    baseline = settings.baseline and BaselineChoice(model=settings.baseline, system=system, thinking=thinking)
    return BenchmarkPlan(
        source=source,
        baseline=baseline or None,
        suite=settings.suite if settings.prompts is None else read_suite(settings.prompts),
        only=settings.only,
        sizes=sizes if settings.speed else None,
        answers=settings.answers,
        repeats=settings.repeats,
        retries=settings.retries,
        seed=settings.seed,
        max_tokens=settings.max_tokens,
    )


def measure_and_report(plan: BenchmarkPlan, output: OutputOptions, *, quiet: bool) -> None:
    """Measure and print; after Ctrl-C or an error print what was measured until then, and raise it again."""
    from contextlib import closing

    from mlx_diffgemma.benchmark.run import Findings, run_benchmark
    from mlx_diffgemma.benchmark.screen import with_progress

    findings, failure = Findings(), None
    try:
        with closing(with_progress(run_benchmark(plan), sys.stderr, quiet=quiet)) as events:
            for event in events:
                findings.add(event)
    except (DiffGemmaError, KeyboardInterrupt) as error:
        failure = error
    found = findings.benchmark(whole=failure is None)
    if found is not None:
        _put_out(found, output, quiet=quiet)
    if failure is not None:
        raise failure


def _put_out(found: Benchmark, output: OutputOptions, *, quiet: bool) -> None:
    """Print the figures on stdout, and draw them. Raises BenchmarkError."""
    from rich.console import Console

    from mlx_diffgemma.benchmark.plot import save_plot
    from mlx_diffgemma.benchmark.report import as_object, show
    from mlx_diffgemma.device.machine import this_machine

    if output.json:
        stdout_line(json.dumps(as_object(found, this_machine()), ensure_ascii=False))
    else:
        console = Console(highlight=False)
        # Narrower than this, numbers would be cut off; better that the terminal breaks the lines.
        console.width = max(console.width, _NARROWEST) if sys.stdout.isatty() else _WIDTH
        show(found, this_machine(), console)
        sys.stdout.flush()
    # An interrupted run may have measured nothing that can be drawn.
    if output.plot is not None and (found.whole or any(model.steps or model.attempts for model in found.models)):
        save_plot(found, this_machine(), output.plot)
        if not quiet:
            print(f"{output.plot}: the figures as a picture", file=sys.stderr)  # noqa: T201
