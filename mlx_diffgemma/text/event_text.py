"""Text for the events of one answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event, Finished
from mlx_diffgemma.text.tokenizer import Tokenizer
from mlx_diffgemma.text.transcript import Transcript
from mlx_diffgemma.text.until_stop import UntilStop


class EventText:
    """Attaches to each event of one answer, in their order, the text of its tokens.

    Text with which a stop string may begin is attached to a later block, or to none.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        """stop: texts before which the answer ends."""
        self._tokenizer = tokenizer
        self._transcript = Transcript(tokenizer)
        self._until_stop = UntilStop(stop)
        self._has_text = self._has_thought = False

    def attached(self, event: Event) -> Event:
        """Return the event with its text."""
        match event:
            case CanvasStarted(canvas=canvas, pinned=pinned) if pinned:
                return replace(event, pieces=self._tokenizer.pieces(canvas))
            case Denoised(best=best):
                pieces, thought = self._transcript.pieces(best), self._transcript.thought_positions(best)
                undecided, pieces = self._until_stop.cut(pieces, thought)
                return replace(event, pieces=pieces, thought=thought, undecided=undecided)
            case BlockCommitted(tokens=added, last=last):
                text, thought = self._transcript.add(added, last=last)
                self._has_text |= bool(text)
                self._has_thought |= bool(thought)
                text = self._until_stop.take(text, last=last)
                return replace(event, text=text, thought=thought, undecided=self._until_stop.held)
            case Finished(reason=reason):
                has_answer = self._has_text or (reason == "length" and self._has_thought)
                return event if has_answer else replace(event, reason="empty")
            case _:
                return event
