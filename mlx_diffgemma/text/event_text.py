"""Text for the events of one answer."""

from __future__ import annotations

from dataclasses import replace

from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event
from mlx_diffgemma.text.tokenizer import Tokenizer
from mlx_diffgemma.text.transcript import Transcript


class EventText:
    """Attaches to each event of one answer, in their order, the text of its tokens."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._transcript = Transcript(tokenizer)

    def attached(self, event: Event) -> Event:
        """Return the event with its text."""
        match event:
            case CanvasStarted(canvas=canvas, pinned=pinned) if pinned:
                return replace(event, pieces=self._tokenizer.pieces(canvas))
            case Denoised(best=best):
                pieces = self._tokenizer.pieces(best)
                return replace(event, pieces=pieces, thought=self._transcript.thought_positions(best))
            case BlockCommitted(tokens=added, last=last):
                text, thought = self._transcript.add(added, last=last)
                return replace(event, text=text, thought=thought)
            case _:
                return event
