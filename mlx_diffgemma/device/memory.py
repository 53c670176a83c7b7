"""How much memory MLX may use on this machine."""

from __future__ import annotations

import os

import mlx.core as mx


def usable_bytes() -> int:
    """Return the bytes that MLX can use without harm: what Metal recommends, a GPU's memory, or the machine's."""
    info = mx.device_info()
    for name in ("max_recommended_working_set_size", "total_memory"):
        if isinstance(size := info.get(name), int):
            return size
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
