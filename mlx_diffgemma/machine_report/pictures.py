"""Pictures of a report: seconds of a step by prefix and canvas, and steps and seconds by their limit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_diffgemma.files import replacing
from mlx_diffgemma.machine_report.page import model_of, step_points, weights
from mlx_diffgemma.machine_report.predictions import predictions
from mlx_diffgemma.machine_report.record import ReportRecord

_LIMITS = {"answers": 48, "steps-24": 24, "steps-16": 16}


def draw_report(record: ReportRecord, folder: Path) -> list[Path]:
    """Draw what was measured, and return the files; none without matplotlib. Raises OSError."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    drawn: list[Path] = []
    for name, paint in (("steps", _draw_steps), ("limits", _draw_limits)):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        if paint(figure, record):
            with replacing(folder / f"{name}.png") as temporary:
                figure.savefig(temporary, dpi=110)
            drawn.append(folder / f"{name}.png")
    return drawn


def _by_limit(record: ReportRecord) -> dict[int, Mapping[str, Any]]:
    """Return the figures of all answers by the limit of steps."""
    found = {limit: model_of(record.result(name)) for name, limit in _LIMITS.items()}
    return {limit: model["all"] for limit, model in found.items() if model is not None and model.get("all")}


def _draw_steps(figure: Any, record: ReportRecord) -> bool:
    """Draw steps by prefix for the longest canvas, and by canvas after each prefix; return whether there are any."""
    points = step_points(record)
    if not points:
        return False
    estimates = predictions(str(record.machine.get("device", "")), weights(record))
    longest = max(point["canvas"] for point in points)
    left, right = figure.subplots(1, 2)
    for axes, key, other in ((left, "prefix", "canvas"), (right, "canvas", "prefix")):
        for fixed in sorted({point[other] for point in points}):
            line = sorted((point for point in points if point[other] == fixed), key=lambda point: point[key])
            if len({point[key] for point in line}) < 2 or (key == "prefix" and fixed != longest):
                continue
            at = [point[key] for point in line]
            label = f"{other} {fixed:,}"
            (drawn,) = axes.plot(at, [1000 * point["seconds_per_step"] for point in line], marker="o", label=label)
            expected = [(point[key], estimates.seconds(point["canvas"], point["prefix"])) for point in line]
            known = [(size, 1000 * seconds) for size, seconds in expected if seconds is not None]
            if known:
                axes.plot(
                    *zip(*known, strict=True), linestyle=":", color=drawn.get_color(), label=f"{label}, estimated"
                )
        axes.set(xlabel=f"{key} (tokens)", ylabel="ms per step")
        axes.set_xscale("log", base=2)
        sizes = sorted({point[key] for point in points})
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
        axes.minorticks_off()
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, alpha=0.2)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8)
    return True


def _draw_limits(figure: Any, record: ReportRecord) -> bool:
    """Draw accepted answers, steps and seconds for each limit of steps, if there are any."""
    limits = _by_limit(record)
    if not limits:
        return False
    names = [str(limit) for limit in sorted(limits)]
    values = [limits[limit] for limit in sorted(limits)]
    panels = (
        ("accepted, %", [100 * each["acceptance"] for each in values]),
        ("steps per canvas", [each["steps_per_canvas"] or 0 for each in values]),
        ("seconds, median", [each["p50_seconds"] for each in values]),
    )
    for axes, (label, heights) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        axes.bar(names, heights, color="tab:blue")
        axes.set(xlabel="limit of steps", ylabel=label)
        axes.set_ylim(bottom=0)
        axes.grid(visible=True, axis="y", alpha=0.2)
    return True
