"""One prompt being answered: its answer so far, and what happens between its canvases."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import cast

import mlx.core as mx

from mlx_diffgemma.errors import require_numbers
from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event, Finished, FinishReason, Prefilled
from mlx_diffgemma.generation.job import Job
from mlx_diffgemma.generation.prefill import following, read_from
from mlx_diffgemma.generation.timing import Clock
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.canvas import Canvas, Endings
from mlx_diffgemma.sampling.constrained import ConstrainedSpan
from mlx_diffgemma.sampling.sampler import Draft
from mlx_diffgemma.sampling.strategy import Rules

MAX_REJECTIONS = 2
"""Canvases in a row that are dropped at most because their first token does not pass `verify`."""


class Generation:
    """The answer to one prompt. Once `reading` is over: `start`, then `take` with every draft until `is_over`."""

    def __init__(self, model: DiffusionGemma, job: Job, rules: Rules, length: int) -> None:
        """length: of a canvas, and with first_canvas of the longest."""
        self.is_over = False
        self.canvas: Canvas
        self._model = model
        self._job = job
        self._config = job.config
        self._rules = rules
        self._length = length
        # Verifying a canvas takes the hidden state of the token before it.
        self.reading = read_from(model, job.tokens, job.reuse, wants_last=job.config.verify is not None)
        self._cache = self.reading.cache
        self._reused = self.reading.done
        self._clock = Clock()
        self._answer: list[int] = []
        # How many tokens of the answer are not padding.
        self._said = 0
        self._block = -1
        self._best: tuple[int, ...] = ()
        self._draft: Draft
        # The constraint's state after the answer so far.
        self._state = 0
        self._endings = Endings(tokens=job.config.stop_tokens, strings=job.stop_strings)
        # Tokens of the answer that are not in the cache yet.
        self._unread: tuple[int, ...] = ()
        # For verify: the hidden state [1, 1, D] of the last token in the cache, and how many canvases after it were
        # dropped.
        self._last: mx.array | None = None
        self._rejections = 0

    def prefilled(self) -> Prefilled:
        """Take the chunk that was read last, and return its event."""
        reading = self.reading
        if reading.is_over:
            self._last = reading.last
            self._clock.prefilled()
        return Prefilled(done=reading.done, total=reading.total)

    def start(self) -> CanvasStarted:
        """Start a canvas of noise."""
        config = self._config
        self._block += 1
        self._best = ()
        context = self._model.config.max_position_embeddings - self._cache.offset - len(self._unread)
        length = config.length_of_canvas(self._block, self._length)
        self.canvas = Canvas.start(
            self._cache,
            self._rules,
            seed=config.seed,
            block=self._block,
            length=min(length, context, self._remaining if config.trim else length),
            forbidden=[] if self._answer else config.forbidden_first(self._model.config.vocab_size),
            spans=self._spans(),
            endings=self._endings,
        )
        noise = _ids(self.canvas.state.canvas)
        return CanvasStarted(block=self._block, canvas=noise[: self._remaining])

    def _spans(self) -> tuple[ConstrainedSpan, ...]:
        """Return what the next canvas must match."""
        if self._job.constraint is None:
            return ()
        span = ConstrainedSpan(
            automaton=self._job.constraint,
            state=self._state,
            positions=slice(0, self._remaining),
            min_tokens=0,
            max_tokens=self._remaining,
        )
        return (span,)

    def take(self, draft: Draft) -> list[Event]:
        """Take the draft of one step, and return its event and, if the canvas is over, those of its end."""
        denoised = self._denoised(draft)
        return [denoised, *self._commit()] if self.canvas.is_over else [denoised]

    def _denoised(self, draft: Draft) -> Denoised:
        """Return the event of a draft, for the positions within max_tokens."""
        mean_entropy = fmean(_numbers(draft.entropy))
        require_numbers(mean_entropy)
        best = _ids(draft.best)[: self._remaining]
        before = self._best or [-1] * len(best)
        self._best, self._draft = best, draft
        return Denoised(
            block=self._block,
            step=self.canvas.state.step,
            max_steps=self._config.max_steps,
            best=best,
            accepted=tuple(map(bool, _numbers(draft.accepted)[: self._remaining])),
            changed=tuple(now != then for now, then in zip(best, before, strict=False)),
            mean_entropy=mean_entropy,
            end=self._endings.first(best),
        )

    def _commit(self) -> Iterator[Event]:
        """Cut the canvas after what ends the answer, add it to it, and start the next canvas if another follows."""
        if set(self._best) == {self._job.padding}:
            yield from self._commit_nothing()
            return
        kept, stopped = self._endings.cut(self._best)
        hidden = None
        if self._last is not None:
            (hidden,) = self._model.peek([self._model.embed(mx.array([kept]))], [self._cache])
            verified = self._count_verified(kept, hidden)
            stopped = stopped and verified == len(kept)
            kept = kept[:verified]
        probabilities = tuple(1 / inverse for inverse in _numbers(self._draft.inverse_probability)[: len(kept)])
        self._answer += kept
        if self._job.constraint is not None and not stopped:
            self._state = self._job.constraint.after(self._state, kept)
        if not stopped:
            self._endings = self._endings.after(kept)
        self.is_over = stopped or not self._remaining
        steps = self.canvas.state.step
        self._clock.committed(steps)
        # Padding says nothing: it is in the cache, where it changes what follows, but not in the answer.
        said = [pair for pair in zip(kept, probabilities, strict=True) if pair[0] != self._job.padding]
        self._said += len(said)
        yield BlockCommitted(
            block=self._block,
            steps=steps,
            tokens=tuple(token for token, _ in said),
            probabilities=tuple(probability for _, probability in said),
            last=self.is_over,
        )
        if self.is_over:
            yield self._finished("stop" if stopped else "length")
            return
        if hidden is None:
            self._unread = kept
        elif kept:
            self._cache.advance(len(kept))
            self._last = hidden[:, len(kept) - 1 : len(kept)]
            mx.eval(self._last, self._cache.arrays)
        yield self.start()

    def _commit_nothing(self) -> Iterator[Event]:
        """End the answer at a canvas of nothing but padding; those after it would be no different."""
        self.is_over = True
        steps = self.canvas.state.step
        self._clock.committed(steps)
        yield BlockCommitted(block=self._block, steps=steps, tokens=(), last=True)
        yield self._finished("stop" if self._said else "empty")

    def _finished(self, reason: FinishReason) -> Finished:
        stats = self._clock.stats(self.reading.total, self._said, reused=self._reused)
        return Finished(reason=reason, stats=stats)

    def catch_up(self) -> None:
        """Encode the last block, which is computed together with the first step of the next canvas."""
        if self._unread:
            self._model.encode([mx.array([self._unread])], [self._cache])
            self._unread = ()

    @property
    def _remaining(self) -> int:
        """Number of tokens that the answer may still get."""
        return self._config.max_tokens - len(self._answer)

    def _count_verified(self, kept: Sequence[int], hidden: mx.array) -> int:
        """Count the tokens before the first one that the encoder finds too unlikely.

        hidden [1, L, D]: of the tokens. A count of zero drops the canvas, and the next one starts from other noise;
        after MAX_REJECTIONS in a row the first token is accepted anyway.
        """
        assert self._last is not None and self._config.verify is not None
        before = mx.concatenate([self._last, hidden[:, :-1]], axis=1)
        likely = following(self._model, before, mx.array([kept])) >= math.log(self._config.verify)
        first = int(self._rejections >= MAX_REJECTIONS)
        unlikely = (index for index, holds in enumerate(_numbers(likely)) if index >= first and not holds)
        count = next(unlikely, len(kept))
        self._rejections = 0 if count else self._rejections + 1
        return count


def _ids(tokens: mx.array) -> tuple[int, ...]:
    """Return ids [1, C] as Python numbers."""
    return tuple(map(int, _numbers(tokens)))


def _numbers(row: mx.array) -> list[float]:
    """Return [1, C] as Python numbers."""
    return cast("list[float]", row[0].tolist())
