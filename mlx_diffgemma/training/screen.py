"""What a training shows on stderr: a bar with loss, speed and time left, and a line that stays per evaluation."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mlx_diffgemma.training.loop import Evaluated, Stepped, TrainingEvent

Item = TypeVar("Item")
LINES = 20
"""Lines of progress in all where there is no terminal to draw a bar on."""
RECENT = 10
"""Steps that the loss and the speed shown are the mean of, about."""


def counted(items: Iterable[Item], total: int, *, console: Console, quiet: bool) -> Iterator[Item]:
    """Pass `items` on behind a bar that goes away."""
    bar = Progress(
        TextColumn("reading the data"), BarColumn(bar_width=24), MofNCompleteColumn(), console=console, transient=True,
        disable=quiet or not console.is_terminal,
    )  # fmt: skip
    with bar:
        yield from bar.track(items, total=total)


class Screen:
    """Draws the events of one training."""

    def __init__(self, console: Console, bar: Progress, steps: int, done: int) -> None:
        self._console = console
        self._bar = bar
        self._steps = steps
        self._task = bar.add_task("the first step takes longer", total=steps, completed=done)
        self._shown = 0
        self._loss = self._speed = 0.0

    def show(self, event: TrainingEvent) -> None:
        """Draw one event."""
        match event:
            case Stepped():
                self._stepped(event)
            case Evaluated():
                answers = f"   answers {event.right}/{event.asked}" if event.asked else ""
                self._console.print(
                    f"step {event.step:>6}   held out: canvas {event.canvas:.4f}  causal {event.causal:.4f}{answers}",
                    highlight=False,
                )
            case _:
                pass

    def _stepped(self, event: Stepped) -> None:
        self._shown += 1
        self._loss += (event.loss - self._loss) / min(self._shown, RECENT)
        # The first step compiles too: its speed is forgotten.
        self._speed += (event.tokens / event.seconds - self._speed) / min(max(self._shown - 1, 1), RECENT)
        state = f"loss {self._loss:.4f}  {self._speed:,.0f} tokens/s"
        self._bar.update(self._task, completed=event.step, description=state)
        if not self._console.is_terminal and event.step % max(1, self._steps // LINES) == 0:
            self._console.print(f"step {event.step:>6}   {state}", highlight=False)


@contextmanager
def screen(console: Console, steps: int, *, done: int, quiet: bool) -> Generator[Screen]:
    """A screen for `steps` steps, of which some are `done` already; on a terminal with its bar."""
    columns = (
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        yield Screen(console, bar, steps, done)
