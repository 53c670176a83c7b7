"""What a benchmark finds, as frozen values, and the figures that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["diffusion", "autoregressive"]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model in memory. Bytes are what MLX holds; `options` are those that its answers are generated with."""

    model: str
    kind: Kind
    seconds: float
    weights: int
    peak_memory: int
    options: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, kw_only=True)
class Point:
    """One forward pass, or a prefill, measured several times after a warm-up.

    `prefix` tokens are in the cache, or go into it where `canvas` is 0; `canvas` positions are computed behind them, 1
    by an autoregressive model. `peak_memory` in bytes, from an empty cache on.
    """

    prefix: int
    canvas: int
    seconds: tuple[float, ...]
    peak_memory: int

    @property
    def median(self) -> float:
        """Seconds."""
        return median(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        """Of a prefill."""
        return self.prefix / self.median


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model said to a prompt, and what it took.

    `forwards` are denoising steps, or tokens of an autoregressive model, which has no `canvases`. `tokens` count the
    end token. `first_seconds` is when the first text was there: a block, or a token.
    """

    text: str
    finish_reason: str
    tokens: int
    forwards: int
    canvases: int
    first_seconds: float
    seconds: float
    peak_memory: int


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One reply, judged. `answer` counts the answers to one prompt from 0; each is tried until it is accepted.

    `refusal` says why the check refused it and is None where it did not; `last`: the answer is not tried again.
    """

    prompt: str
    answer: int
    seed: int
    reply: Reply
    refusal: str | None
    last: bool

    @property
    def accepted(self) -> bool:
        """Whether the check accepted it."""
        return self.refusal is None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What attempts amount to. Seconds are of whole replies; the time that checks take does not count.

    acceptance: accepted of all answers. p50, p95: of the attempts' seconds. first: the median. cost: all seconds spent,
    per accepted answer; None where none was accepted.
    """

    answers: int
    accepted: int
    acceptance: float
    attempts: int
    tokens: int
    seconds: float
    p50_seconds: float
    p95_seconds: float
    first_seconds: float
    cost_seconds: float | None
    steps_per_canvas: float | None
    tokens_per_forward: float
    tokens_per_second: float


def figures(attempts: Sequence[Attempt]) -> Figures:
    """The figures of one attempt or more."""
    replies = [attempt.reply for attempt in attempts]
    accepted = sum(attempt.accepted for attempt in attempts)
    seconds = sum(reply.seconds for reply in replies)
    tokens, forwards, canvases = (
        sum(getattr(reply, name) for reply in replies) for name in ("tokens", "forwards", "canvases")
    )
    answers = len({(attempt.prompt, attempt.answer) for attempt in attempts})
    return Figures(
        answers=answers,
        accepted=accepted,
        acceptance=accepted / answers,
        attempts=len(attempts),
        tokens=tokens,
        seconds=seconds,
        p50_seconds=percentile([reply.seconds for reply in replies], 50),
        p95_seconds=percentile([reply.seconds for reply in replies], 95),
        first_seconds=median(reply.first_seconds for reply in replies),
        cost_seconds=seconds / accepted if accepted else None,
        steps_per_canvas=forwards / canvases if canvases else None,
        tokens_per_forward=tokens / forwards,
        tokens_per_second=tokens / seconds,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The value below which `percent` of all lie, between two of them in proportion (numpy's and Excel's rule)."""
    ordered = sorted(values)
    place = (len(ordered) - 1) * percent / 100
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """Everything that was found about one model."""

    loaded: Loaded
    prefill: tuple[Point, ...] = ()
    steps: tuple[Point, ...] = ()
    attempts: tuple[Attempt, ...] = ()

    @property
    def peak_memory(self) -> int:
        """The most that MLX held while the model was loaded and measured, in bytes."""
        points = [point.peak_memory for point in (*self.prefill, *self.steps)]
        return max(self.loaded.peak_memory, *points, *(attempt.reply.peak_memory for attempt in self.attempts), 0)

    @property
    def by_canvas(self) -> tuple[Point, ...]:
        """The steps of all canvas lengths behind the shortest prefix, shortest canvas first."""
        prefix = min((point.prefix for point in self.steps), default=0)
        return tuple(sorted((point for point in self.steps if point.prefix == prefix), key=lambda point: point.canvas))

    @property
    def by_prefix(self) -> tuple[Point, ...]:
        """The steps of the longest canvas, shortest prefix first."""
        canvas = max((point.canvas for point in self.steps), default=0)
        return tuple(sorted((point for point in self.steps if point.canvas == canvas), key=lambda point: point.prefix))

    def attempts_at(self, prompt: str) -> tuple[Attempt, ...]:
        """The attempts at one prompt."""
        return tuple(attempt for attempt in self.attempts if attempt.prompt == prompt)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One run of the program: the model, and the baseline where there is one.

    `prompts` in the order they are asked, and `asking` how: repeats, retries, seed, max_tokens. `dropped` says what was
    left out, and why; `whole` is False where the run was ended before its time.
    """

    suite: str
    prompts: tuple[str, ...]
    models: tuple[Measured, ...]
    asking: Mapping[str, int] = field(default_factory=dict[str, int])
    dropped: tuple[str, ...] = ()
    whole: bool = True


def short_names(models: Sequence[Measured]) -> list[str]:
    """What models are called in tables and pictures: without folder or owner, unless that makes them the same."""
    short = [model.loaded.model.rstrip("/").rpartition("/")[2] for model in models]
    return short if len(set(short)) == len(short) else [model.loaded.model for model in models]
