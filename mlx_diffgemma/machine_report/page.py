"""The page report.md: one page with the machine, the figures beside what was estimated, and what did not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlx_diffgemma.machine_report.checks import check_lines
from mlx_diffgemma.machine_report.predictions import Predictions, predictions
from mlx_diffgemma.machine_report.record import ReportRecord
from mlx_diffgemma.machine_report.steps import REPORT_STEPS

_ANSWER_ROWS = (
    ("answers", "at most 48 steps"),
    ("steps-24", "at most 24 steps"),
    ("steps-16", "at most 16 steps"),
    ("unsettled", "unsettled rows alone"),
    ("causal", "causal"),
    ("speculative", "speculative"),
    ("other", "the other conversion"),
)
_LONG = (8192, 32_768)
"""Prefixes whose memory is shown."""


def page(record: ReportRecord, machine_line: str, pictures: Sequence[Path]) -> str:
    """Return the text of the page. machine_line: the machine in one line; pictures: in the folder of the page."""
    estimates = predictions(str(record.machine.get("device", "")), weights(record))
    sections = [
        [
            "# DiffusionGemma on one machine",
            "",
            f"{machine_line}.",
            "",
            f"Model: `{record.model}`. Begun {record.begun}.",
        ],
        _speed(record, estimates),
        [f"![{picture.stem}]({picture.name})" for picture in pictures],
        _answers(record, estimates),
        _memory(record),
        _section("What else was looked at", check_lines(record)),
        _section("What did not run to its end", _missing(record)),
        _estimates(estimates),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def weights(record: ReportRecord) -> int | None:
    """Return the bytes of the model's weights, None if they are not known."""
    model = model_of(record.result("speed"))
    return None if model is None else model["weights_bytes"]


def model_of(result: Any, index: int = 0) -> Mapping[str, Any] | None:
    """Return what a benchmark measured of one of its models, None if it measured nothing."""
    models = result.get("models", []) if isinstance(result, dict) else []
    return models[index] if len(models) > index else None


def step_points(record: ReportRecord) -> list[Mapping[str, Any]]:
    """Return the timed steps, one for each canvas and prefix, in their order."""
    points = {
        (point["canvas"], point["prefix"]): point
        for name in ("speed", "canvases")
        for point in (model_of(record.result(name)) or {}).get("steps", [])
    }
    return [points[key] for key in sorted(points)]


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines] if lines else []


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [heads, ["---"] * len(heads), *rows]
    return [f"| {' | '.join(line)} |" for line in lines] if rows else []


def _speed(record: ReportRecord, estimates: Predictions) -> list[str]:
    model = model_of(record.result("speed"))
    if model is None:
        return []
    rows = [_step_row(point, estimates) for point in step_points(record)]
    prefills = [[f"{each['tokens']:,}", f"{each['tokens_per_second']:,.1f}"] for each in model["prefill"]]
    steps = _table(["canvas", "after", "ms per step", "estimated", "measured / estimated"], rows)
    return [
        *_section("Speed", steps),
        "",
        *_table(["prefill of", "tokens per second"], prefills),
    ]


def _step_row(point: Mapping[str, Any], estimates: Predictions) -> list[str]:
    seconds, estimated = point["seconds_per_step"], estimates.seconds(point["canvas"], point["prefix"])
    beside = ["–", "–"] if estimated is None else [f"{1000 * estimated:,.0f}", f"{seconds / estimated:.2f}"]
    return [str(point["canvas"]), f"{point['prefix']:,}", f"{1000 * seconds:,.1f}", *beside]


def _answers(record: ReportRecord, estimates: Predictions) -> list[str]:
    found = [(name, title, model_of(record.result(name))) for name, title in _ANSWER_ROWS]
    found.append(("baseline", "autoregressive", model_of(record.result("baseline"), 1)))
    all_of = {name: model["all"] for name, _, model in found if model is not None and model.get("all")}
    rows = [
        _answer_row(title, all_of[name], all_of.get("answers"), estimates.ratios.get(name))
        for name, title, _ in found
        if name in all_of
    ]
    heads = ["", "accepted", "steps/canvas", "tokens/forward", "tok/s", "p50 s", "times as fast", "estimated"]
    return _section("Answers", _table(heads, rows))


def _answer_row(
    title: str, figures: Mapping[str, Any], first: Mapping[str, Any] | None, estimated: float | None
) -> list[str]:
    steps = figures["steps_per_canvas"]
    faster = "–" if first is None else f"{first['p50_seconds'] / figures['p50_seconds']:.2f}"
    return [
        title,
        f"{figures['accepted']}/{figures['answers']}",
        "–" if steps is None else f"{steps:.1f}",
        f"{figures['tokens_per_forward']:.1f}",
        f"{figures['tokens_per_second']:.1f}",
        f"{figures['p50_seconds']:.2f}",
        faster,
        "–" if estimated is None else f"{estimated:.2f}",
    ]


def _memory(record: ReportRecord) -> list[str]:
    model = model_of(record.result("speed"))
    if model is None:
        return []
    lines = [f"- weights {_gigabytes(model['weights_bytes'])}, loaded in {model['load_seconds']:.1f} s"]
    for kind, points, tokens in (("prefill", model["prefill"], "tokens"), ("step", model["steps"], "prefix")):
        longest = max((point.get("canvas", 0) for point in points), default=0)
        lines += [
            f"- most memory of a {kind} {'of' if kind == 'prefill' else 'after'} {point[tokens]:,} tokens: "
            f"{_gigabytes(point['peak_memory'])}"
            for point in points
            if point[tokens] in _LONG and point.get("canvas", 0) == longest
        ]
    return _section("Memory", lines)


def _gigabytes(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB"


def _missing(record: ReportRecord) -> list[str]:
    lines: list[str] = []
    for step in REPORT_STEPS:
        outcome = record.steps.get(step.name)
        if outcome is None:
            lines.append(f"- {step.title}: not begun")
        elif outcome.state != "done":
            lines.append(f"- {step.title}: {outcome.state}{f': {outcome.reason}' if outcome.reason else ''}")
    return lines


def _estimates(estimates: Predictions) -> list[str]:
    if estimates.chip is None:
        return ["There is no estimate for this chip and this model to compare with."]
    return [f"Estimated for {estimates.chip} on {estimates.date}. {estimates.source} {' '.join(estimates.notes)}"]
