"""Metal's wired limit while something is generated: macOS may otherwise page out weights near the machine's memory."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager

import mlx.core as mx

_lock = threading.Lock()
_users = 0
_before = 0


@contextmanager
def wired() -> Generator[None]:
    """Let MLX keep in memory as much as the device recommends; as before when the last of several users leaves.

    Does nothing where there is no Metal. mlx-lm does the same around its generation.
    """
    global _users, _before  # noqa: PLW0603 - the limit is the process's
    if not mx.metal.is_available():
        yield
        return
    with _lock:
        if _users == 0:
            _before = mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))
        _users += 1
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                # What still runs must not lose its memory.
                mx.synchronize()
                mx.set_wired_limit(_before)
