"""Events taken as a web server does that hands a generator from worker to worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TypeVar

import mlx.core as mx

from mlx_diffgemma.events import Event, Finished

Item = TypeVar("Item")


def each_in_a_thread(items: Iterator[Item]) -> list[Item]:
    """All items, each taken by a thread of its own."""
    taken: list[Item] = []
    more = True

    def take() -> None:
        nonlocal more
        for item in items:
            taken.append(item)
            return
        more = False

    while more:
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    return taken


def taken_in_threads(events: Iterator[Event]) -> list[Event]:
    """All events of a generation, each taken by a thread of its own."""
    taken: list[Event] = []

    def take() -> None:
        taken.append(next(events))
        # What a thread's streams still had to do would be lost with it.
        mx.clear_streams()

    while not taken or not isinstance(taken[-1], Finished):
        thread = threading.Thread(target=take)
        thread.start()
        thread.join()
    return taken
