"""`mlx_diffgemma bench --report`: what it measures and writes, how it goes on where it stopped, what it refuses."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from in_process import call_for_text
from terminal import environment

from mlx_diffgemma import bench
from mlx_diffgemma.device.machine import this_machine
from mlx_diffgemma.machine_report.record import open_record, save
from mlx_diffgemma.machine_report.run import StepEnded, measure
from mlx_diffgemma.machine_report.steps import REPORT_STEPS, NotRunError, ReportRequest, Step


def report(folder: Path, *arguments: str, model: str = "demo") -> subprocess.CompletedProcess[str]:
    return call_for_text(bench.main, model, "--report", str(folder), *arguments, env=environment(COLUMNS="120"))


def kept(folder: Path) -> dict[str, dict[str, object]]:
    return json.loads((folder / "report.json").read_text())["steps"]


def test_a_report_is_measured_written_and_gone_on_with(tmp_path: Path) -> None:
    folder = tmp_path / "my mac"
    first = report(folder, "--steps", "kept-prefix,attention,conversion")
    assert (first.returncode, first.stdout) == (0, f"{folder / 'report.md'}\n")
    assert "[1/3] a conversion to 4 bits (at most 15 min) ...\n    not run: name the weights" in first.stderr
    steps = kept(folder)
    assert {name: each["state"] for name, each in steps.items()} == {
        "conversion": "not run", "attention": "not run", "kept-prefix": "done",
    }  # fmt: skip
    assert steps["kept-prefix"]["result"]["same"] is True
    assert steps["kept-prefix"]["peak_memory"] > 1e7
    page = (folder / "report.md").read_text()
    assert page.startswith("# DiffusionGemma on one machine\n")
    assert "- an answer after a kept prefix: the same text, " in page
    assert "- a step with fused attention: not run: a CPU has no fused attention" in page
    assert "- fifty answers in one process: not begun" in page

    again = report(folder, "--steps", "kept-prefix,attention")
    assert again.returncode == 0
    assert "kept prefix" not in again.stderr and "[2/2] a step with fused attention" in again.stderr
    assert kept(folder)["kept-prefix"] == steps["kept-prefix"]
    assert list(folder.glob("step-*")) == []


def test_a_new_record_is_read_as_it_was_saved(tmp_path: Path) -> None:
    machine = this_machine()
    record = open_record(tmp_path / "new", "release", machine)
    assert record.steps == {}
    save(record, tmp_path / "new")
    assert open_record(tmp_path / "new", "release", machine) == record


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mlx_diffgemma.bench", "demo", "--report", str(tmp_path / "mac")]
    process = subprocess.Popen(
        [*command, "--steps", "attention,endurance"], stderr=subprocess.PIPE, text=True, env=environment()
    )
    assert process.stderr is not None
    while "[2/2]" not in (line := process.stderr.readline()):
        assert line
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    rest = process.stderr.read()
    assert process.wait(30) == 130
    assert "Traceback" not in rest
    assert list(kept(tmp_path / "mac")) == ["attention"]
    assert "- fifty answers in one process: not begun" in (tmp_path / "mac" / "report.md").read_text()
    assert list((tmp_path / "mac").glob("step-*")) == []


# what is refused


def refused(*arguments: str, folder: Path, model: str = "demo") -> str:
    done = report(folder, *arguments, model=model)
    assert done.returncode != 0 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    return line


def test_what_is_wrong_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    folder = tmp_path / "mac"
    assert refused("--max-steps", "24", folder=folder).endswith("with settings of its own: leave out --max-steps")
    assert refused("--suite", "demo", "--json", folder=folder).endswith("leave out --suite, --json")
    assert "--steps sped: there is no such step; there are tests, " in refused("--steps", "sped", folder=folder)
    assert "no such folder: /no/model" in refused(folder=folder, model="/no/model")
    assert not folder.exists()
    alone = call_for_text(bench.main, "demo", "--other", "x", env=environment())
    assert alone.stderr == "error: --other is for --report DIR: add it, or leave out --other\n"


def test_a_folder_of_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert refused(folder=tmp_path) == f"error: {tmp_path} is not empty and no report: name another folder"
    assert [file.name for file in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "other"}, "is the report of other, not of demo"),
        ({"machine": {"device": "Apple M9"}}, "was begun with device Apple M9, and this is "),
        ({"format": 9}, "has the format 9, not 1"),
        ({"steps": {"tests": {"colour": "blue"}}}, "is damaged: delete it, or name another folder"),
    ],
)
def test_another_report_is_not_gone_on_with(tmp_path: Path, change: dict[str, object], said: str) -> None:
    folder = tmp_path / "mac"
    save(open_record(folder, "demo", this_machine()), folder)
    file = folder / "report.json"
    before = {**json.loads(file.read_text()), **change}
    file.write_text(json.dumps(before))
    assert said in refused(folder=folder)
    assert json.loads(file.read_text()) == before


# steps that go wrong


def step(name: str, code: str, limit: int = 20) -> Step:
    return Step(name=name, title=name, limit=limit, command=lambda _request, _folder: [sys.executable, "-c", code])


def impossible(_request: ReportRequest, _folder: Path) -> list[str]:
    raise NotRunError("not here")


def test_a_step_that_fails_ends_neither_the_report_nor_hides_its_reason(tmp_path: Path) -> None:
    folder = tmp_path / "mac"
    record = open_record(folder, "demo", this_machine())
    save(record, folder)
    slow = "import time\nprint('[1]', flush=True)\ntry:\n time.sleep(60)\nexcept KeyboardInterrupt: pass"
    steps = [
        step("killed", "import os; os.kill(os.getpid(), 9)"),
        step("error", "import sys; sys.exit('error: no room')"),
        Step(name="impossible", title="", limit=9, command=impossible),
        step("slow", slow, limit=1),
        step("right", "print('{\"a\": 1}')"),
    ]
    request = ReportRequest(model="demo")
    events = [event for event in measure(record, folder, request, steps) if isinstance(event, StepEnded)]
    found = {event.step.name: (event.outcome.state, event.outcome.reason, event.outcome.result) for event in events}
    assert found == {
        "killed": ("failed", "signal 9", None),
        "error": ("failed", "exit code 1: error: no room", None),
        "impossible": ("not run", "not here", None),
        "slow": ("cut short", "ended after 1 s", [1]),
        "right": ("done", None, {"a": 1}),
    }
    assert open_record(folder, "demo", this_machine()) == record
    # What failed is tried again, what was measured is not.
    left = [event.step.name for event in measure(record, folder, request, steps) if isinstance(event, StepEnded)]
    assert left == ["killed", "error", "impossible"]


def test_after_an_hour_what_is_left_waits_for_the_next_call(tmp_path: Path) -> None:
    record, clock = open_record(tmp_path / "mac", "demo", this_machine()), iter([0.0, 10.0, 3599.5])
    steps = [step("first", "print(1)"), step("second", "print(2)")]
    save(record, tmp_path / "mac")
    list(measure(record, tmp_path / "mac", ReportRequest(model="demo"), steps, clock=lambda: next(clock)))
    assert [each.state for each in record.steps.values()] == ["done", "not run"]
    assert record.steps["second"].reason == "an hour was over: the same command goes on here"


def test_the_steps_of_a_model_without_extras_fit_an_hour() -> None:
    """Their limits are twice what was estimated; those that a user must name something for are not among them."""
    named = {"conversion", "other", "other-speed", "mlx-vlm", "baseline"}
    assert sum(each.limit for each in REPORT_STEPS if each.name not in named) / 2 < 3600
    assert len({each.name for each in REPORT_STEPS}) == len(REPORT_STEPS)
