"""The events of an answer, with text attached, and the Completion that they amount to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, TypeAlias

from mlx_diffgemma.events import (
    BlockCommitted,
    Event,
    Finished,
    FinishReason,
    Prefilled,
    Stats,
)
from mlx_diffgemma.model.prefix import Prefix

CompletionReason: TypeAlias = FinishReason | Literal["interrupted"]

_DERIVED = ("steps", "tokens_per_forward", "tokens_per_second")
"""Properties of Stats that are in its JSON form beside the fields."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """An answer.

    text: without the thinking, and without the end token or stop string. thought: the thinking. tokens: all of it,
    thinking and the token that ends it included. confidence: the probability of each of `tokens`, see BlockCommitted.
    finish_reason: "stop" at an end token or a stop string, "length" at max_tokens, "interrupted" if the generation was
    left early; then of `stats` only the counts are known, times and memory are 0.
    """

    text: str
    thought: str
    tokens: tuple[int, ...]
    confidence: tuple[float, ...]
    finish_reason: CompletionReason
    stats: Stats
    prefix: Prefix | None = field(default=None, compare=False, repr=False)

    def to_json(self, *, index: int | None = None, choices: Mapping[str, float] | None = None) -> str:
        """Return one line of JSON: the fields by name, the statistics null if the answer was interrupted.

        index: the number of the answer in a batch, put first. choices: the probability of each choice, put last.
        """
        stats = {**asdict(self.stats), **{name: getattr(self.stats, name) for name in _DERIVED}}
        record = {
            **({} if index is None else {"index": index}),
            "text": self.text,
            "thought": self.thought,
            "tokens": self.tokens,
            "confidence": self.confidence,
            "finish_reason": self.finish_reason,
            "stats": None if self.finish_reason == "interrupted" else stats,
            **({} if choices is None else {"choices": choices}),
        }
        return json.dumps(record, ensure_ascii=False)


def gather(events: Iterable[Event]) -> Completion:
    """Drain the events of one generation into its Completion; without a Finished event it was interrupted."""
    blocks: list[BlockCommitted] = []
    finished: Finished | None = None
    prompt_tokens = 0
    for event in events:
        match event:
            case Prefilled(total=total):
                prompt_tokens = total
            case BlockCommitted():
                blocks.append(event)
            case Finished():
                finished = event
            case _:
                pass
    return Completion(
        text="".join(block.text for block in blocks),
        thought="".join(block.thought for block in blocks),
        tokens=tuple(token for block in blocks for token in block.tokens),
        confidence=tuple(probability for block in blocks for probability in block.confidence),
        finish_reason=finished.reason if finished else "interrupted",
        stats=finished.stats if finished else _counts(prompt_tokens, blocks),
    )


def _counts(prompt_tokens: int, blocks: list[BlockCommitted]) -> Stats:
    """Return what is known of an interrupted generation."""
    return Stats(
        prompt_tokens=prompt_tokens,
        tokens=sum(len(block.tokens) for block in blocks),
        blocks=len(blocks),
        steps_per_block=tuple(block.steps for block in blocks),
        prefill_seconds=0.0,
        seconds_to_first_block=0.0,
        seconds=0.0,
        seconds_per_step=0.0,
        peak_memory=0,
    )
