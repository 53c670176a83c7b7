"""The events of one generation, as frozen values, in order:

    Prefilled+ -> (CanvasStarted -> Denoised+ -> BlockCommitted)+ -> Finished

When a template is filled, BlockCommitted also comes for the text around its gaps, and GapFilled after the block in
which a gap ends.

`engine.stream` yields events without text, `Session.stream` with text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

FinishReason: TypeAlias = Literal["stop", "length", "empty"]


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Figures of one generation. Steps are denoising steps or, in causal and speculative mode, passes of any kind.

    Seconds are wall clock and include what is computed for other answers meanwhile. `peak_memory` is the most that MLX
    has held in this process, loading included, in bytes. `reused_tokens` of the prompt were in a prefix that was kept.
    """

    prompt_tokens: int
    tokens: int
    blocks: int
    steps_per_block: tuple[int, ...]
    prefill_seconds: float
    seconds_to_first_block: float
    seconds: float
    seconds_per_step: float
    peak_memory: int
    reused_tokens: int = 0

    @property
    def steps(self) -> int:
        """Steps of all blocks: how often the layers ran, but for reading the prompt and finished blocks."""
        return sum(self.steps_per_block)

    @property
    def tokens_per_forward(self) -> float:
        """Generated tokens, the end token included, per step."""
        return self.tokens / self.steps if self.steps else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second of the whole generation, prefill included."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, kw_only=True)
class Prefilled:
    """`done` of `total` prompt tokens are in the cache. Comes once per chunk; in the last done equals total."""

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class CanvasStarted:
    """Block `block` (from 0) begins as noise: `canvas` are uniformly random token ids.

    Here and in Denoised, positions beyond max_tokens are left out. `pinned` says which positions hold tokens of the
    text around the gaps; it is empty if none does.

    Attached by the session: `pieces` is the text of every position of a canvas that has pinned positions.
    """

    block: int
    canvas: tuple[int, ...]
    pinned: tuple[bool, ...] = ()
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Denoised:
    """One denoising step of block `block`.

    `step` counts from 1 to at most `max_steps`. `best` is the most likely token at every position. `accepted` says
    which positions were kept for the next step, `changed` at which positions `best` differs from the step before (all
    of them at step 1). `mean_entropy` is in nats per position that is not pinned. `end` is the position of the first
    token in `best` that ends the answer, None if none does.

    Attached by the session: `pieces` is the text of `best` up to a stop string, one string per position, "" if a token
    has no text. Positions before `thought` belong to the model's thinking, its tags included, and are not part of the
    answer. `undecided` is the end of the blocks before, which is in none of their texts because a stop string may begin
    with it.
    """

    block: int
    step: int
    max_steps: int
    best: tuple[int, ...]
    accepted: tuple[bool, ...]
    changed: tuple[bool, ...]
    mean_entropy: float
    end: int | None = None
    pieces: tuple[str, ...] = ()
    thought: int = 0
    undecided: str = ""
    pinned: tuple[bool, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BlockCommitted:
    """Block `block` is final: `tokens` are its tokens up to the one that ends the answer, which is included.

    Padding is left out: it has no text and is no part of the answer.

    steps: the steps of its canvas, in speculative mode with the check; 0 for text of a template that was not in a
    canvas. last: no block follows.
    probabilities: of each token in the last step; in the other modes by the encoder, without temperature. Within a
    constraint it is the probability among the tokens that were allowed after the text before: 1 for the only one.

    Attached by the session: `text` is what the tokens add to the answer, without a stop string and what may become one,
    `thought` what they add to the model's thinking, which is never part of `text`. `undecided` is the end of the
    answer so far that is in no `text` yet, because a stop string may begin with it.
    """

    block: int
    steps: int
    tokens: tuple[int, ...]
    last: bool
    probabilities: tuple[float, ...] = ()
    text: str = ""
    thought: str = ""
    undecided: str = ""


@dataclass(frozen=True, kw_only=True)
class GapFilled:
    """Gap `gap` (from 0) of a template is filled with `text`, which has `tokens` tokens."""

    gap: int
    tokens: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The generation is over.

    reason: "stop" at an end token or a stop string, "length" at max_tokens, "empty" if the model wrote nothing but
    padding; with text attached also if it wrote a thought alone and finished it.
    """

    reason: FinishReason
    stats: Stats


Event: TypeAlias = Prefilled | CanvasStarted | Denoised | BlockCommitted | GapFilled | Finished
