"""A training on stderr: a bar with loss, speed and time left, and one line per evaluation above it."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import TextIO

from mlx_diffgemma.display.bar import Bar
from mlx_diffgemma.display.terminal import is_screen
from mlx_diffgemma.training.loop import Evaluated, Stepped, TrainingEvent

_LINES = 20
"""Lines of progress that a whole training prints where there is no terminal for a bar."""
_RECENT = 10
"""About so many steps are averaged in the loss and the speed that are shown."""


class Screen:
    """Draws the events of one training."""

    def __init__(self, bar: Bar, stderr: TextIO, steps: int, *, quiet: bool) -> None:
        self._bar = bar
        self._stderr = stderr
        self._quiet = quiet
        self._steps = steps
        self._shown = 0
        self._loss = self._speed = 0.0

    def show(self, event: TrainingEvent) -> None:
        """Draw one event."""
        match event:
            case Stepped():
                self._stepped(event)
            case Evaluated():
                answers = f"   answers {event.right}/{event.asked}" if event.asked else ""
                self.line(
                    f"step {event.step:>6}   held out: canvas {event.canvas:.4f}  causal {event.causal:.4f}{answers}"
                )
            case _:
                pass

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        if not self._quiet:
            with self._bar.hidden():
                self._stderr.write(f"{text}\n")
                self._stderr.flush()

    def _stepped(self, event: Stepped) -> None:
        self._shown += 1
        self._loss += (event.loss - self._loss) / min(self._shown, _RECENT)
        # The first step includes compilation, so the second one replaces its speed.
        self._speed += (event.tokens / event.seconds - self._speed) / min(max(self._shown - 1, 1), _RECENT)
        state = f"loss {self._loss:.4f}  {self._speed:,.0f} tokens/s"
        self._bar.show(event.step, state)
        if not is_screen(self._stderr) and event.step % max(1, self._steps // _LINES) == 0:
            self.line(f"step {event.step:>6}   {state}")


@contextmanager
def screen(stderr: TextIO, steps: int, *, done: int, quiet: bool) -> Generator[Screen]:
    """Show a training of `steps` steps, of which `done` are done already; only a terminal gets a bar."""
    with Bar("the first step takes longer", steps, stderr, done=done, shown=not quiet) as bar:
        yield Screen(bar, stderr, steps, quiet=quiet)
