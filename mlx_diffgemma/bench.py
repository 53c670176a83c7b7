"""mlx_diffgemma.bench: how fast a model is, how often it is right, and what a right answer costs.

options -> Plan -> benchmark.run -> events -> screen (stderr), Findings -> report (stdout), plot (file)
"""

from __future__ import annotations

import json as jsonlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mlx_diffgemma.cli import bench_options as given
from mlx_diffgemma.cli import options
from mlx_diffgemma.cli.console import reported, run_program, stdout_line
from mlx_diffgemma.errors import DiffGemmaError, OptionError

if TYPE_CHECKING:
    from rich.console import Console

    from mlx_diffgemma.benchmark.results import Benchmark
    from mlx_diffgemma.benchmark.run import BenchmarkPlan

LENGTHS = "128,512,2048,8192"
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
WIDTH, NARROWEST = 120, 80
"""Columns that there are for tables: where there is no terminal, and at least."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """Where the figures go."""

    json: bool
    plot: Path | None
    quiet: bool


@app.command()
def bench(  # noqa: PLR0917 - its parameters are the options
    model: given.Model,
    baseline: given.Baseline = None,
    adapter: options.Adapter = None,
    revision: options.Revision = None,
    dtype: options.Dtype = None,
    suite: given.BuiltIn = None,
    prompts: given.Prompts = None,
    only: given.Only = None,
    speed: given.Speed = True,
    answers: given.Answers = True,
    lengths: given.Lengths = LENGTHS,
    prefixes: given.Prefixes = LENGTHS,
    canvases: given.Canvases = None,
    repeats: given.Repeats = 3,
    retries: given.Retries = 3,
    system: options.System = None,
    thinking: options.Thinking = None,
    max_tokens: given.MaxTokens = None,
    seed: given.Seed = 0,
    canvas_length: options.CanvasLength = None,
    max_steps: options.MaxSteps = None,
    t_min: options.TMin = None,
    t_max: options.TMax = None,
    entropy_bound: options.EntropyBound = None,
    stability: options.Stability = None,
    confidence: options.Confidence = None,
    greedy: options.Greedy = None,
    exact: options.Exact = False,
    conditioning_top_k: options.ConditioningTopK = None,
    until_end: options.UntilEnd = None,
    allow_empty: options.AllowEmpty = None,
    mean_entropy: options.MeanEntropy = None,
    min_steps: options.MinSteps = None,
    trim: options.Trim = None,
    verify: options.Verify = None,
    mode: options.ChosenMode = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    json: given.Json = False,
    plot: given.Plot = None,
    quiet: given.Quiet = False,
    debug: options.Debug = False,
    version: options.Version = False,  # noqa: ARG001 - its callback has answered it
) -> None:
    """Measure MODEL: speed of prefill and steps, time, checks and cost of answers, memory.

    The table goes to stdout, everything else to stderr. Generation options that are not given are the checkpoint's.
    """
    choices = {
        "system": system,
        "thinking": thinking,
        "canvas_length": canvas_length,
        "max_steps": max_steps,
        "t_min": t_min,
        "t_max": t_max,
        "entropy_bound": entropy_bound,
        "stability": stability,
        "confidence": confidence,
        "greedy": greedy,
        "conditioning_top_k": conditioning_top_k,
        "until_end": until_end,
        "allow_empty": allow_empty,
        "mean_entropy": mean_entropy,
        "min_steps": min_steps,
        "trim": trim,
        "verify": verify,
        "mode": mode,
        "temperature": temperature,
        "top_p": top_p,
    }
    with reported(debug=debug, quiet=quiet):
        from mlx_diffgemma.benchmark.baseline import BaselineChoice
        from mlx_diffgemma.benchmark.diffusion import ModelChoice
        from mlx_diffgemma.benchmark.measure import Sizes, read_sizes
        from mlx_diffgemma.benchmark.plot import check_plot_file
        from mlx_diffgemma.benchmark.run import BenchmarkPlan
        from mlx_diffgemma.benchmark.suite import read_suite

        if suite is not None and prompts is not None:
            raise OptionError("--suite and --prompts are both given: choose one of them")
        if plot is not None:
            check_plot_file(plot)
        sizes = Sizes(
            lengths=read_sizes("--lengths", lengths),
            prefixes=read_sizes("--prefixes", prefixes),
            canvases=None if canvases is None else read_sizes("--canvases", canvases),
        )
        plan = BenchmarkPlan(
            source=ModelChoice(
                model=model,
                revision=revision,
                dtype=dtype,
                adapter=adapter,
                choices=options.given(choices),
                exact=exact,
            ),
            baseline=None
            if baseline is None
            else BaselineChoice(model=baseline, system=system, thinking=bool(thinking)),
            suite=suite if prompts is None else read_suite(prompts),
            only=only,
            sizes=sizes if speed else None,
            answers=answers,
            repeats=repeats,
            retries=retries,
            seed=seed,
            max_tokens=max_tokens,
        )
        carry_out(plan, Output(json=json, plot=plot, quiet=quiet))


def carry_out(plan: BenchmarkPlan, output: Output) -> None:
    """Measure and print; also what there is when Ctrl-C or an error ends it, which are raised again."""
    from contextlib import closing

    from rich.console import Console

    from mlx_diffgemma.benchmark.run import Findings, run_benchmark
    from mlx_diffgemma.benchmark.screen import with_progress

    findings, failure = Findings(), None
    console = Console(stderr=True, quiet=output.quiet, soft_wrap=True)
    try:
        with closing(with_progress(run_benchmark(plan), console=console, quiet=output.quiet)) as events:
            for event in events:
                findings.add(event)
    except (DiffGemmaError, KeyboardInterrupt) as error:
        failure = error
    found = findings.benchmark(whole=failure is None)
    if found is not None:
        put_out(found, output, console)
    if failure is not None:
        raise failure


def put_out(found: Benchmark, output: Output, progress: Console) -> None:
    """Print the figures on stdout, and draw them. Raises BenchmarkError."""
    from rich.console import Console

    from mlx_diffgemma.benchmark.machine import this_machine
    from mlx_diffgemma.benchmark.plot import save_plot
    from mlx_diffgemma.benchmark.report import as_object, show

    if output.json:
        stdout_line(jsonlib.dumps(as_object(found, this_machine()), ensure_ascii=False))
    else:
        console = Console(highlight=False)
        # Narrower than this, numbers would be cut off; better that the terminal breaks the lines.
        console.width = max(console.width, NARROWEST) if sys.stdout.isatty() else WIDTH
        show(found, this_machine(), console)
        sys.stdout.flush()
    # Of a run that was ended there may be nothing to draw yet.
    if output.plot is not None and (found.whole or any(model.steps or model.attempts for model in found.models)):
        save_plot(found, output.plot)
        progress.print(f"{output.plot}: the figures as a picture", highlight=False, markup=False)


def main() -> None:
    """Entry point of the program."""
    run_program(app, "mlx_diffgemma.bench")


if __name__ == "__main__":
    main()
