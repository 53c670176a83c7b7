"""The functions that a device may compute in its own way, and the tables that say how.

A model is made with one table and keeps it. PLAIN_KERNELS, which Metal takes, are MLX's own functions. CUDA_KERNELS
arrange experts' rows in other tiles, and CPU_KERNELS replace what MLX's CPU backend computes slowly. All compute the
same, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import mlx.core as mx

from mlx_diffgemma.device import cpu
from mlx_diffgemma.device.parts import in_parts

MAX_CHUNK = 2048
"""Tokens that are encoded together at most."""
MIN_CHUNK = 256
"""Tokens of one chunk at least, but for the last: a canvas has as many queries in every step anyway."""
ATTENTION_CELLS = 2**24
"""Queries times keys of one head in one chunk at most, where attention stores its scores."""

PART_LOGITS = 2**24
"""Logits that are read together where memory is short: those of 64 positions at full size."""

Mask: TypeAlias = mx.array | str | None
"""Which keys a query sees: None for all, "causal", or bool, True where it sees one; see `Kernels.attention`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Kernels:
    """One device's functions."""

    exp: Callable[[mx.array], mx.array]
    """exp of float32 values"""
    sigmoid: Callable[[mx.array], mx.array]
    """logistic sigmoid of float32 values"""
    softcap: Callable[[mx.array, float], mx.array]
    """(logits, cap) -> cap * tanh(logits / cap), in float32"""
    attention: Callable[[mx.array, mx.array, mx.array, Mask], mx.array]
    """(queries [B, H, L, d], keys [B, G, S, d], values [B, G, S, e], mask) -> [B, H, L, e]

    Grouped-query attention with scale 1. mask: None, "causal" for queries that are the last of the keys, or bool,
    broadcast to [B, H, L, S].
    """
    tile_height: Callable[[int, int], int]
    """(pairs of a token and an expert, experts) -> rows of one expert that are multiplied together"""
    in_parts: Callable[..., tuple[mx.array, ...]]
    """(function, *arrays [B, C, ..]) -> function(*arrays), perhaps computed for a few positions at a time"""
    chunk_length: Callable[[int, int], int]
    """(tokens of a prompt that could be encoded together, tokens before them) -> how many are"""

    def __deepcopy__(self, _: object) -> Kernels:
        """Return the table itself: copies of a model share it, because MLX's functions cannot be copied."""
        return self


@mx.compile
def _softcap(logits: mx.array, cap: float) -> mx.array:
    return cap * mx.tanh(logits.astype(mx.float32) / cap)


def _attention(queries: mx.array, keys: mx.array, values: mx.array, mask: Mask) -> mx.array:
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=1.0, mask=mask)


def _single_rows(_pairs: int, _experts: int) -> int:
    # Metal's kernels find the rows of one expert themselves.
    return 1


def _cuda_tiles(pairs: int, experts: int) -> int:
    # MLX's kernel for CUDA reads an expert's weights once per tile, and there is a tile with padding for every expert.
    # With fewer than two pairs per expert, tiles of one row read less; from two tall tiles on, tall ones do.
    average = pairs // experts
    return 1 if average < 2 else 16 if average < 64 else 32


def _at_once(function: Callable[..., tuple[mx.array, ...]], *arrays: mx.array) -> tuple[mx.array, ...]:
    return function(*arrays)


def _few_scores(tokens: int, before: int) -> int:
    """Divide a prompt so that an attention which stores its scores stores few: the longer the prefix, the shorter."""
    length = ATTENTION_CELLS // (before + MAX_CHUNK) // MIN_CHUNK * MIN_CHUNK
    return min(tokens, max(MIN_CHUNK, min(MAX_CHUNK, length)))


def _whole_chunks(tokens: int, before: int) -> int:
    """Divide a prompt into chunks of MAX_CHUNK, for which Metal fuses attention; the rest stores its scores."""
    return MAX_CHUNK if tokens >= MAX_CHUNK else _few_scores(tokens, before)


PLAIN_KERNELS = Kernels(
    exp=mx.exp,
    sigmoid=mx.sigmoid,
    softcap=_softcap,
    attention=_attention,
    tile_height=_single_rows,
    in_parts=_at_once,
    chunk_length=_whole_chunks,
)
CUDA_KERNELS = replace(PLAIN_KERNELS, tile_height=_cuda_tiles)
CPU_KERNELS = Kernels(
    exp=cpu.exp,
    sigmoid=cpu.sigmoid,
    softcap=cpu.softcap,
    attention=cpu.attention,
    tile_height=cpu.tile_height,
    in_parts=partial(in_parts, cpu.MAX_LOGITS),
    chunk_length=_few_scores,
)


def sparing(kernels: Kernels) -> Kernels:
    """Return the table for a device that is short of memory: logits are read PART_LOGITS at a time."""
    return replace(kernels, in_parts=partial(in_parts, PART_LOGITS)) if kernels.in_parts is _at_once else kernels


def default_kernels() -> Kernels:
    """Return the table of MLX's default device."""
    if mx.default_device() == mx.Device(mx.cpu):
        return CPU_KERNELS
    return PLAIN_KERNELS if mx.metal.is_available() else CUDA_KERNELS
