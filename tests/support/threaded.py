"""Take each event in another thread, as a web server does that hands a generator from worker to worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TypeVar

import mlx.core as mx

Item = TypeVar("Item")


def taken_in_threads(items: Iterator[Item]) -> list[Item]:
    """Return all items, each taken by a thread of its own."""
    taken: list[Item] = []
    more = True

    def take() -> None:
        nonlocal more
        more = False
        for item in items:
            taken.append(item)
            more = True
            break
        # Work that is left on a thread's streams would be lost when the thread ends.
        mx.clear_streams()

    while more:
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    return taken
