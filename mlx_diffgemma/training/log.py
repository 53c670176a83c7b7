"""The log of a training: log.jsonl, one event per line, and loss.png, the picture of it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, cast

from mlx_diffgemma.errors import TrainingError
from mlx_diffgemma.files import replacing
from mlx_diffgemma.training.loop import Evaluated, Stepped, TrainingEvent

NAME, PICTURE = "log.jsonl", "loss.png"
WINDOW = 20
"""Steps that a drawn training loss is the mean of, about; fewer where there are few."""
Record: TypeAlias = dict[str, Any]


class Log:
    """An open log. The records of steps that a resumed training does again are dropped."""

    def __init__(self, folder: Path, step: int) -> None:
        """Go on behind `step`. Raises TrainingError where the file cannot be written."""
        self.path = folder / NAME
        self.records = [record for record in read_log(self.path) if record["step"] <= step]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.path) as beside:
                beside.write_text("".join(map(_line, self.records)), encoding="utf-8")
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise TrainingError(f"the log {self.path} cannot be written: {error.strerror}") from None

    def add(self, event: TrainingEvent) -> None:
        """Append a step or an evaluation; nothing else is worth a line."""
        match event:
            case Stepped():
                record = {"event": "step", **dataclasses.asdict(event)}
            case Evaluated():
                record = {"event": "evaluation", **dataclasses.asdict(event)}
            case _:
                return
        self.records.append(record)
        self._file.write(_line(record))
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_log(path: Path) -> list[Record]:
    """The records of a log, none where there is no file; a last line that was cut off is left out."""
    if not path.exists():
        return []
    records: list[Record] = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            records.append(cast("Record", json.loads(line)))
        except ValueError:
            break
    return records


def draw(records: Sequence[Record], file: Path) -> None:
    """Write a picture of the losses over the steps: training, smoothed, and held out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, MaxNLocator

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
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
    # Numbers as they are read; those between the powers of ten only where there is room.
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.4)))
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    axes.grid(visible=True, which="both", alpha=0.2)
    axes.legend(frameon=False)
    with replacing(file) as beside:
        figure.savefig(beside, dpi=120)


def _smooth(values: Sequence[float]) -> list[float]:
    """Exponential moving average, corrected for its beginning."""
    past = 1 - 1 / max(1, min(WINDOW, len(values) / WINDOW))
    smoothed: list[float] = []
    total = weight = 0.0
    for value in values:
        total = past * total + (1 - past) * value
        weight = past * weight + (1 - past)
        smoothed.append(total / weight)
    return smoothed


def _line(record: Record) -> str:
    return json.dumps(record) + "\n"
