"""The prompt into the cache, and what the encoder predicts behind it."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx

from mlx_diffgemma.cache import Cache
from mlx_diffgemma.model import DiffusionGemma

ATTENTION_CELLS = 2**24
"""Queries times keys of one head in one prefill chunk: bounds what an attention that stores its scores needs."""


def prefill(model: DiffusionGemma, tokens: mx.array, cache: Cache) -> Iterator[int]:
    """Encode tokens [B, L] in chunks; yields how many are in the cache after each.

    A chunk is shorter the longer the prefix is, down to what a canvas needs in every step anyway.
    """
    total = tokens.shape[1]
    done = 0
    while done < total:
        length = max(256, min(2048, ATTENTION_CELLS // (cache.offset + 2048) // 256 * 256))
        model.encode(tokens[:, done : done + length], cache)
        # Only the cache is needed: what follows the last layer's keys and values is never computed.
        mx.eval(cache.arrays)
        mx.clear_cache()
        done = min(done + length, total)
        yield done


def following(model: DiffusionGemma, hidden: mx.array, tokens: mx.array) -> mx.array:
    """The encoder's log-probabilities of tokens [B, L], given hidden [B, L, D] of the tokens before each -> [B, L]"""
    logits = model.causal_logits(hidden)
    chosen = mx.take_along_axis(logits, tokens[..., None], axis=-1).squeeze(-1)
    return chosen - mx.logsumexp(logits, axis=-1)
