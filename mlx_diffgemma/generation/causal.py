"""Writing one token after another with the encoder, whose weights are a causal language model too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count
from typing import Any, NamedTuple, cast

import mlx.core as mx

from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.events import BlockCommitted, Event, Finished, Prefilled
from mlx_diffgemma.generation.job import Job
from mlx_diffgemma.generation.prefill import read_from, read_whole
from mlx_diffgemma.generation.timing import Clock
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.ahead import Ahead
from mlx_diffgemma.sampling.canvas import Endings
from mlx_diffgemma.sampling.sampler import random_key

CLEARED_EVERY = 256
"""Tokens after which the allocator's cache is cleared: the prefix grows, so buffers of old sizes are not used again."""


class Drawn(NamedTuple):
    """The next token."""

    token: mx.array
    """[1, 1]"""
    probability: mx.array
    """[1, 1] by the encoder, among the tokens that a constraint allowed"""

    @property
    def values(self) -> tuple[int, float]:
        """Token and probability as Python numbers."""
        return cast("int", self.token.item()), cast("float", self.probability.item())


def write(model: DiffusionGemma, job: Job) -> Iterator[Event]:
    """Answer a prompt; every token is a block of its own, of one step."""
    clock, config, constraint, total = Clock(), job.config, job.constraint, len(job.tokens)
    # The last token of the prompt is encoded with the first draw.
    reading = read_from(model, job.tokens[:-1], job.reuse)
    reused = reading.done
    for reached in read_whole(model, reading):
        yield replace(reached, total=total)
    clock.prefilled()
    yield Prefilled(done=total, total=total)
    cache, last_token = reading.cache, mx.array([[job.tokens[-1]]])
    if constraint is None:
        drawn = _drawn(model, last_token, cache, config)
    else:
        drawn = _drawn_within(constraint, model, last_token, cache, config)
    endings = Endings(tokens=config.stop_tokens, strings=job.stop_strings)
    said = 0
    for position, (token, probability) in enumerate(drawn):
        stopped = endings.first([token]) is not None
        last = stopped or position + 1 == config.max_tokens
        clock.committed(1)
        is_padding = token == job.padding
        said += not is_padding
        yield BlockCommitted(
            block=position,
            steps=1,
            tokens=() if is_padding else (token,),
            probabilities=() if is_padding else (probability,),
            last=last,
        )
        if last:
            stats = clock.stats(total, said, reused=reused)
            yield Finished(reason="stop" if stopped else "length", stats=stats)
            return
        endings = endings.after([token])


def _drawn(
    model: DiffusionGemma, token: mx.array, cache: Cache, config: GenerationConfig
) -> Iterator[tuple[int, float]]:
    """Draw tokens, without end, after token [1, 1]; while one is computed the next one's graph is built."""
    drawn = _next(model, token, cache, config, position=0)
    for position in count(1):
        prefix = cache.arrays
        mx.async_eval(drawn, prefix)
        build_next = partial(_next, model, drawn.token, cache, config, position=position)
        ahead = Ahead([cache], build_next)
        # Also the prefix, because the next token may be drawn in another thread.
        mx.eval(drawn, prefix)
        yield drawn.values
        drawn = ahead.take() or build_next()
        if position % CLEARED_EVERY == 0:
            mx.clear_cache()


def _drawn_within(
    constraint: TokenAutomaton, model: DiffusionGemma, token: mx.array, cache: Cache, config: GenerationConfig
) -> Iterator[tuple[int, float]]:
    """Draw tokens after which the text can still match; which they are depends on the token before."""
    state = 0
    for position in range(config.max_tokens):
        allowed = constraint.allowed(state, config.max_tokens - position - 1)
        allowed[list(constraint.stops)] = constraint.accepting[state]
        drawn = _next(model, token, cache, config, position=position, allowed=mx.array(cast("Any", allowed)))
        mx.eval(drawn, cache.arrays)
        yield drawn.values
        token = drawn.token
        state = constraint.after(state, [drawn.values[0]])
        if position % CLEARED_EVERY == 0:
            mx.clear_cache()


def _next(
    model: DiffusionGemma,
    token: mx.array,
    cache: Cache,
    config: GenerationConfig,
    *,
    position: int,
    allowed: mx.array | None = None,
) -> Drawn:
    """Encode token [1, 1] and draw the next one, out of the tokens that are `allowed` [V]."""
    (hidden,) = model.encode([token], [cache])
    logits = model.logits(hidden)[:, -1]
    possible = logits if allowed is None else mx.where(allowed, logits, -mx.inf)
    total = mx.logsumexp(possible, axis=-1, keepdims=True)
    if position == 0 and (forbidden := config.forbidden_first(logits.shape[-1])):
        possible[:, forbidden] = -mx.inf
    if config.is_greedy:
        chosen = mx.argmax(possible, axis=-1, keepdims=True)
    else:
        kept = nucleus(possible / config.temperature, config.top_p)
        chosen = mx.random.categorical(kept, key=random_key(config.seed, position, 0))[:, None]
    return Drawn(chosen, mx.exp(mx.take_along_axis(logits, chosen, axis=-1) - total))


def nucleus(logits: mx.array, top_p: float) -> mx.array:
    """Set logits [B, V] to -inf but for the most likely tokens that together have the probability top_p.

    Nucleus sampling, arXiv 1904.09751.
    """
    if top_p == 1:
        return logits
    ranked = mx.sort(logits, axis=-1)[:, ::-1]
    probabilities = mx.softmax(ranked, axis=-1, precise=True)
    reached = mx.cumsum(probabilities, axis=-1) - probabilities < top_p
    # A logit stays if it is at least the lowest of those that are needed.
    lowest = mx.where(reached, ranked, mx.inf).min(axis=-1, keepdims=True)
    return mx.where(logits >= lowest, logits, -mx.inf)
