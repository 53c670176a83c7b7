"""A training on stderr: a bar with loss, speed and time left, and one line per evaluation above it."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mlx_diffgemma.training.loop import Evaluated, Stepped, TrainingEvent

_Item = TypeVar("_Item")
_LINES = 20
"""Lines of progress that a whole training prints where there is no terminal for a bar."""
_RECENT = 10
"""About so many steps are averaged in the loss and the speed that are shown."""


def counted(items: Iterable[_Item], total: int, *, console: Console, quiet: bool) -> Iterator[_Item]:
    """Pass `items` on and count them in a bar, which is erased at the end."""
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
        self._loss += (event.loss - self._loss) / min(self._shown, _RECENT)
        # The first step includes compilation, so the second one replaces its speed.
        self._speed += (event.tokens / event.seconds - self._speed) / min(max(self._shown - 1, 1), _RECENT)
        state = f"loss {self._loss:.4f}  {self._speed:,.0f} tokens/s"
        self._bar.update(self._task, completed=event.step, description=state)
        if not self._console.is_terminal and event.step % max(1, self._steps // _LINES) == 0:
            self._console.print(f"step {event.step:>6}   {state}", highlight=False)


@contextmanager
def screen(console: Console, steps: int, *, done: int, quiet: bool) -> Generator[Screen]:
    """Show a training of `steps` steps, of which `done` are done already; only a terminal gets a bar."""
    columns = (
        MofNCompleteColumn(),
        BarColumn(bar_width=24),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
        TextColumn("left"),
    )
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal) as bar:
        yield Screen(console, bar, steps, done)
