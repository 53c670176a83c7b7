"""A progress bar for batches."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress(total: int, stderr: TextIO | None) -> Generator[Callable[[int], None], None, None]:
    """Show a bar for `total` answers on a terminal; yield a function that takes the count of finished answers."""
    if stderr is None or not stderr.isatty():
        yield lambda _: None
        return
    columns = (TextColumn("answers"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(file=stderr), transient=True) as bar:
        task = bar.add_task("", total=total)
        yield lambda done: bar.update(task, completed=done)
