"""Lanes: iterators whose items several threads make at the same time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest
from tiny import random_model

from mlx_diffgemma.device.threads import Shared, in_lane, settled, side_by_side
from mlx_diffgemma.events import BlockCommitted
from mlx_diffgemma.generation.engine import Job, stream_many
from mlx_diffgemma.generation_config import GenerationConfig

TASKS = Path("/proc/self/task")
JOBS = [Job(tokens=[n + 1], config=GenerationConfig(max_tokens=24, max_steps=2, seed=n)) for n in range(4)]


def test_all_items_come_and_those_of_one_iterator_in_order() -> None:
    taken = list(side_by_side([iter([(run, n) for n in range(20 * run)]) for run in range(3)]))
    for run in range(3):
        assert [n for of, n in taken if of == run] == list(range(20 * run))


def test_iterators_run_at_the_same_time_in_threads_of_their_own() -> None:
    both = threading.Barrier(2, timeout=30)

    def run() -> Iterator[tuple[bool, int]]:
        both.wait()
        yield in_lane(), threading.get_ident()

    found = list(side_by_side([run(), run()]))
    assert [lane for lane, _ in found] == [True, True]
    assert len({thread for _, thread in found} | {threading.get_ident()}) == 3
    assert not in_lane()


def test_an_error_in_a_lane_is_the_callers() -> None:
    def fail() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        list(side_by_side([fail(), iter(range(1, 10**6))]))
    assert list(side_by_side([iter([1])])) == [1]


def test_what_is_left_early_is_not_gone_on_with() -> None:
    made: list[int] = []

    def run() -> Iterator[int]:
        for number in range(1, 10**6):
            made.append(number)
            yield number

    items = side_by_side([run(), run()])
    next(items)
    items.close()
    count = len(made)
    assert count < 10
    time.sleep(0.05)
    assert len(made) == count


def test_threads_take_every_item_of_a_shared_iterator_once() -> None:
    shared = Shared(range(1000))
    runs = [(number for number in shared) for _ in range(3)]
    assert sorted(side_by_side(runs)) == list(range(1000))


def test_what_a_lane_plans_is_computed_and_elsewhere_it_is_not() -> None:
    def run() -> Iterator[mx.array]:
        yield settled(mx.ones((3,)) + 1)

    (result,) = side_by_side([run()])
    # An array that only another thread has planned cannot be read here.
    assert result.tolist() == [2.0, 2.0, 2.0]
    assert settled(result) is result


def test_many_threads_that_generate_leave_nothing_behind() -> None:
    model = random_model()
    expected = {number: event.tokens for number, event in blocks(model)}
    answers: list[bool] = []

    def work() -> None:
        answers.append({number: event.tokens for number, event in blocks(model)} == expected)

    counts: list[int] = []
    for _ in range(12):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        counts.append(len(list(TASKS.iterdir())) if TASKS.exists() else threading.active_count())
    assert answers == [True] * 12
    # Two per round would be left behind; a thread that has just ended may still be counted.
    assert counts[-1] <= counts[0] + 2


def blocks(model: object) -> list[tuple[int, BlockCommitted]]:
    """The second block of every job."""
    events = stream_many(model, JOBS, width=4)  # type: ignore[arg-type]
    return [(number, event) for number, event in events if isinstance(event, BlockCommitted) and event.block == 1]


@pytest.mark.parametrize("way", ["pass", "events.close()", "sys.exit(0)"])
def test_a_process_that_leaves_answers_unfinished_ends_in_peace(way: str) -> None:
    program = (
        "import sys; from test_threads import JOBS; from tiny import random_model;"
        "from mlx_diffgemma.generation.engine import stream_many;"
        f"events = stream_many(random_model(), JOBS, width=4); [next(events) for _ in range(5)]; {way}"
    )
    path = os.pathsep.join([str(Path(__file__).parents[1] / "support"), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
