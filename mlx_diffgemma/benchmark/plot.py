"""Draw the figures of a benchmark: steps by canvas, steps by prefix, and the seconds of answers."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlx_diffgemma.benchmark.results import Benchmark, figures, short_names
from mlx_diffgemma.device.machine import Machine, caption
from mlx_diffgemma.errors import BenchmarkError, needs_extra
from mlx_diffgemma.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = ("tab:blue", "tab:orange")
"""of the model, and of the baseline"""
_BARS = 0.8
"""Width of all bars of one row, where rows are 1 apart."""
_LETTERS = 90
"""Maximum number of letters that fit side by side below the axis."""


def check_plot_file(file: Path) -> None:
    """Raise BenchmarkError if a picture cannot be drawn or written to `file`; called before anything is measured."""
    try:
        import matplotlib  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise BenchmarkError(needs_extra("--plot", "plot")) from None
    if file.suffix.lower() != ".png":
        raise BenchmarkError(f"the plot must be a .png file, not {file}")
    if not file.absolute().parent.is_dir():
        raise BenchmarkError(f"the plot {file} cannot be written: there is no folder {file.absolute().parent}")


def save_plot(benchmark: Benchmark, machine: Machine, file: Path) -> None:
    """Write the picture, with a panel for everything that was measured. Raises BenchmarkError.

    machine: on which it was measured, today.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps, answers = any(model.steps for model in benchmark.models), any(model.attempts for model in benchmark.models)
    panels: list[Any] = [["canvas", "prefix"]] * steps + [["answers", "answers"]] * answers
    if not panels:
        raise BenchmarkError(f"the plot {file} has nothing to show: neither steps nor answers were measured")
    figure = Figure(figsize=(9, 3.6 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    title = caption([model.loaded.model for model in benchmark.models], machine, datetime.now().astimezone().date())
    figure.suptitle(title, fontsize=8)
    axes = figure.subplot_mosaic(panels)
    if steps:
        _draw_steps(axes["canvas"], benchmark, "canvas")
        _draw_steps(axes["prefix"], benchmark, "prefix")
    if answers:
        _draw_answers(axes["answers"], benchmark)
    try:
        with replacing(file) as temporary:
            figure.savefig(temporary, dpi=120, metadata={"Title": title})
    except OSError as error:
        raise BenchmarkError(f"the plot {file} cannot be written: {error.strerror}") from None


def _draw_steps(axes: Axes, benchmark: Benchmark, by: Literal["canvas", "prefix"]) -> None:
    """Draw medians as a line, and a band around it from the fastest to the slowest."""
    sizes: set[int] = set()
    for model, name, colour in zip(benchmark.models, short_names(benchmark.models), _COLOURS, strict=False):
        diffusion = model.loaded.kind == "diffusion"
        points = model.by_prefix if by == "prefix" else model.by_canvas if diffusion else ()
        if not points:
            continue
        at = [getattr(point, by) for point in points]
        sizes |= set(at)
        step = f"step after {points[0].prefix:,}" if by == "canvas" else f"step of {points[0].canvas}"
        label = f"{name}: {step if diffusion else 'token'}"
        axes.plot(at, [point.median for point in points], color=colour, marker="o", markersize=4, label=label)
        band = [min(point.seconds) for point in points], [max(point.seconds) for point in points]
        axes.fill_between(at, *band, color=colour, alpha=0.2, linewidth=0)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(sizes), [f"{size:,}" for size in sorted(sizes)])
    axes.minorticks_off()
    axes.set(xlabel=f"{by} (tokens)", ylabel="seconds (line: median, band: all)")
    axes.set_ylim(bottom=0, top=1.25 * axes.get_ylim()[1])
    axes.grid(visible=True, alpha=0.2)
    axes.legend(frameon=False, loc="upper left")


def _draw_answers(axes: Axes, benchmark: Benchmark) -> None:
    """Draw a bar up to the median of each row, and a line from there to the 95th percentile."""
    rows = [
        (row, prompts)
        for row, prompts in benchmark.rows.items()
        if any(model.attempts_at(*prompts) for model in benchmark.models)
    ]
    width = _BARS / len(benchmark.models)
    shown = zip(benchmark.models, short_names(benchmark.models), _COLOURS, strict=False)
    for index, (model, name, colour) in enumerate(shown):
        asked = [
            (row, figures(attempts))
            for row, (_, prompts) in enumerate(rows)
            if (attempts := model.attempts_at(*prompts))
        ]
        at = [row - _BARS / 2 + width * (index + 0.5) for row, _ in asked]
        p50, p95 = [found.p50_seconds for _, found in asked], [found.p95_seconds for _, found in asked]
        axes.bar(at, p50, 0.9 * width, color=colour, label=f"{name}: p50, line to p95")
        axes.vlines(at, p50, p95, color="0.2", linewidth=1.5)
    names = [name for name, _ in rows]
    crowded = sum(map(len, names)) > _LETTERS
    axes.set_xticks(range(len(names)), names, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    axes.set(ylabel="seconds per answer", xlim=(-0.5, len(names) - 0.5))
    axes.grid(visible=True, axis="y", alpha=0.2)
    axes.set_ylim(bottom=0, top=1.2 * axes.get_ylim()[1])
    axes.legend(frameon=False, loc="upper right", ncols=2)
