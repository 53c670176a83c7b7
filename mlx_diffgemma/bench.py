"""The program `mlx_diffgemma bench`: how fast a model is, how often it is right, and what a right answer costs."""

from __future__ import annotations

import mlx_diffgemma.cli.quietly  # isort: skip # noqa: F401 # pyright: ignore[reportUnusedImport]

from typing import Annotated

import typer

from mlx_diffgemma.benchmark.settings import BenchmarkSettings
from mlx_diffgemma.cli.benchmark import (
    BenchmarkChoices,
    OutputOptions,
    SubjectOptions,
    benchmark_plan,
    measure_and_report,
)
from mlx_diffgemma.cli.console import run_program
from mlx_diffgemma.cli.machine_report import MachineReportOptions, check_report_options, report_on_machine
from mlx_diffgemma.cli.options import CommonOptions
from mlx_diffgemma.cli.program import add_command, make_app
from mlx_diffgemma.presets import PresetOptions

app = make_app()


@add_command(
    app,
    "mlx_diffgemma bench ./model-4bit",
    "mlx_diffgemma bench ./model-4bit --baseline ./gemma-27b --plot figures.png",
    "mlx_diffgemma bench ./model-4bit --report my-mac",
)
def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Folder or Hub repository; demo is in the package.")],
    *,
    subject: SubjectOptions,
    settings: BenchmarkSettings,
    chosen: BenchmarkChoices,
    presets: PresetOptions,
    output: OutputOptions,
    report: MachineReportOptions,
    common: CommonOptions,
) -> None:
    """Measure MODEL: speed of prefill and steps, time, checks and cost of answers, memory.

    The table goes to stdout, everything else to stderr. A generation option that is not given is the checkpoint's own.
    With --report a folder gets all that only this machine can show, beside what was estimated without it.
    """
    from mlx_diffgemma.benchmark.plot import check_plot_file

    check_report_options(report, settings, output, {**chosen, **presets.chosen})
    if report.report is not None:
        report_on_machine(model, subject, settings.baseline, report, quiet=common.quiet)
        return
    if output.plot is not None:
        check_plot_file(output.plot)
    plan = benchmark_plan(model, subject, settings, {**chosen, **presets.chosen})
    measure_and_report(plan, output, quiet=common.quiet)


def main() -> None:
    """Run the program on the command line's arguments."""
    run_program(app, "mlx_diffgemma.bench")


if __name__ == "__main__":
    main()
