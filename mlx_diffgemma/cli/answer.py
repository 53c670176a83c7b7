"""What came of a generation, whole or interrupted, and its JSON form."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlx_diffgemma.events import BlockCommitted, Event, Finished, FinishReason, Stats

DERIVED = ("steps", "tokens_per_forward", "tokens_per_second")
"""Properties of Stats that --json prints beside its fields."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of the events; without `stats` when Ctrl-C ended them."""

    text: str
    thought: str
    tokens: tuple[int, ...]
    confidence: tuple[float, ...]
    finish_reason: FinishReason | None
    stats: Stats | None

    def as_json(self, index: int | None = None, choices: Mapping[str, float] | None = None) -> str:
        """One line: `index`, if any, text, thought, tokens, confidence, finish_reason, stats; `choices`, if any.

        finish_reason is "stop", "length" or "interrupted"; choices: how likely each was.
        """
        stats = self.stats and {
            **dataclasses.asdict(self.stats),
            **{name: getattr(self.stats, name) for name in DERIVED},
        }
        record = {
            **({} if index is None else {"index": index}),
            "text": self.text,
            "thought": self.thought,
            "tokens": self.tokens,
            "confidence": self.confidence,
            "finish_reason": self.finish_reason or "interrupted",
            "stats": stats,
            **({} if choices is None else {"choices": choices}),
        }
        return json.dumps(record, ensure_ascii=False)


def gathered(events: Iterable[Event]) -> Answer:
    """The answer that `events`, whole or interrupted, amount to."""
    blocks: list[BlockCommitted] = []
    end: Finished | None = None
    for event in events:
        match event:
            case BlockCommitted():
                blocks.append(event)
            case Finished():
                end = event
            case _:
                pass
    return Answer(
        text="".join(block.text for block in blocks),
        thought="".join(block.thought for block in blocks),
        tokens=tuple(token for block in blocks for token in block.tokens),
        confidence=tuple(share for block in blocks for share in block.confidence),
        finish_reason=end and end.reason,
        stats=end and end.stats,
    )
