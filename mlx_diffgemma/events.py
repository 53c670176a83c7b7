"""What happens during one generation, as frozen values in the order of their happening.

    Prefilled+ -> (CanvasStarted -> Denoised+ -> BlockCommitted)+ -> Finished

Where a template is filled in, BlockCommitted also comes for the text around its gaps, and GapFilled behind the block in
which a gap ends.

`engine.stream` yields them without text; `Session.stream` yields the same ones with text attached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

FinishReason: TypeAlias = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Figures of one generation.

    Seconds are wall clock, what the watcher does between two events included. `peak_memory` is the most that MLX ever
    held in this process, loading included, in bytes.
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

    @property
    def steps(self) -> int:
        """Denoising steps of all blocks: forwards of the decoder."""
        return sum(self.steps_per_block)

    @property
    def tokens_per_forward(self) -> float:
        """Generated tokens, the end token included, per denoising step."""
        return self.tokens / self.steps if self.steps else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Generated tokens per second of the whole generation, prefill included."""
        return self.tokens / self.seconds if self.seconds else 0.0


@dataclass(frozen=True, kw_only=True)
class Prefilled:
    """`done` of `total` prompt tokens are in the cache; sent once per chunk, the last with done == total."""

    done: int
    total: int


@dataclass(frozen=True, kw_only=True)
class CanvasStarted:
    """Block `block` (from 0) begins as noise: `canvas` are uniformly random token ids.

    Here and in Denoised, positions that max_tokens has no room for are left out, and `pinned` tells, where text is
    filled in, which positions hold tokens of the text around the gaps; it is empty where none does. Attached by the
    session: `pieces` is the text of a canvas that has pinned positions.
    """

    block: int
    canvas: tuple[int, ...]
    pinned: tuple[bool, ...] = ()
    pieces: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Denoised:
    """One denoising step of block `block`.

    `step` counts from 1 to at most `max_steps`. `best` is the most likely token at every position, `accepted`
    tells which positions were kept for the next step, `changed` at which positions `best` differs from the
    step before (all of them at step 1). `mean_entropy` is in nats per position that is not pinned. `end` is the
    position of the first end token in `best`, None where it has none.

    Attached by the session: `pieces` is the text of `best`, one string per position, "" where a token has none.
    Positions before `thought` belong to the model's thinking, its tags included, and are no part of the answer.
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
    pinned: tuple[bool, ...] = ()


@dataclass(frozen=True, kw_only=True)
class BlockCommitted:
    """Block `block` is final: `tokens` are its tokens up to and with the end token, `text` what they add to it.

    One of no steps is text that was given, and stood in no canvas.

    `thought` is what they add to the model's thinking, which is never part of `text`. `last`: no block follows.
    `confidence` are the probabilities that the last step gave these tokens; in causal mode the encoder, without
    temperature.
    """

    block: int
    steps: int
    tokens: tuple[int, ...]
    last: bool
    confidence: tuple[float, ...] = ()
    text: str = ""
    thought: str = ""


@dataclass(frozen=True, kw_only=True)
class GapFilled:
    """Gap `gap` (from 0) of a template is filled with `text`, `tokens` tokens of it."""

    gap: int
    tokens: int
    text: str


@dataclass(frozen=True, kw_only=True)
class Finished:
    """The generation is over: "stop" at an end token, "length" at max_tokens."""

    reason: FinishReason
    stats: Stats


Event: TypeAlias = Prefilled | CanvasStarted | Denoised | BlockCommitted | GapFilled | Finished
