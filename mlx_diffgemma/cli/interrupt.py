"""Ctrl-C during a generation: what has been accepted until then is an answer too."""

from __future__ import annotations

import signal
from collections.abc import Generator, Iterator
from types import FrameType, TracebackType

from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event


class Interrupt:
    """A context in which Ctrl-C is noted, and acted on between two events.

    So it interrupts neither the drawing of a frame nor a step of the engine. A second Ctrl-C does not wait for the next
    event.
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
        """Yield `events` until Ctrl-C, then the `accepted_part` of the unfinished canvas, and no Finished.

        Text that was held back because a stop string might begin with it belongs to that part.
        """
        before: Event | None = None
        while not self.noted and (event := self._next(events)) is not None:
            # Between two canvases, the last block says what is held back.
            before = before if isinstance(event, CanvasStarted) else event
            yield event
        if isinstance(events, Generator):
            events.close()
        match before:
            case Denoised():
                yield accepted_part(before)
            case BlockCommitted(block=block, undecided=undecided) if undecided:
                yield BlockCommitted(block=block + 1, steps=0, tokens=(), last=True, text=undecided)
            case _:
                pass

    def _next(self, events: Iterator[Event]) -> Event | None:
        try:
            self._waiting = True
            return next(events, None)
        except KeyboardInterrupt:
            return None
        finally:
            self._waiting = False


def accepted_part(canvas: Denoised) -> BlockCommitted:
    """Return the positions of an unfinished canvas before the first one that is not accepted, as a last block."""
    length = canvas.accepted.index(False) if False in canvas.accepted else len(canvas.best)
    if canvas.end is not None:
        length = min(length, canvas.end + 1)
    else:
        # Padding at the end of a canvas, and other tokens without text.
        while length and not canvas.pieces[length - 1]:
            length -= 1
    return BlockCommitted(
        block=canvas.block,
        steps=canvas.step,
        tokens=canvas.best[:length],
        last=True,
        text=canvas.undecided + "".join(canvas.pieces[canvas.thought : length]),
        thought="".join(canvas.pieces[: min(canvas.thought, length)]),
    )
