"""What the programs draw: a progress bar on stderr, and the closing table on stdout."""

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

from mlx_diffgemma_convert.output import ChunkWritten, WriteEvent, WriteFinished, WriteStarted
from mlx_diffgemma_convert.summary import TOTAL, readable_size


def show_progress(events: Iterable[WriteEvent], *, console: Console, quiet: bool) -> WriteFinished:
    """Run the work to its end and return its result. The progress bar is hidden if `console` is not a terminal."""
    steps = iter(events)
    # Warnings are printed before the first event: the bar starts after it, so that it cannot overwrite them.
    started = next(steps)
    assert isinstance(started, WriteStarted), "the first event is WriteStarted"
    finished: WriteFinished | None = None
    with _bar(console, hidden=quiet or not console.is_terminal) as bar:
        task = bar.add_task("writing", total=started.source_bytes, completed=started.done_bytes)
        for event in steps:
            if isinstance(event, ChunkWritten):
                bar.advance(task, event.source_bytes)
            elif isinstance(event, WriteFinished):
                finished = event
    assert finished is not None, "the last event is WriteFinished"
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


def summary_table(finished: WriteFinished) -> Table:
    """Return the closing table: bytes, bits per weight and error of every class, then the total."""
    table = Table(box=SIMPLE_HEAD, caption=finished.note, caption_justify="left")
    table.add_column("class", no_wrap=True)
    table.add_column("packing", no_wrap=True)
    for heading in ("size", "bits/weight", "largest error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for summary in finished.summaries:
        table.add_row(
            summary.tensor_class,
            summary.packing,
            readable_size(summary.nbytes),
            f"{summary.bits_per_weight:.2f}",
            "" if summary.error is None else f"{summary.error:.4f}",
            style="bold" if summary.tensor_class == TOTAL else None,
        )
    return table
