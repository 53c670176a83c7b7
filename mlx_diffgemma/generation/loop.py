"""The loop that answers prompts together: token ids in, events out. It knows nothing of text.

Every turn:
  1  jobs that wait are admitted, in order, while there is room for them
  2  the next chunk of the prompts that are not read yet goes into their caches    -> Prefilled
     a prompt that is read gets a canvas of noise                                  -> CanvasStarted
  3  all canvases are denoised together, by one step                               -> Denoised
  4  a canvas that is over is cut after its end token                              -> BlockCommitted
     if another canvas follows, this one is encoded into the cache before step 3   -> CanvasStarted
     else the answer is over                                                       -> Finished
  5  every task, such as the filling of a template, goes on to its next event

Jobs come and go between turns. What fails, fails for one job alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterator, Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar, TypeVarTuple

from mlx_diffgemma.device.memory import bound_cache
from mlx_diffgemma.events import Event
from mlx_diffgemma.generation.admission import needed_bytes
from mlx_diffgemma.generation.blocks import Generation
from mlx_diffgemma.generation.causal import write
from mlx_diffgemma.generation.job import Job, check_lengths
from mlx_diffgemma.generation.prefill import read_chunk
from mlx_diffgemma.generation.speculative import write_from_drafts
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.denoising import Denoiser
from mlx_diffgemma.sampling.sampler import Draft, Sampler
from mlx_diffgemma.sampling.strategy import default_rules

Key = TypeVar("Key", bound=Hashable)
Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")
Task: TypeAlias = Callable[[], Iterator[Event]]
"""Work that yields events by itself; it is begun, and goes on, in the loop's thread."""
AnyJob: TypeAlias = Job | Task


class Ended(NamedTuple):
    """Nothing more comes of a job. error: what went wrong, if anything did."""

    error: Exception | None = None


Happening: TypeAlias = tuple[Key, Event | Ended]
"""What a turn did for the job of a key; the last thing is always Ended, but for a job that was cancelled."""


class _Admitted(NamedTuple):
    """A job in progress."""

    work: AnyJob
    needed: int
    """bytes that its cache may need"""


