"""Attention masks, as they are: True where a query may look at a key.

A mask covers keys of `cached` tokens that are already there followed by the `length` tokens being encoded. Only the
encoder needs masks, and only sliding layers need one that is stored: the decoder's canvas sees all its keys, since a
sliding layer's cache holds just the part of the prefix that the layer may see.
"""

from __future__ import annotations

import mlx.core as mx


def causal(length: int, cached: int) -> mx.array:
    """Every token sees itself and what precedes it. -> bool [length, cached + length]"""
    queries = mx.arange(cached, cached + length)[:, None]
    return mx.arange(cached + length)[None, :] <= queries


def sliding(length: int, cached: int, window: int) -> mx.array:
    """Every token sees itself and the window - 1 tokens before it. -> bool [length, cached + length]"""
    queries = mx.arange(cached, cached + length)[:, None]
    return causal(length, cached) & (queries - mx.arange(cached + length)[None, :] < window)


def encoder_mask(length: int, cached: int, window: int | None) -> mx.array | str:
    """What scaled_dot_product_attention takes for an encoder layer; window None means full attention.

    The name "causal" stands for `causal(length, cached)` without storing it: for full layers always, for sliding ones
    while everything fits in one window.
    """
    if window is None or cached + length <= window:
        return "causal"
    return sliding(length, cached, window)
