"""What was found, as a picture: steps by canvas, steps by prefix, and the time that answers take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mlx_diffgemma.benchmark.results import Benchmark, figures, short_names
from mlx_diffgemma.errors import BenchmarkError
from mlx_diffgemma.files import replacing

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("tab:blue", "tab:orange")
"""Of the model, and of the baseline."""
ROOM = 0.8
"""What the bars of one prompt fill of its place on the axis."""
LETTERS = 90
"""More of them do not stand side by side below the axis."""


def check_file(file: Path) -> None:
    """Raise BenchmarkError where a picture cannot be written to `file`: before anything is measured for it."""
    if file.suffix.lower() != ".png":
        raise BenchmarkError(f"the plot must be a .png file, not {file}")
    if not file.absolute().parent.is_dir():
        raise BenchmarkError(f"the plot {file} cannot be written: there is no folder {file.absolute().parent}")


def draw(benchmark: Benchmark, file: Path) -> None:
    """Write the picture; what was not measured has no panel. Raises BenchmarkError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    steps, answers = any(model.steps for model in benchmark.models), any(model.attempts for model in benchmark.models)
    panels: list[Any] = [["canvas", "prefix"]] * steps + [["answers", "answers"]] * answers
    if not panels:
        raise BenchmarkError(f"the plot {file} has nothing to show: neither steps nor answers were measured")
    figure = Figure(figsize=(9, 3.6 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplot_mosaic(panels)
    if steps:
        _draw_steps(axes["canvas"], benchmark, "canvas")
        _draw_steps(axes["prefix"], benchmark, "prefix")
    if answers:
        _draw_answers(axes["answers"], benchmark)
    try:
        with replacing(file) as beside:
            figure.savefig(beside, dpi=120)
    except OSError as error:
        raise BenchmarkError(f"the plot {file} cannot be written: {error.strerror}") from None


def _draw_steps(axes: Axes, benchmark: Benchmark, by: Literal["canvas", "prefix"]) -> None:
    """Medians as a line, the fastest and the slowest as a band around it."""
    sizes: set[int] = set()
    for model, name, colour in zip(benchmark.models, short_names(benchmark.models), COLOURS, strict=False):
        diffusion = model.loaded.kind == "diffusion"
        points = model.by_prefix if by == "prefix" else model.by_canvas if diffusion else ()
        if not points:
            continue
        at = [getattr(point, by) for point in points]
        sizes |= set(at)
        step = f"step behind {points[0].prefix:,}" if by == "canvas" else f"step of {points[0].canvas}"
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
    """A bar up to the median of each prompt, and a line from there to the 95th percentile."""
    prompts = [name for name in benchmark.prompts if any(model.attempts_at(name) for model in benchmark.models)]
    width = ROOM / len(benchmark.models)
    shown = zip(benchmark.models, short_names(benchmark.models), COLOURS, strict=False)
    for place, (model, name, colour) in enumerate(shown):
        asked = [
            (at, figures(attempts)) for at, prompt in enumerate(prompts) if (attempts := model.attempts_at(prompt))
        ]
        at = [number - ROOM / 2 + width * (place + 0.5) for number, _ in asked]
        p50, p95 = [found.p50_seconds for _, found in asked], [found.p95_seconds for _, found in asked]
        axes.bar(at, p50, 0.9 * width, color=colour, label=f"{name}: p50, line to p95")
        axes.vlines(at, p50, p95, color="0.2", linewidth=1.5)
    crowded = sum(map(len, prompts)) > LETTERS
    axes.set_xticks(range(len(prompts)), prompts, rotation=30 if crowded else 0, ha="right" if crowded else "center")
    axes.set(ylabel="seconds per answer", xlim=(-0.5, len(prompts) - 0.5))
    axes.grid(visible=True, axis="y", alpha=0.2)
    axes.set_ylim(bottom=0, top=1.2 * axes.get_ylim()[1])
    axes.legend(frameon=False, loc="upper right", ncols=2)
