"""In which thread something was made: MLX computes a graph only in the thread that built it."""

from __future__ import annotations

import threading

_own = threading.local()


def this_thread() -> object:
    """What stands for this thread as long as somebody holds it; numbers of threads are used again."""
    if not hasattr(_own, "token"):
        _own.token = object()
    return _own.token
