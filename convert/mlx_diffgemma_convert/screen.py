"""What the programs draw: a progress bar on stderr, and the closing table on stdout."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from rich.box import SIMPLE_HEAD
from rich.table import Table

from mlx_diffgemma.display.bar import Bar
from mlx_diffgemma_convert.output import ChunkWritten, WriteEvent, WriteFinished, WriteStarted
from mlx_diffgemma_convert.summary import TOTAL, readable_size

_MEGABYTE = 1_000_000


def show_progress(events: Iterable[WriteEvent], stderr: TextIO, *, quiet: bool) -> WriteFinished:
    """Run the work to its end and return its result; only a terminal gets a bar."""
    steps = iter(events)
    # Warnings are printed before the first event: the bar starts after it, so that it cannot overwrite them.
    started = next(steps)
    assert isinstance(started, WriteStarted), "the first event is WriteStarted"
    finished: WriteFinished | None = None
    done = started.done_bytes
    total = -(-started.source_bytes // _MEGABYTE)
    with Bar("writing", total, stderr, done=done // _MEGABYTE, shown=not quiet, unit=" MB") as bar:
        for event in steps:
            if isinstance(event, ChunkWritten):
                done += event.source_bytes
                bar.show(done // _MEGABYTE)
            elif isinstance(event, WriteFinished):
                finished = event
    assert finished is not None, "the last event is WriteFinished"
    return finished


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
