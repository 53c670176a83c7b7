"""The graph of the next step, built while the device computes this one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from mlx_diffgemma.model.cache import Cache

Graph = TypeVar("Graph")


class Ahead(Generic[Graph]):
    """A graph that is built before it is known whether it is needed, and can be undone.

    MLX evaluates a graph only in the thread that built it, while a generator may be resumed by any thread.
    """

    def __init__(self, caches: Sequence[Cache], build: Callable[[], Graph]) -> None:
        """Build the graph, which writes to `caches`."""
        self._caches = caches
        self._before = [cache.snapshot() for cache in caches]
        self._thread = threading.current_thread()
        self._graph: Graph | None = build()

    def take(self) -> Graph | None:
        """Return the graph, or None if it was undone; in a thread that did not build it, undo it."""
        if self._thread is not threading.current_thread():
            self.undo()
        # As long as a snapshot is held, writing copies the prefix.
        self._before = []
        return self._graph

    def undo(self) -> None:
        """Restore the caches as they were before the graph was built."""
        if self._graph is not None:
            for cache, before in zip(self._caches, self._before, strict=True):
                cache.restore(before)
        self._graph = None
