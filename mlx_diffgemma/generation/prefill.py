"""The prompt into the cache, and what the encoder predicts behind it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import mlx.core as mx

from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma

ATTENTION_CELLS = 2**24
"""Queries times keys of one head in one prefill chunk: bounds what an attention that stores its scores needs."""
MOST = 2048
"""Tokens that are encoded at once, at most."""


def prefill(model: DiffusionGemma, tokens: mx.array, cache: Cache) -> Iterator[int]:
    """Encode tokens [B, L] in chunks; yields how many are in the cache after each."""
    for reached in prefill_rows(model, [tokens], [cache]):
        yield from reached.values()


def prefill_rows(
    model: DiffusionGemma, prompts: Sequence[mx.array], caches: Sequence[Cache]
) -> Iterator[dict[int, int]]:
    """Encode prompts in chunks, short ones together; yields which got further, and how many are in the cache of each.

    A chunk is shorter the longer the prefix is, down to what a canvas needs in every step anyway.
    """
    done = [0] * len(prompts)
    while waiting := [row for row, prompt in enumerate(prompts) if done[row] < prompt.shape[1]]:
        chunks: dict[int, mx.array] = {}
        room = MOST
        for row in waiting:
            length = max(256, min(MOST, ATTENTION_CELLS // (caches[row].offset + MOST) // 256 * 256))
            chunk = prompts[row][:, done[row] : done[row] + length]
            if chunks and chunk.shape[1] > room:
                break
            chunks[row] = chunk
            room -= chunk.shape[1]
        if len(chunks) == 1:
            model.encode(chunks[waiting[0]], caches[waiting[0]])
        else:
            model.encode_rows(list(chunks.values()), [caches[row] for row in chunks])
        # Only the cache is needed: what follows the last layer's keys and values is never computed.
        mx.eval([caches[row].arrays for row in chunks])
        mx.clear_cache()
        for row, chunk in chunks.items():
            done[row] += chunk.shape[1]
        yield {row: done[row] for row in chunks}


def following(model: DiffusionGemma, hidden: mx.array, tokens: mx.array) -> mx.array:
    """The encoder's log-probabilities of tokens [B, L], given hidden [B, L, D] of the tokens before each -> [B, L]"""
    logits = model.causal_logits(hidden)
    chosen = mx.take_along_axis(logits, tokens[..., None], axis=-1).squeeze(-1)
    return chosen - mx.logsumexp(logits, axis=-1)
