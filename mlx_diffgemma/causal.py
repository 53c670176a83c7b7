"""Writing one token after another with the encoder: the same weights are a causal language model, too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import cast

import mlx.core as mx

from mlx_diffgemma.cache import Cache
from mlx_diffgemma.clock import Clock
from mlx_diffgemma.events import BlockCommitted, Event, Finished, Prefilled
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model import DiffusionGemma
from mlx_diffgemma.prefix import prefill
from mlx_diffgemma.sampler import random_key
from mlx_diffgemma.threads import this_thread

CLEARED_EVERY = 256
"""Tokens after which the allocator's cache is given back: the prefix grows, so its arrays are never of one size."""


def write(model: DiffusionGemma, tokens: Sequence[int], config: GenerationConfig) -> Iterator[Event]:
    """Generate behind the prompt `tokens`; every token is a block of its own, of one step."""
    clock, cache, prompt = Clock(), model.make_cache(), mx.array([list(tokens)])
    for done in prefill(model, prompt[:, :-1], cache):
        yield Prefilled(done=done, total=len(tokens))
    # The last token of the prompt is encoded with the first draw.
    clock.prefilled()
    yield Prefilled(done=len(tokens), total=len(tokens))
    for place, token in enumerate(_drawn(model, prompt[:, -1:], cache, config)):
        stopped = token in config.stop_tokens
        last = stopped or place + 1 == config.max_tokens
        clock.committed(1)
        yield BlockCommitted(block=place, steps=1, tokens=(token,), last=last)
        if last:
            yield Finished(reason="stop" if stopped else "length", stats=clock.stats(len(tokens), place + 1))
            return


def _drawn(model: DiffusionGemma, token: mx.array, cache: Cache, config: GenerationConfig) -> Iterator[int]:
    """Tokens without end behind token [1, 1]; the graph of the next is built while one is computed."""
    token = _next(model, token, cache, config, 0)
    for place in count(1):
        mx.async_eval(token, cache.arrays)
        before, here = cache.snapshot(), this_thread()
        ahead = _next(model, token, cache, config, place)
        mx.eval(token, before.arrays)
        yield cast("int", token.item())
        if here is not this_thread():
            cache.restore(before)
            ahead = _next(model, token, cache, config, place)
        # Nobody may hold the prefix as it was when the next token is written behind it.
        del before
        token = ahead
        if place % CLEARED_EVERY == 0:
            mx.clear_cache()


def _next(model: DiffusionGemma, token: mx.array, cache: Cache, config: GenerationConfig, place: int) -> mx.array:
    """Encode token [1, 1] and draw the one behind it -> [1, 1]"""
    logits = model.causal_logits(model.encode(token, cache))[:, -1]
    if place == 0 and (forbidden := config.forbidden_first(logits.shape[-1])):
        logits[:, forbidden] = -mx.inf
    if config.greedy:
        return mx.argmax(logits, axis=-1, keepdims=True)
    kept = nucleus(logits / config.temperature, config.top_p)
    return mx.random.categorical(kept, key=random_key(config.seed, place, 0))[:, None]


def nucleus(logits: mx.array, top_p: float) -> mx.array:
    """logits [B, V] with -inf for all but the most likely tokens whose probabilities reach top_p (arXiv 1904.09751)."""
    if top_p == 1:
        return logits
    ranked = mx.sort(logits, axis=-1)[:, ::-1]
    probabilities = mx.softmax(ranked, axis=-1, precise=True)
    reached = mx.cumsum(probabilities, axis=-1) - probabilities < top_p
    # A logit stays if it is at least the lowest of those that are needed.
    lowest = mx.where(reached, ranked, mx.inf).min(axis=-1, keepdims=True)
    return mx.where(logits >= lowest, logits, -mx.inf)
