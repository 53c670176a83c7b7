"""Show the progress of a benchmark on stderr: a bar per kind of work on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from contextlib import ExitStack

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mlx_diffgemma.benchmark.results import Attempt
from mlx_diffgemma.benchmark.run import Began, BenchmarkEvent, PrefillTimed, StepsTimed
from mlx_diffgemma.display.terminal import passing_note


def with_progress(events: Iterator[BenchmarkEvent], *, console: Console, quiet: bool) -> Generator[BenchmarkEvent]:
    """Pass `events` on and show what is being done; a terminal is left as it was."""
    with ExitStack() as shown:
        bar: Progress | None = None
        for event in events:
            match event:
                case Began() if not quiet:
                    shown.close()
                    bar = _begin(event, console, shown)
                case PrefillTimed() | StepsTimed() | Attempt(last=True) if bar is not None:
                    bar.advance(bar.task_ids[0])
                case _:
                    pass
            yield event


def _begin(event: Began, console: Console, shown: ExitStack) -> Progress | None:
    """Show a kind of work until `shown` is closed."""
    label = f"{event.model}: {event.what}"
    if not console.is_terminal:
        console.print(label, highlight=False, markup=False)
        return None
    if event.count == 0:
        # Loading may print warnings: these would run into a bar, but go over a note.
        shown.enter_context(passing_note(label, sys.stderr))
        return None
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    bar = shown.enter_context(Progress(*columns, console=console, transient=True))
    bar.add_task(escape(label), total=event.count)
    return bar
