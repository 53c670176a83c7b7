"""The loop in a thread of its own: jobs may arrive from any thread while others run.

    caller's thread                       the engine's thread
    submit(job) -> Handle     ----->      Loop.submit, then a turn after the other
    handle.events()           <-----      every event as it happens
    handle.cancel()           ----->      Loop.cancel before the next turn

All that MLX computes for answers is computed in the one thread. It sleeps while there is nothing to do, and ends with
its Engine or with the process. `stream` and `stream_many` take the turns of a loop in the caller's thread instead.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from queue import Empty, SimpleQueue
from typing import TypeAlias

import mlx.core as mx

from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.device.wired import wired
from mlx_diffgemma.errors import DiffGemmaError
from mlx_diffgemma.events import Event
from mlx_diffgemma.generation.admission import room_for_caches
from mlx_diffgemma.generation.job import Job, check_lengths
from mlx_diffgemma.generation.loop import AnyJob, Ended, Loop
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.sampler import Sampler

Deliver: TypeAlias = Callable[[Event | Ended], None]
"""Takes what happens to a job, in the engine's thread; it must return at once."""


@dataclass(frozen=True)
class _Submit:
    number: int
    work: AnyJob
    deliver: Deliver


@dataclass(frozen=True)
class _Cancel:
    number: int


@dataclass(frozen=True)
class _Close:
    drain: bool


_Message: TypeAlias = _Submit | _Cancel | _Close


class Handle:
    """A job that was submitted."""

    def __init__(self, number: int, inbox: SimpleQueue[_Message], arrived: SimpleQueue[Event | Ended]) -> None:
        self._number = number
        self._inbox = inbox
        self._arrived = arrived

    def events(self) -> Iterator[Event]:
        """Yield the job's events as they happen, and raise what went wrong. Closing the iterator cancels the job."""
        try:
            while True:
                arrived = self._arrived.get()
                if not isinstance(arrived, Ended):
                    yield arrived
                elif arrived.error is None:
                    return
                else:
                    raise arrived.error
        finally:
            self.cancel()

    def cancel(self) -> None:
        """End the job within one step; `events` ends after those that have happened."""
        self._inbox.put(_Cancel(self._number))


class Engine:
    """Answers jobs together, in a thread that begins with the first job."""

    def __init__(self, model: DiffusionGemma, *, max_bytes: int | None = None) -> None:
        """max_bytes: memory for the caches of all answers in progress; None is what the device has left."""
        self._inbox: SimpleQueue[_Message] = SimpleQueue()
        self._numbers = count()
        self._lock = threading.Lock()
        self._thread = threading.Thread(
            target=_run, args=(model, self._inbox, max_bytes), name="mlx_diffgemma.engine", daemon=True
        )
        # Runs when the engine is collected and when the process ends: MLX aborts a process whose threads compute.
        self._close = weakref.finalize(self, _close, self._inbox, self._thread)

    def submit(self, work: AnyJob, deliver: Deliver | None = None) -> Handle:
        """Begin a job as soon as there is room. Raises DiffGemmaError if the engine is closed.

        deliver: called in the engine's thread with all that `Handle.events` would yield; then that yields nothing.
        """
        arrived: SimpleQueue[Event | Ended] = SimpleQueue()
        with self._lock:
            if not self._close.alive:
                raise DiffGemmaError("this session is closed: load the model again")
            if self._thread.ident is None:
                self._thread.start()
            number = next(self._numbers)
        self._inbox.put(_Submit(number, work, deliver or arrived.put))
        return Handle(number, self._inbox, arrived)

    def close(self, *, drain: bool = False) -> None:
        """End the thread. drain: first finish the jobs that were submitted, instead of cancelling them."""
        if drain:
            self._inbox.put(_Close(drain=True))
        self._close()


