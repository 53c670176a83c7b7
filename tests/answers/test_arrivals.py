"""Jobs that come, go and fail while others run: each is answered as if it were alone."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, count
from typing import Any

import mlx.core as mx
import pytest
from foretold import FAILS, LAST, STOP, CountingModel, counted_on

from mlx_diffgemma import Session, load
from mlx_diffgemma.errors import DiffGemmaError, PromptError
from mlx_diffgemma.events import BlockCommitted, Denoised, Event, Finished, Prefilled
from mlx_diffgemma.generation.arrivals import events_of, events_of_many, result_of
from mlx_diffgemma.generation.engine import Engine, Handle
from mlx_diffgemma.generation.job import Job
from mlx_diffgemma.generation.loop import Ended, Loop
from mlx_diffgemma.generation_config import GenerationConfig

CONFIG = GenerationConfig(stop_tokens=(STOP,), max_steps=3, allow_empty=True, max_tokens=20)
ROOM = 2**30


def job(prompt: Sequence[int], **changes: Any) -> Job:
    return Job(tokens=prompt, config=replace(CONFIG, **changes))


def tokens_of(events: Sequence[Event | Ended]) -> tuple[int, ...]:
    return sum((event.tokens for event in events if isinstance(event, BlockCommitted)), ())


@pytest.fixture
def engine() -> Any:
    engine = Engine(CountingModel(), max_bytes=ROOM)  # type: ignore[arg-type]
    yield engine
    engine.close()


# the loop, turn by turn


@pytest.mark.parametrize("seed", range(500))
def test_jobs_that_come_and_go_and_fail_are_answered_as_alone(seed: int) -> None:
    chance = random.Random(seed)
    loop: Loop[int] = Loop(CountingModel(), width=chance.choice([None, 1, 3]))  # type: ignore[arg-type]
    numbers, jobs = count(), dict[int, Job]()
    happened: dict[int, list[Event | Ended]] = {}
    cancelled: dict[int, int] = {}
    while len(jobs) < 8 or not loop.is_idle:
        if len(jobs) < 8 and chance.random() < 0.6:
            number = next(numbers)
            fails = [FAILS] * (chance.random() < 0.15)
            jobs[number] = job([5, *fails, chance.randint(10, LAST)], max_tokens=chance.randint(1, 20))
            happened[number] = []
            loop.submit(number, jobs[number])
        if jobs and chance.random() < 0.1:
            number = chance.choice(list(jobs))
            loop.cancel(number)
            cancelled.setdefault(number, len(happened[number]))
        for number, event in loop.turn():
            happened[number].append(event)
    for number, each in jobs.items():
        events = happened[number]
        expected = counted_on(each.tokens, each.config.max_tokens)
        if number in cancelled:
            assert len(events) == cancelled[number]
            assert tokens_of(events) == expected[: len(tokens_of(events))]
        elif FAILS in each.tokens:
            assert isinstance(events[-1], Ended)
            assert str(events[-1].error) == "a prompt holds the token that fails"
        else:
            assert tokens_of(events) == expected
            assert isinstance(events[-2], Finished)
            assert events[-1] == Ended()


def test_a_prompt_is_read_in_chunks_between_the_steps_of_others() -> None:
    loop: Loop[str] = Loop(CountingModel())  # type: ignore[arg-type]
    loop.submit("short", job([5, 6]))
    list(loop.turn())
    loop.submit("long", Job(tokens=[7] * 5000, config=CONFIG))
    model = CountingModel()
    model.config.max_position_embeddings = 10_000
    order = [(key, type(event).__name__) for _ in range(4) for key, event in loop.turn()]
    model.config.max_position_embeddings = 1000
    # Between two chunks of the long prompt the short one takes a step.
    kinds = [key for key, kind in order if kind in ("Prefilled", "Denoised")]
    assert kinds[:4] == ["long", "short", "long", "short"]


def test_as_many_jobs_are_admitted_as_fit_and_the_rest_waits_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlx_diffgemma.generation.loop.needed_bytes", lambda model, each: len(each.tokens))
    loop: Loop[int] = Loop(CountingModel(), max_bytes=5)  # type: ignore[arg-type]
    for number, length in enumerate((9, 3, 2, 1)):
        loop.submit(number, job([20] * length, max_tokens=4))
    ended: list[tuple[int, set[int]]] = []
    active: set[int] = set()
    while not loop.is_idle:
        for number, event in loop.turn():
            active.add(number)
            if isinstance(event, Ended):
                ended.append((number, set(active)))
                active.discard(number)
    # One too large for the room is answered by itself; then two fit together, and the last one waits.
    assert ended == [(0, {0}), (1, {1, 2}), (2, {2}), (3, {3})]


def test_a_cancelled_job_leaves_no_memory(demo_session: Session) -> None:
    # Sessions of other tests may still wait to be collected.
    gc.collect()
    before = mx.get_active_memory()
    loop: Loop[int] = Loop(demo_session.model)
    prepared = demo_session.preparation.job("word " * 30, demo_session.defaults)
    loop.submit(0, prepared)
    list(loop.turn())
    assert mx.get_active_memory() > before + 30_000
    loop.cancel(0)
    assert loop.is_idle
    assert mx.get_active_memory() <= before + 10_000


@pytest.fixture(scope="module")
def demo_session() -> Session:
    return load("demo")


# the engine's thread


def test_answers_of_many_threads_are_those_given_alone(engine: Engine) -> None:
    found: dict[int, tuple[int, ...]] = {}

    def ask(number: int) -> None:
        chance = random.Random(number)
        for turn in range(10):
            prompt = [5, chance.randint(10, LAST)]
            events = list(engine.submit(job(prompt)).events())
            assert tokens_of(events) == counted_on(prompt, 20)
            found[10 * number + turn] = tokens_of(events)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 100


def test_what_fails_is_raised_where_it_was_asked_and_harms_nobody(engine: Engine) -> None:
    good, bad = engine.submit(job([5, 12])), engine.submit(job([FAILS, 12]))
    with pytest.raises(ValueError, match="the token that fails"):
        list(bad.events())
    assert tokens_of(list(good.events())) == counted_on([12], 20)


def test_an_impossible_job_is_refused_alone(engine: Engine) -> None:
    good, bad = engine.submit(job([5, 12])), engine.submit(job([999]))
    with pytest.raises(PromptError, match="token id 999 is outside"):
        list(bad.events())
    assert tokens_of(list(good.events())) == counted_on([12], 20)


def test_a_cancelled_job_ends_without_an_error(engine: Engine) -> None:
    handle = engine.submit(job([5, 10], max_tokens=1, max_steps=1))
    assert isinstance(list(handle.events())[-1], Finished)
    handle.cancel()
    endless = engine.submit(ticks)
    events = endless.events()
    next(events)
    endless.cancel()
    assert not any(isinstance(event, Finished) for event in events)


def ticks() -> Any:
    """A task without an end."""
    for number in count():
        yield BlockCommitted(block=number, steps=1, tokens=(number,), last=False)


def test_a_generator_that_is_left_cancels_its_job(engine: Engine) -> None:
    events = engine.submit(ticks).events()
    next(events)
    events.close()
    # The loop is free again: what comes next is answered.
    assert tokens_of(list(engine.submit(job([5, 30])).events())) == (31, STOP)


def test_many_at_once_are_answered_a_few_at_a_time(engine: Engine) -> None:
    prompts = [[5, 12 + number] for number in range(12)]
    events: dict[int, list[Event]] = {number: [] for number in range(12)}
    for number, event in events_of_many(engine, [job(prompt) for prompt in prompts], 3):
        events[number].append(event)
    assert [tokens_of(events[number]) for number in range(12)] == [counted_on(prompt, 20) for prompt in prompts]


def test_a_computation_runs_in_the_engines_thread(engine: Engine) -> None:
    assert result_of(engine, threading.current_thread).name == "mlx_diffgemma.engine"
    with pytest.raises(ZeroDivisionError):
        result_of(engine, lambda: 1 // 0)


def test_closing_cancels_and_draining_finishes() -> None:
    for drain in (False, True):
        engine = Engine(CountingModel(), max_bytes=ROOM)  # type: ignore[arg-type]
        handles = [engine.submit(job([5, 10 + number])) for number in range(5)]
        engine.close(drain=drain)
        answers = [list(handle.events()) for handle in handles]
        finished = [any(isinstance(event, Finished) for event in events) for events in answers]
        assert all(finished) if drain else not all(finished)
        with pytest.raises(DiffGemmaError, match="this session is closed"):
            engine.submit(job([5]))


def test_an_engine_that_is_dropped_ends_its_thread() -> None:
    engine = Engine(CountingModel(), max_bytes=ROOM)  # type: ignore[arg-type]
    list(engine.submit(job([5, 30])).events())
    thread = next(each for each in threading.enumerate() if each.name == "mlx_diffgemma.engine")
    del engine
    thread.join(30)
    assert not thread.is_alive()


def test_ten_thousand_jobs_leave_nothing_behind(engine: Engine) -> None:
    def answer(count: int) -> None:
        handles: list[Handle] = [engine.submit(job([5, LAST], max_tokens=1, max_steps=1)) for _ in range(count)]
        for handle in handles:
            assert tokens_of(list(handle.events())) == (STOP,)

    answer(100)
    gc.collect()
    memory, threads = mx.get_active_memory(), threading.active_count()
    for _ in range(99):
        answer(100)
    gc.collect()
    # What the last job held may not be dropped yet: less than a byte per job.
    assert mx.get_active_memory() < memory + 10_000
    assert threading.active_count() == threads


# asyncio


def test_answers_are_awaited_side_by_side(engine: Engine) -> None:
    async def ask(last: int) -> tuple[int, ...]:
        return tokens_of([event async for event in events_of(engine, job([5, last]))])

    async def main() -> list[tuple[int, ...]]:
        return await asyncio.gather(*(ask(last) for last in range(10, 31)))

    assert asyncio.run(main()) == [counted_on([last], 20) for last in range(10, 31)]


def test_an_awaited_answer_that_is_left_is_cancelled(engine: Engine) -> None:
    async def main() -> None:
        events = events_of(engine, ticks)
        async for _ in events:
            break
        await events.aclose()

    asyncio.run(main())
    assert tokens_of(list(engine.submit(job([5, 30])).events())) == (31, STOP)


def test_a_listener_that_is_gone_ends_its_job_alone(engine: Engine) -> None:
    """Whichever event it is that nobody takes: the first of a prompt that is read comes in the middle of a turn."""
    taken: list[Event | Ended] = []

    def refuse(happened: Event | Ended) -> None:
        taken.append(happened)
        raise RuntimeError("Event loop is closed")

    engine.submit(job([5, 10]), refuse)
    engine.submit(ticks, refuse)
    assert tokens_of(list(engine.submit(job([5, 30])).events())) == (31, STOP)
    assert tokens_of(list(engine.submit(job([5, 29])).events())) == (30, 31, STOP)
    assert isinstance(taken[0], Prefilled)


def test_an_event_loop_that_ends_does_not_disturb_the_engine(engine: Engine) -> None:
    async def main() -> Any:
        events = events_of(engine, ticks)
        await anext(events)
        return events

    asyncio.run(main())
    assert tokens_of(list(engine.submit(job([5, 30])).events())) == (31, STOP)


def test_a_session_answers_in_asyncio_as_elsewhere(demo_session: Session) -> None:
    async def main() -> tuple[str, list[str]]:
        answer = await demo_session.agenerate("What is 12 + 5?")
        texts = [
            event.text async for event in demo_session.astream("What is 12 + 5?") if isinstance(event, BlockCommitted)
        ]
        return answer.text, texts

    text, texts = asyncio.run(main())
    assert text == "".join(texts) == demo_session.generate("What is 12 + 5?").text


@pytest.mark.parametrize("seed", range(4))
def test_random_arrivals_at_the_demo_are_answered_as_alone(demo_session: Session, seed: int) -> None:
    chance = random.Random(seed)
    questions = [f"What is {chance.randint(1, 50)} + {chance.randint(1, 40)}?" for _ in range(5)]
    answers: list[tuple[str, Iterator[Event]]] = []
    for question in questions:
        handle = demo_session.engine.submit(demo_session.preparation.job(question, demo_session.defaults))
        events = handle.events()
        if chance.random() < 0.5:
            taken = [next(events) for _ in range(chance.randint(1, 3))]
            events = chain(taken, events)
            if chance.random() < 0.5:
                handle.cancel()
                continue
        answers.append((question, events))
    for question, events in answers:
        assert tokens_of(list(events)) == demo_session.generate(question).tokens
        assert any(isinstance(event, Denoised) for event in demo_session.stream(question))
