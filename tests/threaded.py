"""Events taken as a web server does that hands a generator from worker to worker."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from mlx_diffgemma.events import Event, Finished


def taken_in_threads(events: Iterator[Event]) -> list[Event]:
    """All events of a generation, each taken by a thread of its own."""
    taken: list[Event] = []
    while not taken or not isinstance(taken[-1], Finished):
        thread = threading.Thread(target=lambda: taken.append(next(events)))
        thread.start()
        thread.join()
    return taken
