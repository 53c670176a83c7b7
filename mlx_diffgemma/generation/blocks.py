"""One prompt being answered: what is known of it, and what happens at the borders of its canvases."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import cast

import mlx.core as mx

from mlx_diffgemma.constraint.token_automaton import TokenAutomaton
from mlx_diffgemma.errors import require_numbers
from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event, Finished, Prefilled
from mlx_diffgemma.generation.prefill import following, prefill_rows
from mlx_diffgemma.generation.timing import Clock
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.constrained import Bound
from mlx_diffgemma.sampling.denoising import Canvas, end_of
from mlx_diffgemma.sampling.sampler import Draft
from mlx_diffgemma.sampling.strategy import Rules

ATTEMPTS = 2
"""Canvases that may be given up at one place because their first token does not pass `verify`."""


class Generation:
    """The answer to one prompt: `prefill`, then for every canvas `start`, `denoised` per step, `commit`."""

    def __init__(
        self,
        model: DiffusionGemma,
        tokens: Sequence[int],
        config: GenerationConfig,
        rules: Rules,
        length: int,
        *,
        constraint: TokenAutomaton | None = None,
    ) -> None:
        self.is_over = False
        self.canvas: Canvas
        self._model = model
        self._prompt = mx.array([list(tokens)])
        # What is to be verified needs the last token's hidden state, which chunks do not compute.
        self._first = self._prompt if config.verify is None else mx.array([list(tokens[:-1])], dtype=mx.int32)
        self._config = config
        self._rules = rules
        self._length = length
        self._cache = model.make_cache()
        self._clock = Clock()
        self._answer: list[int] = []
        self._block = -1
        self._best: tuple[int, ...] = ()
        self._draft: Draft
        # What the answer must match, and the state behind what there is of it.
        self._constraint = constraint
        self._state = 0
        self._unread: tuple[int, ...] = ()
        # For verify: hidden state [1, 1, D] of the last token in the cache; canvases given up behind it.
        self._last: mx.array | None = None
        self._given_up = 0

    @staticmethod
    def prefill(model: DiffusionGemma, begun: Sequence[Generation]) -> Iterator[list[tuple[Generation, Prefilled]]]:
        """The prompts go into their caches -> how far each is by now, of those that got further."""
        for reached in prefill_rows(model, [each._first for each in begun], [each._cache for each in begun]):
            yield [(begun[row], begun[row]._prefilled(done)) for row, done in reached.items()]
        for each in begun:
            if each._config.verify is not None:
                each._last = model.encode(each._prompt[:, -1:], each._cache)
                mx.eval(each._last, each._cache.arrays)
                yield [(each, each._prefilled(each._prompt.shape[1]))]
            each._clock.prefilled()

    def _prefilled(self, done: int) -> Prefilled:
        return Prefilled(done=done, total=self._prompt.shape[1])

    def start(self) -> CanvasStarted:
        """A canvas of noise."""
        config = self._config
        self._block += 1
        self._best = ()
        context = self._model.config.max_position_embeddings - self._cache.offset - len(self._unread)
        self.canvas = Canvas.start(
            self._cache,
            self._rules,
            seed=config.seed,
            block=self._block,
            length=min(self._length, context, self._room if config.trim else self._length),
            forbidden=[] if self._answer else config.forbidden_first(self._model.config.vocab_size),
            bounds=self._bounds(),
        )
        noise = _ids(self.canvas.state.canvas)
        return CanvasStarted(block=self._block, canvas=noise[: self._room])

    def _bounds(self) -> tuple[Bound, ...]:
        """What the next canvas must hold to."""
        if self._constraint is None:
            return ()
        room = self._room
        return (Bound(automaton=self._constraint, state=self._state, places=slice(0, room), least=0, room=room),)

    def denoised(self, draft: Draft) -> Denoised:
        """The event of one step, for the positions that max_tokens has room for."""
        mean_entropy = fmean(_numbers(draft.entropy))
        require_numbers(mean_entropy)
        best = _ids(draft.best)[: self._room]
        before = self._best or [-1] * len(best)
        self._best, self._draft = best, draft
        return Denoised(
            block=self._block,
            step=self.canvas.state.step,
            max_steps=self._config.max_steps,
            best=best,
            accepted=tuple(map(bool, _numbers(draft.accepted)[: self._room])),
            changed=tuple(now != then for now, then in zip(best, before, strict=False)),
            mean_entropy=mean_entropy,
            end=end_of(best, self._config.stop_tokens),
        )

    def commit(self) -> Iterator[Event]:
        """The canvas is cut behind its end token, and the next one starts if another follows."""
        config = self._config
        kept, stopped = answer_part(self._best, config.stop_tokens)
        hidden = None if self._last is None else self._model.peek(self._model.embed(mx.array([kept])), self._cache)
        standing = len(kept) if hidden is None else self._standing(kept, hidden)
        stopped = stopped and standing == len(kept)
        kept = kept[:standing]
        confidence = tuple(1 / rarity for rarity in _numbers(self._draft.rarity)[: len(kept)])
        self._answer += kept
        if self._constraint is not None and not stopped:
            self._state = self._constraint.after(self._state, kept)
        self.is_over = stopped or not self._room
        steps = self.canvas.state.step
        self._clock.committed(steps)
        yield BlockCommitted(block=self._block, steps=steps, tokens=kept, confidence=confidence, last=self.is_over)
        if self.is_over:
            stats = self._clock.stats(self._prompt.shape[1], len(self._answer))
            yield Finished(reason="stop" if stopped else "length", stats=stats)
            return
        if hidden is None:
            self._unread = kept
        elif standing:
            self._cache.advance(standing)
            self._last = hidden[:, standing - 1 : standing]
            mx.eval(self._last, self._cache.arrays)
        mx.clear_cache()
        yield self.start()

    def catch_up(self) -> None:
        """The last block goes into the cache; it is computed with the first step of the canvas behind it."""
        if self._unread:
            self._model.encode(mx.array([self._unread]), self._cache)
            self._unread = ()

    @property
    def _room(self) -> int:
        """Tokens that may still come."""
        return self._config.max_tokens - len(self._answer)

    def _standing(self, kept: Sequence[int], hidden: mx.array) -> int:
        """How many tokens stand before the first that the encoder finds too unlikely.

        hidden [1, L, D]: of the tokens. Where it is the very first, the canvas is given up, but not again and again.
        """
        assert self._last is not None and self._config.verify is not None
        before = mx.concatenate([self._last, hidden[:, :-1]], axis=1)
        sure = following(self._model, before, mx.array([kept])) >= math.log(self._config.verify)
        first = int(self._given_up >= ATTEMPTS)
        doubtful = (place for place, holds in enumerate(_numbers(sure)) if place >= first and not holds)
        standing = next(doubtful, len(kept))
        self._given_up = 0 if standing else self._given_up + 1
        return standing


def answer_part(best: Sequence[int], stop_tokens: Sequence[int]) -> tuple[tuple[int, ...], bool]:
    """The part of a canvas that belongs to the answer, and whether an end token is its last."""
    end = end_of(best, stop_tokens)
    return (tuple(best), False) if end is None else (tuple(best[: end + 1]), True)


def _ids(tokens: mx.array) -> tuple[int, ...]:
    """Ids of [1, C]."""
    return tuple(map(int, _numbers(tokens)))


def _numbers(row: mx.array) -> list[float]:
    """[1, C] as Python numbers."""
    return cast("list[float]", row[0].tolist())
