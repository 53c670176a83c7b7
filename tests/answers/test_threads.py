"""Generating in threads that end, and in a process that ends before the answers do."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tiny import random_model

from mlx_diffgemma.events import BlockCommitted
from mlx_diffgemma.generation.engine import Job, stream_many
from mlx_diffgemma.generation_config import GenerationConfig

TASKS = Path("/proc/self/task")
JOBS = [Job(tokens=[n + 1], config=GenerationConfig(max_tokens=24, max_steps=2, seed=n)) for n in range(4)]


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
    # MLX leaves one thread running for each that has computed; one that has just ended may still be counted.
    assert counts[-1] <= counts[0] + 11 + 2


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
