"""Events taken as a web server does that hands a generator from worker to worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TypeVar

import mlx.core as mx

Item = TypeVar("Item")


def taken_in_threads(items: Iterator[Item]) -> list[Item]:
    """All items, each taken by a thread of its own."""
    taken: list[Item] = []
    more = True

    def take() -> None:
        nonlocal more
        more = False
        for item in items:
            taken.append(item)
            more = True
            break
        # What a thread's streams still had to do would be lost with it.
        mx.clear_streams()

    while more:
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    return taken
