"""The results of a benchmark as frozen values, and the figures that follow from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["diffusion", "autoregressive"]


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A model in memory; sizes are in bytes that MLX holds, `options` are the options of its answers."""

    model: str
    kind: Kind
    seconds: float
    weights: int
    peak_memory: int
    options: Mapping[str, object] = field(default_factory=dict[str, object])


@dataclass(frozen=True, kw_only=True)
class Point:
    """One forward pass, or a prefill, measured several times after a warm-up.

    `prefix` tokens are in the cache and `canvas` positions are computed after them, 1 by an autoregressive model; with
    a `canvas` of 0, the prefill of `prefix` tokens is what was measured. `peak_memory` is in bytes.
    """

    prefix: int
    canvas: int
    seconds: tuple[float, ...]
    peak_memory: int

    @property
    def median(self) -> float:
        """The median of the seconds."""
        return median(self.seconds)

    @property
    def tokens_per_second(self) -> float:
        """Tokens of the prefix per second of a prefill."""
        return self.prefix / self.median


@dataclass(frozen=True, kw_only=True)
class Reply:
    """A model's answer to a prompt, and what it cost.

    `forwards` are denoising steps, or tokens of an autoregressive model, which has no `canvases`. `tokens` include the
    end token. `first_seconds` are the seconds until the first text was there: a block, or a token.
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
    """One reply with the verdict of its check; an answer is attempted until one is accepted or none is left.

    `answer` numbers the answers to one prompt from 0. `refusal` is the reason of the check, None if it accepted the
    reply. `last`: no further attempt at this answer follows.
    """

    prompt: str
    answer: int
    seed: int
    reply: Reply
    refusal: str | None
    last: bool

    @property
    def accepted(self) -> bool:
        """Whether the check accepted the reply."""
        return self.refusal is None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Figures over several attempts. Seconds are of whole replies, without the time of the checks.

    acceptance: accepted answers divided by all answers. p50, p95: percentiles of the attempts' seconds. first: the
    median. cost: all seconds spent divided by the accepted answers; None if none was accepted.
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
    """Compute the figures of one attempt or more."""
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
    """Return the value below which `percent` of the values lie, interpolated linearly as numpy does."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    below = int(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (position - below)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """All results for one model."""

    loaded: Loaded
    prefill: tuple[Point, ...] = ()
    steps: tuple[Point, ...] = ()
    attempts: tuple[Attempt, ...] = ()

    @property
    def peak_memory(self) -> int:
        """The maximum of MLX's memory while the model was loaded and measured, in bytes."""
        points = [point.peak_memory for point in (*self.prefill, *self.steps)]
        return max(self.loaded.peak_memory, *points, *(attempt.reply.peak_memory for attempt in self.attempts), 0)

    @property
    def by_canvas(self) -> tuple[Point, ...]:
        """The steps of all canvas lengths after the shortest prefix, shortest canvas first."""
        prefix = min((point.prefix for point in self.steps), default=0)
        return tuple(sorted((point for point in self.steps if point.prefix == prefix), key=lambda point: point.canvas))

    @property
    def by_prefix(self) -> tuple[Point, ...]:
        """The steps of the longest canvas, shortest prefix first."""
        canvas = max((point.canvas for point in self.steps), default=0)
        return tuple(sorted((point for point in self.steps if point.canvas == canvas), key=lambda point: point.prefix))

    def attempts_at(self, *prompts: str) -> tuple[Attempt, ...]:
        """Return the attempts at some of the prompts."""
        return tuple(attempt for attempt in self.attempts if attempt.prompt in prompts)


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One run of the program: the model, and the baseline if there is one.

    `prompts` are in the order of the suite, `groups` maps some of them to the name of their group, `asking` has the
    options of the questions: repeats, retries, seed, max_tokens. `dropped` has a line for everything that was left out;
    `whole` is False if the run ended early.
    """

    suite: str
    prompts: tuple[str, ...]
    models: tuple[Measured, ...]
    groups: Mapping[str, str] = field(default_factory=dict[str, str])
    asking: Mapping[str, int] = field(default_factory=dict[str, int])
    dropped: tuple[str, ...] = ()
    whole: bool = True

    @property
    def rows(self) -> Mapping[str, tuple[str, ...]]:
        """The rows of a table: the name of a group or of a prompt without one -> its prompts."""
        rows: dict[str, tuple[str, ...]] = {}
        for prompt in self.prompts:
            row = self.groups.get(prompt, prompt)
            rows[row] = (*rows.get(row, ()), prompt)
        return rows


def short_names(models: Sequence[Measured]) -> list[str]:
    """Return the names of models for tables and pictures: without folder or owner, unless two would be equal."""
    short = [model.loaded.model.rstrip("/").rpartition("/")[2] for model in models]
    return short if len(set(short)) == len(short) else [model.loaded.model for model in models]
