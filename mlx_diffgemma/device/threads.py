"""In which thread MLX computes: that which built a graph, and on the CPU with one core for each.

Lanes are threads that answer prompts beside each other. MLX lets all threads together plan about a hundred operations
ahead, and a thread that wants to plan more keeps the others from planning any: a lane computes little by little.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import TypeVar

import mlx.core as mx

LANES = 2
"""Threads that compute at the same time on the CPU, at most: more would wait for each other's hundred operations."""
AHEAD = 2
"""What a lane has done or is about to do when its caller looks at something else, so that it need not wait for that."""

Item = TypeVar("Item")
_own = threading.local()
_idle: list[ThreadPoolExecutor] = []


def this_thread() -> object:
    """What stands for this thread as long as somebody holds it; numbers of threads are used again."""
    if not hasattr(_own, "token"):
        _own.token = object()
    return _own.token


def in_lane() -> bool:
    """Whether this thread is one of several that compute."""
    return getattr(_own, "lane", False)


def settled(planned: Item) -> Item:
    """An array, or a tuple of them; in a lane it is computed before more is planned."""
    if in_lane():
        mx.eval(planned)
    return planned


class Shared(Iterator[Item]):
    """An iterator from which several threads take."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()

    def __next__(self) -> Item:
        with self._lock:
            return next(self._items)


class _Streams:
    """Kept by a thread, it goes when the thread ends; MLX aborts the process where a thread left its streams behind."""

    def __del__(self) -> None:
        mx.clear_streams()


def _enter() -> None:
    _own.lane, _own.streams = True, _Streams()


def side_by_side(runs: Sequence[Iterator[Item]]) -> Iterator[Item]:
    """The items of several iterators, none of them None, each iterator in a lane of its own, as they come.

    Those of one iterator are in order. Behind the last item, or when it is left early, nothing is under way.
    """
    lanes = [_lane() for _ in runs]
    pending = [deque(lane.submit(next, run, None) for _ in range(AHEAD)) for lane, run in zip(lanes, runs, strict=True)]
    try:
        while any(pending):
            wait([futures[0] for futures in pending if futures], return_when=FIRST_COMPLETED)
            for lane, run, futures in zip(lanes, runs, pending, strict=True):
                if not futures or not futures[0].done():
                    continue
                item = futures.popleft().result()
                if item is not None:
                    futures.append(lane.submit(next, run, None))
                    yield item
    finally:
        left = [future for futures in pending for future in futures if not future.cancel()]
        wait(left)
        _idle.extend(lanes)


def _lane() -> ThreadPoolExecutor:
    """A thread of its own. It is used again: what MLX starts for a thread does not end with it."""
    try:
        return _idle.pop()
    except IndexError:
        return ThreadPoolExecutor(1, thread_name_prefix="lane", initializer=_enter)
