"""Lines of a report on steps that have one result each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from xml.etree import ElementTree

from mlx_diffgemma.machine_report.record import ReportRecord, StepResult


def check_lines(record: ReportRecord) -> list[str]:
    """Return a line for every such step that has a result, in the order of the table below."""
    return [
        f"- {line}"
        for name, words in _LINES.items()
        if record.result(name) is not None and (line := words(record.steps[name], record))
    ]


def _tests(outcome: StepResult, _: ReportRecord) -> str:
    return f"tests that compare numbers, without TF32: {_counted(outcome.result)}"


def _tf32(outcome: StepResult, _: ReportRecord) -> str:
    return f"the same with TF32 where the device has it: {_counted(outcome.result)}"


def _counted(report: str) -> str:
    """Say how many tests of a JUnit report passed, and which failed."""
    try:
        cases = list(ElementTree.fromstring(report).iter("testcase"))
    except ElementTree.ParseError:
        return "no report"
    failed = [
        str(case.get("name")) for case in cases if any(case.find(tag) is not None for tag in ("failure", "error"))
    ]
    named = f": {', '.join(failed[:5])}{' ...' if len(failed) > 5 else ''}" if failed else ""
    return f"{len(cases) - len(failed)} passed, {len(failed)} failed{named}"


def _conversion(outcome: StepResult, _: ReportRecord) -> str:
    return f"conversion to 4 bits: {outcome.seconds:,.0f} s, most resident memory {outcome.peak_memory / 1e9:.2f} GB"


def _attention(outcome: StepResult, _: ReportRecord) -> str:
    found = outcome.result
    ratio = found["fused_seconds"] / found["unfused_seconds"]
    return f"fused attention in sliding layers: a step takes {ratio:.2f} of the time without"


def _buffers(outcome: StepResult, record: ReportRecord) -> str:
    own, ours = (_step(each) for each in (outcome.result, record.result("canvases")))
    return (
        ""
        if own is None or ours is None
        else f"long command buffers: a step takes {ours / own:.2f} of the time with MLX's own"
    )


def _step(result: Any) -> float | None:
    """Return the seconds of a step on the longest canvas of a benchmark's first model."""
    points: list[dict[str, float]] = result["models"][0]["steps"] if result and result.get("models") else []
    longest = max((point["canvas"] for point in points), default=0)
    return next((point["seconds_per_step"] for point in points if point["canvas"] == longest), None)


def _other_speed(outcome: StepResult, record: ReportRecord) -> str:
    other, first = (_step(each) for each in (outcome.result, record.result("canvases")))
    return (
        "" if other is None or first is None else f"the other conversion: a step takes {other / first:.2f} of the time"
    )


def _batch(outcome: StepResult, _: ReportRecord) -> str:
    found = outcome.result
    ratio = found["alone_seconds"] / found["together_seconds"]
    return f"eight answers together: {ratio:.2f} times as fast as one by one, {found['same']} of 8 equal"


def _kept_prefix(outcome: StepResult, _: ReportRecord) -> str:
    found = outcome.result
    return (
        f"an answer after a kept prefix: {'the same' if found['same'] else 'another'} text, "
        f"{found['read_again']} of {found['prompt_tokens']} tokens read again"
    )


def _constraint(outcome: StepResult, _: ReportRecord) -> str:
    found = outcome.result
    return (
        f"a schema of {found['fields']} fields: {1000 * found['schema_seconds']:,.0f} ms per step, "
        f"{1000 * found['free_seconds']:,.0f} free"
    )


def _interrupt(outcome: StepResult, _: ReportRecord) -> str:
    found = outcome.result
    return (
        f"Ctrl-C noticed after {1000 * found['answered_seconds']:,.0f} ms, a step takes "
        f"{1000 * found['step_seconds']:,.0f} ms"
    )


def _endurance(outcome: StepResult, _: ReportRecord) -> str:
    found: Mapping[str, Any] = outcome.result
    slower = found["late_seconds"] / found["early_seconds"]
    grown = (found["late_memory"] - found["early_memory"]) / 1e6
    return (
        f"{found['answers']} answers in one process: the last ten take {slower:.2f} of the time of early ones, memory "
        f"{grown:+.1f} MB, most resident {found['peak_resident'] / 1e9:.2f} GB"
    )


def _mlx_vlm(outcome: StepResult, _: ReportRecord) -> str:
    found = outcome.result
    rows = found.get("rows", []) if isinstance(found, dict) else []
    ratios = [f"{row['what']}, {row['unit']} {row['ratio']:.2f}" for row in rows]
    return f"of mlx-vlm's, on a middle-sized model of random weights: {'; '.join(ratios) or 'nothing'}"


_LINES: Mapping[str, Callable[[StepResult, ReportRecord], str]] = {
    "tests": _tests,
    "tests-tf32": _tf32,
    "conversion": _conversion,
    "attention": _attention,
    "command-buffers": _buffers,
    "other-speed": _other_speed,
    "batch": _batch,
    "kept-prefix": _kept_prefix,
    "constraint": _constraint,
    "interrupt": _interrupt,
    "endurance": _endurance,
    "mlx-vlm": _mlx_vlm,
}
