"""What `mlx_diffgemma bench --report DIR` does: options -> request -> machine_report.run -> report.json, report.md."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_diffgemma.benchmark.settings import BenchmarkSettings
from mlx_diffgemma.cli.benchmark import OutputOptions, SubjectOptions
from mlx_diffgemma.cli.console import stdout_line
from mlx_diffgemma.errors import BenchmarkError, OptionError
from mlx_diffgemma.option import option, option_fields

if TYPE_CHECKING:
    from mlx_diffgemma.machine_report.record import ReportRecord
    from mlx_diffgemma.machine_report.run import StepBegun, StepEnded
    from mlx_diffgemma.machine_report.steps import ReportRequest, Step

_PANEL = "A report on this machine"


@dataclass(frozen=True, kw_only=True)
class MachineReportOptions:
    """What a report on the machine measures beside the model."""

    report: Path | None = option(
        None, "Measure all that only this machine can show, under an hour, into a folder.", _PANEL, metavar="DIR"
    )
    source: str | None = option(None, "For --report: the weights as released, to convert them.", _PANEL, metavar="NAME")
    other: str | None = option(None, "For --report: another conversion, asked the same.", _PANEL, metavar="NAME")
    steps: str | None = option(
        None, "For --report: only these steps of it.", _PANEL, metavar="A,B,..", default_text="all"
    )


def check_report_options(
    report: MachineReportOptions, settings: BenchmarkSettings, output: OutputOptions, chosen: Mapping[str, Any]
) -> None:
    """Raise OptionError for options that --report has no use for, and for those that are its own without it."""
    if report.report is None:
        if given := _given(report):
            raise OptionError(f"{given[0]} is for --report DIR: add it, or leave out {given[0]}")
        return
    known = option_fields(BenchmarkSettings)
    given = [flag for flag in (*_given(settings), *_given(output)) if flag != known["baseline"].flags[0]]
    given += [f"--{name.replace('_', '-')}" for name in chosen]
    if given:
        raise OptionError(f"--report measures with settings of its own: leave out {', '.join(given)}")


def _given(options: Any) -> list[str]:
    """Return the flags of the options that are not as they are by themselves."""
    known = option_fields(type(options))
    return [known[each.name].flags[0] for each in fields(options) if getattr(options, each.name) != each.default]


def report_on_machine(
    model: str, subject: SubjectOptions, baseline: str | None, options: MachineReportOptions, *, quiet: bool
) -> None:
    """Measure what is not measured yet, and write the page. Raises BenchmarkError, OptionError.

    After Ctrl-C the page has what was measured until then.
    """
    from mlx_diffgemma.device.machine import this_machine
    from mlx_diffgemma.machine_report.record import open_record, save
    from mlx_diffgemma.machine_report.run import measure

    folder = options.report
    assert folder is not None
    steps = _steps(options.steps)
    machine = this_machine()
    request = _request(model, subject, baseline, options, machine.backend)
    record = open_record(folder, request.model, machine)
    save(record, folder)
    try:
        with closing(measure(record, folder, request, steps)) as events:
            for event in events:
                if not quiet:
                    _show(event, len(steps))
    finally:
        _write_page(record, folder, machine.line())
    stdout_line(str(folder / "report.md"))


def _steps(names: str | None) -> Sequence[Step]:
    from mlx_diffgemma.machine_report.steps import REPORT_STEPS

    if names is None:
        return REPORT_STEPS
    wanted, known = names.split(","), [step.name for step in REPORT_STEPS]
    if unknown := [name for name in wanted if name not in known]:
        raise OptionError(f"--steps {unknown[0]}: there is no such step; there are {', '.join(known)}")
    return [step for step in REPORT_STEPS if step.name in wanted]


def _request(
    model: str, subject: SubjectOptions, baseline: str | None, options: MachineReportOptions, backend: str
) -> ReportRequest:
    from mlx_diffgemma.checkpoint.hub import model_folder
    from mlx_diffgemma.machine_report.steps import ReportRequest

    for named in (model, options.other):
        if named is not None:
            # A name that is wrong is found before anything is measured.
            model_folder(named, subject.revision if named == model else None)
    known = option_fields(SubjectOptions)
    words: list[str] = []
    for each in fields(subject):
        value = getattr(subject, each.name)
        if value is not None and value is not False:
            words += [known[each.name].flags[0], *([] if value is True else [str(value)])]
    return ReportRequest(
        model=model,
        options=tuple(words),
        source=options.source,
        other=options.other,
        baseline=baseline,
        device=backend,
    )


def _show(event: StepBegun | StepEnded, steps: int) -> None:
    """Say on stderr what begins, and what came of it."""
    from mlx_diffgemma.machine_report.run import StepBegun

    if isinstance(event, StepBegun):
        line = f"[{steps - event.left + 1}/{steps}] {event.step.title} (at most {_minutes(event.step.limit)}) ..."
    else:
        outcome = event.outcome
        reason = f": {outcome.reason}" if outcome.reason else ""
        line = f"    {outcome.state}{reason}{f', {_minutes(outcome.seconds)}' if outcome.seconds else ''}"
    print(line, file=sys.stderr, flush=True)  # noqa: T201


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def _write_page(record: ReportRecord, folder: Path, machine_line: str) -> None:
    from mlx_diffgemma.machine_report.page import page
    from mlx_diffgemma.machine_report.pictures import draw_report
    from mlx_diffgemma.machine_report.record import write_file

    try:
        pictures = draw_report(record, folder)
    except OSError as error:
        raise BenchmarkError(f"{folder}: a picture cannot be written: {error.strerror}") from None
    write_file(folder / "report.md", page(record, machine_line, pictures))
