"""Attention masks of the encoder: True where a query may look at a key.

A mask covers keys of `cached` tokens that were encoded before, followed by those of the `length` tokens being encoded.
The decoder needs no masks: a canvas sees all its keys, since the cache of a sliding layer holds just the part of the
prefix that the layer may see. Full layers, and sliding ones within one window, need no mask that is stored either.
"""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from mlx_diffgemma.model.kernels import Mask


class Masks(NamedTuple):
    """What the queries of one sequence see in each of the two kinds of layers."""

    sliding: Mask = None
    full: Mask = None


def causal(length: int, cached: int) -> mx.array:
    """Every token sees itself and all before it. -> bool [length, cached + length]"""
    queries = mx.arange(cached, cached + length)[:, None]
    return mx.arange(cached + length)[None, :] <= queries


def sliding(length: int, cached: int, window: int) -> mx.array:
    """Every token sees itself and the window - 1 tokens before it. -> bool [length, cached + length]"""
    queries = mx.arange(cached, cached + length)[:, None]
    return causal(length, cached) & (queries - mx.arange(cached + length)[None, :] < window)


def encoder_mask(length: int, cached: int, window: int | None) -> mx.array | str:
    """Return the mask of an encoder layer, as scaled_dot_product_attention takes it; window None is full attention.

    "causal" stands for `causal(length, cached)` without storing it: for full layers always, for sliding ones while
    everything fits into one window.
    """
    if window is None or cached + length <= window:
        return "causal"
    return sliding(length, cached, window)


def encoder_masks(length: int, cached: int, window: int) -> Masks:
    """Return the masks for `length` tokens after a prefix of `cached`, of which sliding layers keep window - 1."""
    return Masks(sliding=encoder_mask(length, min(cached, window - 1), window), full=encoder_mask(length, cached, None))
