"""Ways to wait for what the engine does: in an asyncio event loop, for several jobs at once, for one result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
from itertools import islice
from queue import SimpleQueue
from typing import TypeVar

from mlx_diffgemma.events import Event
from mlx_diffgemma.generation.engine import Engine, Handle
from mlx_diffgemma.generation.loop import AnyJob, Ended

Value = TypeVar("Value")


async def events_of(engine: Engine, work: AnyJob) -> AsyncGenerator[Event]:
    """Submit a job, and yield its events as they happen; closing the generator cancels the job.

    The event loop only receives: everything is computed in the engine's thread.
    """
    loop = asyncio.get_running_loop()
    arrived: asyncio.Queue[Event | Ended] = asyncio.Queue()

    def deliver(happened: Event | Ended) -> None:
        loop.call_soon_threadsafe(arrived.put_nowait, happened)

    handle = engine.submit(work, deliver)
    try:
        while not isinstance(happened := await arrived.get(), Ended):
            yield happened
        if happened.error is not None:
            raise happened.error
    finally:
        handle.cancel()


def events_of_many(engine: Engine, works: Iterable[AnyJob], width: int) -> Generator[tuple[int, Event]]:
    """Submit jobs, `width` of them at a time; yield events, each with the number of its job, from 0.

    The next job is submitted when one has ended. Raises the error of the first job that fails, and cancels the others.
    """
    arrived: SimpleQueue[tuple[int, Event | Ended]] = SimpleQueue()
    handles: dict[int, Handle] = {}

    def submit(number: int, work: AnyJob) -> None:
        handles[number] = engine.submit(work, lambda happened: arrived.put((number, happened)))

    waiting = enumerate(works)
    try:
        for number, work in islice(waiting, width):
            submit(number, work)
        while handles:
            number, happened = arrived.get()
            if not isinstance(happened, Ended):
                yield number, happened
                continue
            del handles[number]
            if happened.error is not None:
                raise happened.error
            for following, work in islice(waiting, 1):
                submit(following, work)
    finally:
        for handle in handles.values():
            handle.cancel()


def result_of(engine: Engine, compute: Callable[[], Value]) -> Value:
    """Compute something in the engine's thread, between the steps of its jobs, and return it."""
    results: list[Value] = []

    def work() -> Iterator[Event]:
        results.append(compute())
        yield from ()

    for _ in engine.submit(work).events():
        pass
    return results[0]
