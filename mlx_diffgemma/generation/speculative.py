"""Writing several tokens per cycle: the denoiser proposes them, the encoder keeps those that it would write itself.

    prefix | t  noise  noise  noise  noise     denoised -> a b c d     proposals after the last token t
    prefix | t  a      b      c      d         encoded  -> a b x . .   what causal mode writes after each of them
    prefix   t  a      b    | x  noise ...     kept: t, a, b; the answer got a, b, x, and x is the next cycle's t

The answer is that of causal mode with the same seed, so a proposal that is wrong costs time and nothing else. Proposals
are drawn with the random numbers that causal mode has at their positions. (Logits of several tokens differ from those
of one by rounding; two tokens that are equally likely but for that may change places.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import mlx.core as mx
import numpy as np

from mlx_diffgemma.constraint.automata.adjacency import Flags
from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.events import Event
from mlx_diffgemma.generation.continuation import Written, allowed_next, block_events, draw, read_prompt
from mlx_diffgemma.generation.job import Job
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import CanvasRow, DiffusionGemma
from mlx_diffgemma.model.logits import ProcessedLogits
from mlx_diffgemma.sampling.sampler import random_key

DEFAULT_LENGTH = 32
"""Positions of a canvas at most, if the options do not say how many."""
CONDITIONING_TOP_K = 64
"""Most likely tokens per position that condition the next draft step."""


class _Reached(NamedTuple):
    """How far an answer has come."""

    last_token: int
    """which is not in the cache yet"""
    position: int
    """number of tokens of the answer"""
    state: int
    """of the constraint"""


class _Proposals(NamedTuple):
    """Tokens that may come next, N of them."""

    tokens: mx.array
    """[N] int32"""
    logits: mx.array
    """[N, V] the denoiser's"""


def write_from_drafts(model: DiffusionGemma, job: Job) -> Iterator[Event]:
    """Answer a prompt; the tokens of a cycle are a block, and its steps are the passes through the layers."""
    prompt = yield from read_prompt(model, job)
    longest = min(DEFAULT_LENGTH, model.config.canvas_length)
    writer = _Writer(model=model, job=job, cache=prompt.cache, length=job.config.canvas_length or longest)
    yield from block_events(job, prompt, writer.write(prompt.last_token))


@dataclass(frozen=True, kw_only=True, eq=False)
class _Writer:
    """Writes one answer after what is in the cache."""

    model: DiffusionGemma
    job: Job
    cache: Cache
    length: int
    """positions of a canvas, the first of which has the last token"""

    def write(self, last_token: int) -> Iterator[Written]:
        """Write until max_tokens."""
        reached = _Reached(last_token, position=0, state=0)
        while reached.position < self.job.config.max_tokens:
            written = self._cycle(reached)
            yield written
            state = 0 if self.job.constraint is None else self.job.constraint.after(reached.state, written.tokens)
            reached = _Reached(written.tokens[-1], reached.position + len(written.tokens), state)

    def _cycle(self, reached: _Reached) -> Written:
        """Propose tokens, and write those that the encoder agrees to and the one that it has in place of the next."""
        model, config, constraint = self.model, self.job.config, self.job.constraint
        # Only as many as the answer has room for, together with the token after them.
        count = min(self.length, config.max_tokens - reached.position) - 1
        proposals, allowed = self._propose(reached, count), None
        tokens = proposals.tokens
        if constraint is not None:
            kept, flags = self._matching(constraint, proposals, reached)
            tokens, allowed = mx.array(kept, mx.int32), mx.array(cast("Any", np.stack(flags)))
        encoded = mx.concatenate([mx.array([reached.last_token]), tokens])
        (hidden,) = model.peek([model.embed(encoded[None])], [self.cache])
        drawn = draw(model.logits(hidden)[0], config, reached.position, allowed)
        mx.eval(drawn, tokens)
        written, proposed = _numbers(drawn.tokens), _numbers(tokens)
        agreed = next((index for index, token in enumerate(proposed) if token != written[index]), len(proposed))
        self.cache.advance(agreed + 1)
        # The next cycle may run in another thread.
        mx.eval(self.cache.arrays)
        return Written(
            tokens=tuple(written[: agreed + 1]),
            probabilities=tuple(cast("list[float]", drawn.probabilities[: agreed + 1].tolist())),
            forwards=1 + config.draft_steps * (count > 0),
        )

    def _propose(self, reached: _Reached, count: int) -> _Proposals:
        """Denoise a canvas that begins with the last token; nothing of it stays in the cache."""
        model, config, size = self.model, self.job.config, self.model.config.vocab_size
        if count == 0:
            return _Proposals(mx.zeros((0,), mx.int32), mx.zeros((0, size)))
        last_token, signal = mx.array([[reached.last_token]]), None
        # Step 0 of a position is the draw of its token.
        key = random_key(config.seed, reached.position, 1)
        proposals = _Proposals(mx.random.randint(0, size, (count,), key=key), mx.zeros((0, size)))
        for step in range(config.draft_steps):
            if step > 0:
                expected = model.signal(ProcessedLogits.of(proposals.logits[None], model.kernels), CONDITIONING_TOP_K)
                signal = mx.concatenate([model.embed(last_token), expected], axis=1)
            canvas = mx.concatenate([last_token, proposals.tokens[None]], axis=1)
            (hidden,) = model.denoise([CanvasRow(canvas, self.cache, signal)])
            logits = model.logits(hidden[:, 1:])[0]
            proposals = _Proposals(draw(logits, config, reached.position).tokens.astype(mx.int32), logits)
        return proposals

    def _matching(
        self, constraint: TokenAutomaton, proposals: _Proposals, reached: _Reached
    ) -> tuple[list[int], list[Flags]]:
        """Return proposals that match, up to the end of the text, and [V] what may come in place of each and after all.

        A proposal that is not allowed is drawn again, from the tokens that are.
        """
        config, state = self.job.config, reached.state
        kept: list[int] = []
        flags: list[Flags] = []
        for index, proposed in enumerate([*_numbers(proposals.tokens), None]):
            position = reached.position + index
            allowed = allowed_next(constraint, state, config.max_tokens - position - 1)
            flags.append(allowed)
            if proposed is None:
                break
            token = proposed
            if not allowed[token]:
                logits = proposals.logits[index : index + 1]
                (token,) = _numbers(draw(logits, config, position, mx.array(cast("Any", allowed))).tokens)
            if token in constraint.stops:
                break
            kept.append(token)
            state = constraint.after(state, [token])
        return kept, flags


def _numbers(ids: mx.array) -> list[int]:
    """Return ids [N] as Python numbers."""
    return cast("list[int]", ids.tolist())
