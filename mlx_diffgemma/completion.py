"""The events of an answer put together: text on every event, and at the end the Completion."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, replace

from mlx_diffgemma.errors import DiffGemmaError
from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event, Finished, FinishReason, Stats
from mlx_diffgemma.text.tokenizer import Tokenizer
from mlx_diffgemma.text.transcript import Transcript


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A finished answer. `tokens` include the end token and the thinking, `text` neither; `thought` is the thinking.

    `confidence` is the probability of each of `tokens`: see BlockCommitted.
    """

    text: str
    thought: str
    tokens: tuple[int, ...]
    confidence: tuple[float, ...]
    finish_reason: FinishReason
    stats: Stats


def with_text(tokenizer: Tokenizer, events: Iterable[tuple[int, Event]]) -> Generator[tuple[int, Event]]:
    """The same events, each with the number of its answer, with what they say as text attached."""
    transcripts: dict[int, Transcript] = {}
    for number, event in events:
        transcript = transcripts.setdefault(number, Transcript(tokenizer))
        match event:
            case CanvasStarted(canvas=canvas, pinned=pinned) if pinned:
                yield number, replace(event, pieces=tokenizer.pieces(canvas))
            case Denoised(best=best):
                pieces = tokenizer.pieces(best)
                yield number, replace(event, pieces=pieces, thought=transcript.thought_positions(best))
            case BlockCommitted(tokens=added, last=last):
                text, thought = transcript.add(added, last=last)
                yield number, replace(event, text=text, thought=thought)
            case Finished():
                del transcripts[number]
                yield number, event
            case _:
                yield number, event


def gather(events: Iterator[Event]) -> Completion:
    """Drain the events of one generation into its Completion."""
    text, thought = "", ""
    tokens: list[int] = []
    confidence: list[float] = []
    for event in events:
        match event:
            case BlockCommitted():
                tokens += event.tokens
                confidence += event.confidence
                text += event.text
                thought += event.thought
            case Finished(reason=reason, stats=stats):
                return Completion(
                    text=text,
                    thought=thought,
                    tokens=tuple(tokens),
                    confidence=tuple(confidence),
                    finish_reason=reason,
                    stats=stats,
                )
            case _:
                pass
    raise DiffGemmaError("the events ended before the generation did")
