"""How much memory MLX may use: on this machine, and on a Mac of a given size."""

from __future__ import annotations

import os

import mlx.core as mx

KEPT_CACHE = 2 * 2**30
"""Bytes of freed memory that MLX keeps for the next step at most: what a step frees at full size, and a chunk."""
GIGABYTE = 2**30
"""Bytes of a gigabyte of a Mac's memory; files are counted in powers of 1000."""
MACS = (8, 16, 18, 24, 32, 36, 48, 64, 96, 128, 192, 256, 512)
"""The memory of Macs with Apple Silicon, in gigabytes."""
SYSTEM_BYTES = 3 * GIGABYTE
"""What macOS and its programs need beside a model at least."""
_SMALL_MAC = 32 * GIGABYTE
"""Up to this size macOS recommends two thirds of the memory to a GPU, above it three quarters."""


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
    return machine_bytes()


def machine_bytes() -> int:
    """Return the bytes of the machine's memory."""
    size = mx.device_info().get("memory_size")
    return size if isinstance(size, int) else os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def recommended_bytes(memory: int) -> int:
    """Return the bytes that macOS recommends to a GPU at most, on a Mac with `memory` bytes."""
    return memory * 2 // 3 if memory <= _SMALL_MAC else memory * 3 // 4


def mac_for(usable: int) -> int:
    """Return the gigabytes of a Mac, rounded down, that recommends `usable` bytes to its GPU; 1 at least."""
    small = usable * 3 / 2
    memory = small if small <= _SMALL_MAC else max(_SMALL_MAC, usable * 4 / 3)
    # What macOS recommends is rounded down by some bytes.
    return max(1, int(memory / GIGABYTE + 0.01))


def smallest_mac(need: int) -> int | None:
    """Return the gigabytes of the smallest of MACS that recommends `need` bytes to its GPU; None if none does."""
    return next((size for size in MACS if need <= recommended_bytes(size * GIGABYTE)), None)


def higher_limit(need: int, memory: int) -> str | None:
    """Return the command that lets a GPU use `need` bytes of a Mac's `memory`; None if macOS would have too little."""
    if need + SYSTEM_BYTES > memory:
        return None
    return f"sudo sysctl iogpu.wired_limit_mb={-(-need // 2**20)}"
