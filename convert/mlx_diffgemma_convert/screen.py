"""What the program shows: a progress bar on stderr while it works, the table of classes on stdout at the end."""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from mlx_diffgemma_convert.output import Advanced, Event, Finished, Planned
from mlx_diffgemma_convert.summary import size


def watch(events: Iterable[Event], *, console: Console, quiet: bool) -> Finished:
    """Run the work to its end behind a progress bar, return what came of it. No bar where `console` is no terminal."""
    steps = iter(events)
    # Warnings are printed until then, the bar would run into them.
    planned = next(steps)
    assert isinstance(planned, Planned), "the plan comes first"
    finished: Finished | None = None
    with _bar(console, hidden=quiet or not console.is_terminal) as bar:
        task = bar.add_task("writing", total=planned.source_bytes, completed=planned.done_bytes)
        for event in steps:
            if isinstance(event, Advanced):
                bar.advance(task, event.source_bytes)
            elif isinstance(event, Finished):
                finished = event
    assert finished is not None, "the result comes last"
    return finished


def _bar(console: Console, *, hidden: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    return Progress(*columns, console=console, disable=hidden)


def table(finished: Finished) -> Table:
    """The closing table: bytes, bits per weight and error of every class, then the total."""
    result = Table(box=SIMPLE_HEAD, caption=finished.note, caption_justify="left")
    result.add_column("class", no_wrap=True)
    result.add_column("packing", no_wrap=True)
    for heading in ("size", "bits/weight", "largest error"):
        result.add_column(heading, justify="right", no_wrap=True)
    for line in finished.lines:
        result.add_row(
            line.kind,
            line.packing,
            size(line.nbytes),
            f"{line.bits_per_weight:.2f}",
            "" if line.error is None else f"{line.error:.4f}",
            style="bold" if line.kind == "total" else None,
        )
    return result
