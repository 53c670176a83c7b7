"""Reading prompts into their caches, and what the encoder predicts after them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import mlx.core as mx

from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma

ATTENTION_CELLS = 2**24
"""Queries times keys of one head in one chunk at most: limits what an attention that stores its scores needs."""
MAX_CHUNK = 2048
"""Tokens that are encoded together at most."""
MIN_CHUNK = 256
"""Tokens of one chunk at least, but for the last: a canvas has as many queries in every step anyway."""


def prefill(model: DiffusionGemma, prompts: Sequence[mx.array], caches: Sequence[Cache]) -> Iterator[dict[int, int]]:
    """Encode prompts [1, L], each into its cache, in chunks; short ones go together.

    Yields after each chunk how many tokens are done, by the index of each prompt that advanced. The longer the prefix
    is, the shorter are the chunks.
    """
    done = [0] * len(prompts)
    while waiting := [row for row, prompt in enumerate(prompts) if done[row] < prompt.shape[1]]:
        chunks: dict[int, mx.array] = {}
        remaining = MAX_CHUNK
        for row in waiting:
            length = ATTENTION_CELLS // (caches[row].offset + MAX_CHUNK) // MIN_CHUNK * MIN_CHUNK
            length = max(MIN_CHUNK, min(MAX_CHUNK, length))
            chunk = prompts[row][:, done[row] : done[row] + length]
            if chunks and chunk.shape[1] > remaining:
                break
            chunks[row] = chunk
            remaining -= chunk.shape[1]
        model.encode(list(chunks.values()), [caches[row] for row in chunks])
        # Only the cache is needed: what follows the last layer's keys and values is never computed.
        mx.eval([caches[row].arrays for row in chunks])
        mx.clear_cache()
        for row, chunk in chunks.items():
            done[row] += chunk.shape[1]
        yield {row: done[row] for row in chunks}


class Progress(NamedTuple):
    """How far a prompt has been read."""

    done: int
    """tokens in the cache"""
    last: mx.array | None
    """final hidden state [1, 1, D] of the prompt's last token, None before it is read"""


def prefill_with_last(
    model: DiffusionGemma, prompts: Sequence[mx.array], caches: Sequence[Cache]
) -> Iterator[dict[int, Progress]]:
    """Do what `prefill` does, and compute the hidden state of each prompt's last token, which chunks do not."""
    for reached in prefill(model, [prompt[:, :-1] for prompt in prompts], caches):
        yield {row: Progress(done, None) for row, done in reached.items()}
    if prompts:
        last = model.encode([prompt[:, -1:] for prompt in prompts], caches)
        mx.eval(last, [cache.arrays for cache in caches])
        yield {row: Progress(prompt.shape[1], last[row]) for row, prompt in enumerate(prompts)}


def following(model: DiffusionGemma, hidden: mx.array, tokens: mx.array) -> mx.array:
    """Return the encoder's log-probabilities of tokens [B, L], from hidden [B, L, D] of the tokens before each."""
    logits = model.logits(hidden)
    chosen = mx.take_along_axis(logits, tokens[..., None], axis=-1).squeeze(-1)
    return chosen - mx.logsumexp(logits, axis=-1)
