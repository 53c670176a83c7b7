"""Writing one token after another with the encoder."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any, cast

import mlx.core as mx

from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.events import Event
from mlx_diffgemma.generation.continuation import Drawn, Written, allowed_next, block_events, draw, read_prompt
from mlx_diffgemma.generation.job import Job
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.ahead import Ahead


def write(model: DiffusionGemma, job: Job) -> Iterator[Event]:
    """Answer a prompt; every token is a block of its own, of one step."""
    prompt = yield from read_prompt(model, job)
    last_token = mx.array([prompt.last_token])
    if job.constraint is None:
        written = _written(model, last_token, prompt.cache, job.config)
    else:
        written = _written_within(job.constraint, model, last_token, prompt.cache, job.config)
    yield from block_events(job, prompt, written)


def _written(model: DiffusionGemma, token: mx.array, cache: Cache, config: GenerationConfig) -> Iterator[Written]:
    """Write tokens, without end, after token [1]; while one is computed the next one's graph is built."""
    drawn = _next(model, token, cache, config, position=0)
    for position in count(1):
        prefix = cache.arrays
        mx.async_eval(drawn, prefix)
        build_next = partial(_next, model, drawn.tokens, cache, config, position=position)
        ahead = Ahead([cache], build_next)
        # Also the prefix, because the next token may be drawn in another thread.
        mx.eval(drawn, prefix)
        yield _as_written(drawn)
        drawn = ahead.take() or build_next()


def _written_within(
    constraint: TokenAutomaton, model: DiffusionGemma, token: mx.array, cache: Cache, config: GenerationConfig
) -> Iterator[Written]:
    """Write tokens after which the text can still match; which they are depends on the token before."""
    state = 0
    for position in range(config.max_tokens):
        allowed = allowed_next(constraint, state, config.max_tokens - position - 1)
        drawn = _next(model, token, cache, config, position=position, allowed=mx.array(cast("Any", allowed)))
        mx.eval(drawn, cache.arrays)
        written = _as_written(drawn)
        yield written
        token = drawn.tokens
        state = constraint.after(state, written.tokens)


def _next(
    model: DiffusionGemma,
    token: mx.array,
    cache: Cache,
    config: GenerationConfig,
    *,
    position: int,
    allowed: mx.array | None = None,
) -> Drawn:
    """Encode token [1] and draw the next one, out of the tokens that are `allowed` [V]."""
    (hidden,) = model.encode([token[None]], [cache])
    return draw(model.logits(hidden)[0], config, position, allowed)


def _as_written(drawn: Drawn) -> Written:
    """Return a token that is computed as a part of the answer."""
    token, probability = cast("int", drawn.tokens.item()), cast("float", drawn.probabilities.item())
    return Written((token,), (probability,), forwards=1)
