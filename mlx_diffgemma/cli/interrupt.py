"""Ctrl-C during a generation: what is settled by then is an answer too."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from types import FrameType, TracebackType

from mlx_diffgemma.events import BlockCommitted, Denoised, Event
from mlx_diffgemma.text.chat_template import THOUGHT_NAME


class Interrupt:
    """While it is entered, Ctrl-C is noted and acted on between two events.

    So it tears apart neither a frame on the terminal nor a step of the engine. Pressed again, it does not wait for
    the event either.
    """

    def __init__(self) -> None:
        self.noted = False
        self._waiting = False
        self._before = signal.getsignal(signal.SIGINT)

    def __enter__(self) -> Interrupt:
        signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        again, self.noted = self.noted, True
        if again and self._waiting:
            raise KeyboardInterrupt

    def until(self, events: Iterator[Event]) -> Iterator[Event]:
        """`events` up to Ctrl-C, then `settled_part` of the canvas and no Finished."""
        canvas: Denoised | None = None
        while not self.noted and (event := self._next(events)) is not None:
            canvas = event if isinstance(event, Denoised) else None
            yield event
        if isinstance(events, Generator):
            events.close()
        if canvas is not None:
            yield settled_part(canvas)

    def _next(self, events: Iterator[Event]) -> Event | None:
        try:
            self._waiting = True
            return next(events, None)
        except KeyboardInterrupt:
            return None
        finally:
            self._waiting = False


def settled_part(canvas: Denoised) -> BlockCommitted:
    """The positions of an unfinished canvas up to the first one that is not accepted, as if they were a block."""
    length = canvas.accepted.index(False) if False in canvas.accepted else len(canvas.best)
    if canvas.end is not None:
        length = min(length, canvas.end + 1)
    return BlockCommitted(
        block=canvas.block,
        steps=canvas.step,
        tokens=canvas.best[:length],
        last=True,
        text="".join(canvas.pieces[canvas.thought : length]),
        thought="".join(canvas.pieces[: min(canvas.thought, length)]).removeprefix(THOUGHT_NAME),
    )