def _close(inbox: SimpleQueue[_Message], thread: threading.Thread) -> None:
    inbox.put(_Close(drain=False))
    # The last reference to an engine may be dropped in its own thread.
    if thread.ident is not None and thread is not threading.current_thread():
        thread.join()


def _run(model: DiffusionGemma, inbox: SimpleQueue[_Message], max_bytes: int | None) -> None:
    """Be the engine's thread."""
    worker = _Worker(model, inbox, max_bytes)
    try:
        worker.run()
    finally:
        # A thread that leaves its streams behind makes the process abort.
        mx.clear_streams()


class _Worker:
    """What the engine's thread does: it takes messages, and turns while there are jobs."""

    def __init__(self, model: DiffusionGemma, inbox: SimpleQueue[_Message], max_bytes: int | None) -> None:
        self._inbox = inbox
        room = room_for_caches(model, mx.get_active_memory()) if max_bytes is None else max_bytes
        self._loop: Loop[int] = Loop(model, max_bytes=room)
        self._delivers: dict[int, Deliver] = {}
        self._is_closing = self._is_cut_short = False

    def run(self) -> None:
        """Work until a message says to close."""
        try:
            while not self._is_closing:
                self._take(self._inbox.get())
                with wired():
                    self._finish_jobs()
        finally:
            for number in list(self._delivers):
                self._cancel(number)

    def _finish_jobs(self) -> None:
        while True:
            with suppress(Empty):
                while True:
                    self._take(self._inbox.get_nowait())
            if self._loop.is_idle or self._is_cut_short:
                return
            for number, happened in self._loop.turn():
                self._deliver(number, happened)

    def _take(self, message: _Message) -> None:
        match message:
            case _Submit(number=number, work=work, deliver=deliver):
                self._delivers[number] = deliver
                self._loop.submit(number, work)
            case _Cancel(number=number):
                self._cancel(number)
            case _Close(drain=drain):
                self._is_cut_short = not drain and not self._is_closing
                self._is_closing = True

    def _cancel(self, number: int) -> None:
        if number in self._delivers:
            self._loop.cancel(number)
            self._deliver(number, Ended())

    def _deliver(self, number: int, happened: Event | Ended) -> None:
        deliver = self._delivers.get(number)
        if deliver is None:
            return
        if isinstance(happened, Ended):
            del self._delivers[number]
        try:
            deliver(happened)
        except RuntimeError:
            # The event loop that listened is closed: nobody waits for this answer. It is cancelled between two turns.
            self._inbox.put(_Cancel(number))


def stream(
    model: DiffusionGemma,
    tokens: Sequence[int],
    config: GenerationConfig,
    *,
    sampler: Sampler | None = None,
    constraint: TokenAutomaton | None = None,
) -> Iterator[Event]:
    """Answer the prompt `tokens` in this thread; the events carry no text.

    `sampler` replaces the entropy-bound sampler of `config`. Raises, at once, PromptError for a prompt that is empty or
    does not fit, OptionError for a canvas longer than the model's, ConstraintError for a `constraint` that no answer
    of max_tokens can meet.
    """
    job = Job(tokens=tokens, config=config, constraint=constraint)
    check_lengths(model, job)
    return (event for _, event in stream_many(model, [job], sampler=sampler))


def stream_many(
    model: DiffusionGemma, jobs: Iterable[Job], *, width: int = 1, sampler: Sampler | None = None
) -> Iterator[tuple[int, Event]]:
    """Answer jobs in this thread, `width` of them together; yield events, each with the number of its job, from 0.

    A job's events come in order and do not depend on the other jobs; those of several jobs alternate. Raises what
    `stream` raises, when the job's turn comes.
    """
    loop: Loop[int] = Loop(model, width=width, sampler=sampler)
    for number, job in enumerate(jobs):
        loop.submit(number, job)
    while not loop.is_idle:
        for number, happened in loop.turn():
            if not isinstance(happened, Ended):
                yield number, happened
            elif happened.error is not None:
                raise happened.error
