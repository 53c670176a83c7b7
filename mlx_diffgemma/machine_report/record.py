"""The file report.json: what a report is about, and what its steps found, kept after every step."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from mlx_diffgemma.device.machine import Machine
from mlx_diffgemma.errors import BenchmarkError
from mlx_diffgemma.files import replacing

FORMAT = 1
REPORT = "report.json"
StepState: TypeAlias = Literal["done", "cut short", "failed", "not run"]


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What came of a step. reason: why it failed or did not run. seconds, peak_memory: of its process."""

    state: StepState
    seconds: float = 0.0
    peak_memory: int = 0
    reason: str | None = None
    result: Any = None


@dataclass(kw_only=True)
class ReportRecord:
    """Everything that a report holds."""

    model: str
    machine: Mapping[str, Any]
    begun: str
    steps: dict[str, StepResult] = field(default_factory=dict[str, StepResult])

    def result(self, step: str) -> Any:
        """Return what a step found, None if it did not run to some end."""
        found = self.steps.get(step)
        return None if found is None or found.state not in ("done", "cut short") else found.result

    def is_settled(self, step: str) -> bool:
        """Whether a step need not run again."""
        return step in self.steps and self.steps[step].state in ("done", "cut short")


def open_record(folder: Path, model: str, machine: Machine) -> ReportRecord:
    """Read the record in a folder, or begin one. Raises BenchmarkError for a folder that holds something else."""
    here = asdict(machine)
    file = folder / REPORT
    if not file.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise BenchmarkError(f"{folder} is not empty and no report: name another folder")
        return ReportRecord(model=model, machine=here, begun=_now())
    found = _read(file)
    if found.model != model:
        raise BenchmarkError(f"{folder} is the report of {found.model}, not of {model}: name another folder")
    for name in ("device", "mlx", "mlx_diffgemma"):
        if found.machine.get(name) != here[name]:
            then = found.machine.get(name)
            raise BenchmarkError(
                f"{folder} was begun with {name} {then}, and this is {here[name]}: name another folder"
            )
    return found


def _read(file: Path) -> ReportRecord:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise BenchmarkError(f"{file} has the format {values['format']!r}, not {FORMAT}: name another folder")
        steps = {name: StepResult(**each) for name, each in values["steps"].items()}
        return ReportRecord(model=values["model"], machine=values["machine"], begun=values["begun"], steps=steps)
    except OSError as error:
        raise BenchmarkError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise BenchmarkError(f"{file} is damaged: delete it, or name another folder") from None


def save(record: ReportRecord, folder: Path) -> None:
    """Write the record. Raises BenchmarkError."""
    values = {"format": FORMAT, **asdict(record)}
    write_file(folder / REPORT, json.dumps(values, indent=1, ensure_ascii=False) + "\n")


def write_file(file: Path, text: str) -> None:
    """Write a file of a report beside and rename it. Raises BenchmarkError."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BenchmarkError(f"{file} cannot be written: {error.strerror}") from None


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
