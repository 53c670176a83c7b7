"""How much memory MLX may use on this machine."""

from __future__ import annotations

import os

import mlx.core as mx

KEPT_CACHE = 2 * 2**30
"""Bytes of freed memory that MLX keeps for the next step at most: what a step frees at full size, and a chunk."""


def bound_cache() -> None:
    """Let MLX keep at most KEPT_CACHE bytes of freed memory, or fewer if somebody said so before.

    Its own limit is the machine's memory, which prompts of ever new lengths fill.
    """
    before = mx.set_cache_limit(KEPT_CACHE)
    if before < KEPT_CACHE:
        mx.set_cache_limit(before)


def usable_bytes() -> int:
    """Return the bytes that MLX can use without harm: what Metal recommends, a GPU's memory, or the machine's."""
    info = mx.device_info()
    for name in ("max_recommended_working_set_size", "total_memory"):
        if isinstance(size := info.get(name), int):
            return size
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
