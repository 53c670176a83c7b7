"""Carry out a report: step after step, each kept as soon as it is there, until an hour is over."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_diffgemma.machine_report.record import ReportRecord, StepResult, save
from mlx_diffgemma.machine_report.running import CommandEnd, parsed, run_command
from mlx_diffgemma.machine_report.steps import NotRunError, ReportRequest, Step

HOUR = 3600.0
"""Seconds of one call; what is left goes on with the next."""
LOG = "log.txt"


@dataclass(frozen=True, kw_only=True)
class StepBegun:
    """A step begins: the number of those that are left with it, and the step."""

    left: int
    step: Step


@dataclass(frozen=True, kw_only=True)
class StepEnded:
    """What came of it."""

    step: Step
    outcome: StepResult


def measure(
    record: ReportRecord,
    folder: Path,
    request: ReportRequest,
    steps: Sequence[Step],
    *,
    clock: Callable[[], float] = time.monotonic,
) -> Generator[StepBegun | StepEnded]:
    """Run the steps that are not settled yet, and save the record after each. Raises BenchmarkError."""
    end = clock() + HOUR
    waiting = [step for step in steps if not record.is_settled(step.name)]
    for index, step in enumerate(waiting):
        yield StepBegun(left=len(waiting) - index, step=step)
        left = end - clock()
        if left < 1:
            outcome = StepResult(state="not run", reason="an hour was over: the same command goes on here")
        else:
            outcome = _outcome(step, request, min(step.limit, left), folder / LOG)
        record.steps[step.name] = outcome
        save(record, folder)
        yield StepEnded(step=step, outcome=outcome)


def _outcome(step: Step, request: ReportRequest, limit: float, log: Path) -> StepResult:
    """Run one step."""
    # Beside the report: a temporary folder of the system may be too small for a converted model.
    with tempfile.TemporaryDirectory(prefix="step-", dir=log.parent) as scratch:
        folder = Path(scratch)
        try:
            command = step.command(request, folder)
        except NotRunError as error:
            return StepResult(state="not run", reason=str(error))
        with log.open("a", encoding="utf-8") as file:
            file.write(f"\n# {step.name}: {' '.join(command)}\n")
        ended = run_command(command, step.environment, limit, log)
        written = folder / step.writes if step.writes else None
        text = written.read_text(encoding="utf-8") if written and written.is_file() else ended.output
    return _judged(step, ended, parsed(text) if text.strip() else None, limit)


def _judged(step: Step, ended: CommandEnd, result: Any, limit: float) -> StepResult:
    if isinstance(result, dict) and "not_run" in result:
        return StepResult(state="not run", reason=result["not_run"])
    if not ended.in_time:
        reason = f"ended after {limit:,.0f} s"
        return _with_result(ended, "cut short" if result is not None else "failed", reason, result)
    # A test that fails is a finding, and has its report.
    if ended.code == 0 or (step.writes is not None and result is not None and ended.code == 1):
        return _with_result(ended, "done", None, result)
    how = f"exit code {ended.code}" if ended.code is None or ended.code >= 0 else f"signal {-ended.code}"
    return _with_result(ended, "failed", f"{how}: {ended.complaint}" if ended.complaint else how, None)


def _with_result(ended: CommandEnd, state: Any, reason: str | None, result: Any) -> StepResult:
    return StepResult(state=state, seconds=ended.seconds, peak_memory=ended.peak, reason=reason, result=result)
