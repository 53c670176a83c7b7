"""loss.png: the losses of a training over its steps, drawn with matplotlib (the extra `plot`)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from mlx_diffgemma.errors import TrainingError, needs_extra
from mlx_diffgemma.files import replacing
from mlx_diffgemma.training.log import Record

_logger = logging.getLogger("mlx_diffgemma")

PICTURE = "loss.png"
_SMOOTHED_STEPS = 20
"""About so many steps are averaged in the smoothed loss of a training; fewer if it has few."""


def can_draw_losses() -> bool:
    """Return whether matplotlib is there; warn in one line if it is not."""
    try:
        import_module("matplotlib.figure")
    except ImportError:
        _logger.warning("%s", needs_extra(f"the training goes on without {PICTURE}: drawing it", "plot"))
        return False
    return True


def draw_losses(records: Sequence[Record], title: str, path: Path) -> None:
    """Write a picture of the losses over the steps: of the training, raw and smoothed, and held out.

    Raises TrainingError.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, MaxNLocator

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=8)
    axes = figure.subplots()
    steps = [record for record in records if record["event"] == "step"]
    held_out = [record for record in records if record["event"] == "evaluation"]
    for name, colour in (("canvas", "tab:blue"), ("causal", "tab:orange")):
        at = [record["step"] for record in steps]
        axes.plot(at, [record[name] for record in steps], color=colour, alpha=0.3, linewidth=0.6)
        axes.plot(at, _smooth([record[name] for record in steps]), color=colour, label=f"{name}, training")
        if held_out:
            axes.plot(
                [record["step"] for record in held_out],
                [record[name] for record in held_out],
                color=colour,
                marker="o",
                markersize=3,
                linestyle="--",
                linewidth=1,
                label=f"{name}, held out",
            )
    axes.set(xlabel="step", ylabel="cross-entropy (nats)", yscale="log")
    # Plain numbers, not powers of ten; numbers between powers of ten only where they fit.
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.4)))
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(frameon=False)
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=120, metadata={"Title": title})
    except OSError as error:
        raise TrainingError(f"{path} cannot be written: {error.strerror or error}") from None


def _smooth(values: Sequence[float]) -> list[float]:
    """Return an exponential moving average, corrected for its start."""
    past = 1 - 1 / max(1, min(_SMOOTHED_STEPS, len(values) / _SMOOTHED_STEPS))
    smoothed: list[float] = []
    total = weight = 0.0
    for value in values:
        total = past * total + (1 - past) * value
        weight = past * weight + (1 - past)
        smoothed.append(total / weight)
    return smoothed
