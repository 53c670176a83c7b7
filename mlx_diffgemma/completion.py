"""The result of an answer: the Completion that its events amount to."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

from mlx_diffgemma.events import BlockCommitted, Event, Finished, FinishReason, GapFilled, Prefilled, Stats
from mlx_diffgemma.model.prefix import Prefix

CompletionReason: TypeAlias = FinishReason | Literal["interrupted"]

_DERIVED = ("steps", "tokens_per_forward", "tokens_per_second")
"""Properties of Stats that are in its JSON form beside the fields."""
_SHOWN = 40
"""Characters of the text in the `repr`."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Completion:
    """An answer; `str` of it is its text.

    text: without the thinking, and without the end token or stop string. thought: the thinking. calls: of tools.
    tokens: all of it, thinking and the token that ends it included. probabilities: of each of `tokens`, see
    BlockCommitted. finish_reason: "stop" at an end token or a stop string, "length" at max_tokens, "empty" if the model
    wrote no text, though it may have finished a thought, "interrupted" if the generation was left early; then of
    `stats` only the counts are known, times and memory are 0. prefix: the conversation up to the end of the answer, if
    the call was given a prefix.
    """

    text: str
    thought: str
    calls: tuple[object, ...] = ()
    tokens: tuple[int, ...]
    probabilities: tuple[float, ...]
    finish_reason: CompletionReason
    stats: Stats
    seed: int
    prefix: Prefix | None = field(default=None, compare=False)

    @property
    def is_empty(self) -> bool:
        """Whether there is no answer: nothing at all, or a thought alone, finished or cut off by max_tokens."""
        return self.finish_reason == "empty" or (self.finish_reason == "length" and not self.text)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        text = self.text if len(self.text) <= _SHOWN else f"{self.text[: _SHOWN - 1]}…"
        return f"<{type(self).__name__} {text!r} {len(self.tokens)} tokens, {self.finish_reason}>"

    def to_json(
        self,
        *,
        index: int | None = None,
        ids: Mapping[str, str | int] | None = None,
        choices: Mapping[str, float] | None = None,
    ) -> str:
        """Return one line of JSON: the fields by name, the statistics null if the answer was interrupted.

        index: the number of the answer in a batch, put first. ids: what the user calls it, put next. choices: the
        probability of each choice, put last.
        """
        record = {
            **({} if index is None else {"index": index}),
            **(ids or {}),
            **self._record(),
            **({} if choices is None else {"choices": choices}),
        }
        return json.dumps(record, ensure_ascii=False)

    def _record(self) -> dict[str, Any]:
        """Return the fields that are in the JSON form."""
        stats = {**asdict(self.stats), **{name: getattr(self.stats, name) for name in _DERIVED}}
        return {
            "text": self.text,
            "thought": self.thought,
            "calls": self.calls,
            "tokens": self.tokens,
            "probabilities": self.probabilities,
            "finish_reason": self.finish_reason,
            "seed": self.seed,
            "stats": None if self.finish_reason == "interrupted" else stats,
        }


def fold(events: Iterable[Event], *, seed: int) -> tuple[Completion, tuple[str, ...]]:
    """Drain the events of one generation into its Completion and the fillings of its gaps.

    Without a Finished event it was interrupted. seed: that of its options.
    """
    blocks: list[BlockCommitted] = []
    gaps: list[str] = []
    finished: Finished | None = None
    prompt_tokens = 0
    for event in events:
        match event:
            case Prefilled(total=total):
                prompt_tokens = total
            case BlockCommitted():
                blocks.append(event)
            case GapFilled(text=text):
                gaps.append(text)
            case Finished():
                finished = event
            case _:
                pass
    completion = Completion(
        text="".join(block.text for block in blocks),
        thought="".join(block.thought for block in blocks),
        tokens=tuple(token for block in blocks for token in block.tokens),
        probabilities=tuple(probability for block in blocks for probability in block.probabilities),
        finish_reason=finished.reason if finished else "interrupted",
        stats=finished.stats if finished else _counts(prompt_tokens, blocks),
        seed=seed,
    )
    return completion, tuple(gaps)


def gather(events: Iterable[Event], *, seed: int) -> Completion:
    """Drain the events of one answer into its Completion; seed: that of its options."""
    completion, _ = fold(events, seed=seed)
    return completion


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
