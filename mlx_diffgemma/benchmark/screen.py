"""Show the progress of a benchmark on stderr: a bar per kind of work on a terminal, lines elsewhere."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import ExitStack
from typing import TextIO

from mlx_diffgemma.benchmark.results import Attempt
from mlx_diffgemma.benchmark.run import Began, BenchmarkEvent, PrefillTimed, StepsTimed
from mlx_diffgemma.display.bar import Bar
from mlx_diffgemma.display.terminal import is_screen


def with_progress(events: Iterator[BenchmarkEvent], stderr: TextIO, *, quiet: bool) -> Generator[BenchmarkEvent]:
    """Pass `events` on and show what is being done; a terminal is left as it was."""
    with ExitStack() as shown:
        bar, done = None, 0
        for event in events:
            match event:
                case Began() if not quiet:
                    shown.close()
                    bar, done = _begin(event, stderr, shown), 0
                case PrefillTimed() | StepsTimed() | Attempt(last=True) if bar is not None:
                    done += 1
                    bar.show(done)
                case _:
                    pass
            yield event


def _begin(event: Began, stderr: TextIO, shown: ExitStack) -> Bar:
    """Show a kind of work until `shown` is closed."""
    label = f"{event.model}: {event.what}"
    if not is_screen(stderr):
        stderr.write(f"{label}\n")
        stderr.flush()
    return shown.enter_context(Bar(label, event.count, stderr))
