"""The functions that a device may compute in its own way, and the tables that say how: PLAIN_KERNELS and CPU_KERNELS.

A model is made with one table and keeps it. PLAIN_KERNELS, which a GPU takes, are MLX's own functions. CPU_KERNELS
replace what MLX's CPU backend computes slowly. Both compute the same, up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import mlx.core as mx

from mlx_diffgemma.device import cpu

Mask: TypeAlias = mx.array | str | None
"""Which keys a query sees: None for all, "causal", or bool, True where it sees one; see `attention`."""


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
    """see `attention`"""
    tile_height: Callable[[int, int], int]
    """(pairs of a token and an expert, experts) -> rows of one expert that are multiplied together"""
    in_parts: Callable[..., tuple[mx.array, ...]]
    """(function, *arrays [B, C, ..]) -> function(*arrays), perhaps computed for a few positions at a time"""

    def __deepcopy__(self, _: object) -> Kernels:
        """Return the table itself: copies of a model share it, because MLX's functions cannot be copied."""
        return self


@mx.compile
def softcap(logits: mx.array, cap: float) -> mx.array:
    """Compute cap * tanh(logits / cap), in float32."""
    return cap * mx.tanh(logits.astype(mx.float32) / cap)


def attention(queries: mx.array, keys: mx.array, values: mx.array, mask: Mask) -> mx.array:
    """Compute grouped-query attention with scale 1: [B, H, L, d], [B, G, S, d], [B, G, S, e] -> [B, H, L, e].

    mask: None, "causal" for queries that are the last of the keys, or bool, broadcast to [B, H, L, S].
    """
    return mx.fast.scaled_dot_product_attention(queries, keys, values, scale=1.0, mask=mask)


def single_rows(_pairs: int, _experts: int) -> int:
    """Return 1: GPU kernels find the rows of one expert themselves."""
    return 1


def at_once(function: Callable[..., tuple[mx.array, ...]], *arrays: mx.array) -> tuple[mx.array, ...]:
    """Return function(*arrays)."""
    return function(*arrays)


PLAIN_KERNELS = Kernels(
    exp=mx.exp,
    sigmoid=mx.sigmoid,
    softcap=softcap,
    attention=attention,
    tile_height=single_rows,
    in_parts=at_once,
)
CPU_KERNELS = Kernels(
    exp=cpu.exp,
    sigmoid=cpu.sigmoid,
    softcap=cpu.softcap_by_sigmoid,
    attention=cpu.attention_in_parts,
    tile_height=cpu.tile_height,
    in_parts=cpu.in_parts,
)


def default_kernels() -> Kernels:
    """Return the table of MLX's default device."""
    return CPU_KERNELS if mx.default_device() == mx.Device(mx.cpu) else PLAIN_KERNELS