class Loop(Generic[Key]):
    """Jobs that are answered together. The caller names each by a key, and takes turns while it is not idle."""

    def __init__(
        self,
        model: DiffusionGemma,
        *,
        width: int | None = None,
        max_bytes: int | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        """width: jobs in progress at most. max_bytes: memory for their caches, but one job is always admitted.

        sampler: instead of the one that a job's options describe.
        """
        bound_cache()
        self._model = model
        self._width = width
        self._max_bytes = max_bytes
        self._sampler = sampler
        self._denoiser = Denoiser(model)
        self._waiting: deque[tuple[Key, AnyJob]] = deque()
        self._admitted: dict[Key, _Admitted] = {}
        self._reading: dict[Key, Generation] = {}
        self._denoising: dict[Key, Generation] = {}
        self._tasks: dict[Key, Iterator[Event]] = {}

    @property
    def is_idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._waiting and not self._admitted

    def submit(self, key: Key, work: AnyJob) -> None:
        """Add a job after all that wait."""
        self._waiting.append((key, work))

    def cancel(self, key: Key) -> None:
        """Drop a job and its memory, wherever it is; nothing happens if it has ended."""
        self._waiting = deque((each, work) for each, work in self._waiting if each != key)
        if key in self._admitted:
            self._drop(key)

    def turn(self) -> Iterator[Happening[Key]]:
        """Do the next piece of every job, and yield what happened."""
        yield from self._admit()
        yield from self._read()
        yield from self._denoise()
        yield from self._advance_tasks()

    def _drop(self, key: Key) -> None:
        if key in self._denoising:
            # What is built ahead holds the caches.
            self._denoiser.forget()
        task = self._tasks.pop(key, None)
        if isinstance(task, Generator):
            task.close()
        for jobs in (self._admitted, self._reading, self._denoising):
            jobs.pop(key, None)

    def _end(self, key: Key, error: Exception | None = None) -> Happening[Key]:
        self._drop(key)
        return key, Ended(error)

    def _admit(self) -> Iterator[Happening[Key]]:
        """Begin the jobs that there is room for: step 1."""
        while self._waiting and self._has_room(self._waiting[0][1]):
            key, work = self._waiting.popleft()
            self._admitted[key] = _Admitted(work, self._needed(work))
            begun = _attempt(self._begin, key, work)
            if isinstance(begun, Exception):
                yield self._end(key, begun)

    def _has_room(self, work: AnyJob) -> bool:
        if not self._admitted:
            return True
        if self._width is not None and len(self._admitted) >= self._width:
            return False
        used = sum(each.needed for each in self._admitted.values())
        return self._max_bytes is None or used + self._needed(work) <= self._max_bytes

    def _needed(self, work: AnyJob) -> int:
        return needed_bytes(self._model, work) if isinstance(work, Job) and self._max_bytes is not None else 0

    def _begin(self, key: Key, work: AnyJob) -> None:
        if not isinstance(work, Job):
            self._tasks[key] = work()
            return
        length = check_lengths(self._model, work)
        match work.config.mode:
            case "canvas":
                rules = default_rules(self._model, work.config, self._sampler)
                self._reading[key] = Generation(self._model, work, rules, length)
            case "causal":
                self._tasks[key] = write(self._model, work)
            case "speculative":
                self._tasks[key] = write_from_drafts(self._model, work)

    def _read(self) -> Iterator[Happening[Key]]:
        """Read a chunk of the prompts that are not read yet, and start the canvases of those that are: step 2."""
        before = {key: generation.reading.done for key, generation in self._reading.items()}
        unread = [each.reading for each in self._reading.values() if not each.reading.is_over]
        advanced = _attempt(read_chunk, self._model, unread) if unread else []
        if isinstance(advanced, Exception):
            yield from self._read_each(advanced)
        for key, generation in list(self._reading.items()):
            if generation.reading.done != before[key] or generation.reading.is_over:
                yield key, generation.prefilled()
            if generation.reading.is_over:
                yield from self._start(key, self._reading.pop(key))

    def _read_each(self, error: Exception) -> Iterator[Happening[Key]]:
        """After reading prompts together has failed, begin each of them again by itself."""
        if len(self._reading) == 1:
            yield self._end(next(iter(self._reading)), error)
        for key in list(self._reading):
            own = _attempt(self._read_again, key)
            if isinstance(own, Exception):
                yield self._end(key, own)

    def _read_again(self, key: Key) -> None:
        self._begin(key, self._admitted[key].work)
        read_chunk(self._model, [self._reading[key].reading])

    def _start(self, key: Key, generation: Generation) -> Iterator[Happening[Key]]:
        event = _attempt(generation.start)
        if isinstance(event, Exception):
            yield self._end(key, event)
        else:
            self._denoising[key] = generation
            yield key, event

    def _denoise(self) -> Iterator[Happening[Key]]:
        """Take a step of every canvas: steps 3 and 4."""
        for key, draft in self._drafts().items():
            generation = self._denoising[key]
            events = draft if isinstance(draft, Exception) else _attempt(generation.take, draft)
            if isinstance(events, Exception):
                yield self._end(key, events)
                continue
            yield from ((key, event) for event in events)
            if generation.is_over:
                yield self._end(key)

    def _drafts(self) -> dict[Key, Draft | Exception]:
        """Return the draft of every canvas after its next step, or what went wrong with it."""
        if not self._denoising:
            return {}
        drafts = _attempt(self._step, list(self._denoising.values()))
        if not isinstance(drafts, Exception):
            return dict(zip(self._denoising, drafts, strict=True))
        if len(self._denoising) == 1:
            return dict.fromkeys(self._denoising, drafts)
        # One of them is the cause: by itself it fails alone.
        alone = {key: _attempt(self._step, [generation]) for key, generation in self._denoising.items()}
        return {key: draft if isinstance(draft, Exception) else draft[0] for key, draft in alone.items()}

    def _step(self, generations: Sequence[Generation]) -> list[Draft]:
        for generation in generations:
            generation.catch_up()
        return self._denoiser.step([generation.canvas for generation in generations])

    def _advance_tasks(self) -> Iterator[Happening[Key]]:
        """Let every task go on to its next event: step 5."""
        for key, task in list(self._tasks.items()):
            event = _attempt(next, task, None)
            if event is None or isinstance(event, Exception):
                yield self._end(key, event)
            else:
                yield key, event


def _attempt(do: Callable[[*Arguments], Result], *arguments: *Arguments) -> Result | Exception:
    """Return the result of a call, or what it raises: that is reported to the job alone for which it was done."""
    try:
        return do(*arguments)
    except Exception as error:  # noqa: BLE001
        return error
