"""Speculative mode writes what causal mode writes, to the token, in fewer passes through the layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from tiny import random_model

from mlx_diffgemma import Completion, Session, load
from mlx_diffgemma.benchmark.prompts import built_in_suite
from mlx_diffgemma.events import BlockCommitted, Event, Finished
from mlx_diffgemma.generation.continuation import draw
from mlx_diffgemma.generation.engine import stream, stream_many
from mlx_diffgemma.generation.job import Job
from mlx_diffgemma.generation.prefixes import Prefixes
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma

QUESTIONS = {case.row: case for case in reversed(built_in_suite("demo-accuracy").cases)}
"""One of each kind that the demo model knows."""
JSON = "Give JSON: Ana is 34 and lives in Rome."
PERSON: dict[str, Any] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
    "required": ["name", "age", "city"],
}
CONFIG = GenerationConfig(mode="speculative", max_tokens=20, stop_tokens=())
PROMPT = tuple(range(3, 33))
"""Longer than the window of the tiny model's sliding layers, which is 8."""


@pytest.fixture(scope="module")
def session() -> Session:
    return load("demo")


@pytest.fixture(scope="module")
def model() -> DiffusionGemma:
    """Full and sliding layers with random weights, whose drafts are nearly always wrong."""
    return random_model()


def blocks(events: Sequence[Event]) -> list[BlockCommitted]:
    return [event for event in events if isinstance(event, BlockCommitted)]


def finished(events: Sequence[Event]) -> Finished:
    [event] = [event for event in events if isinstance(event, Finished)]
    return event


def assert_equal(events: Sequence[Event], expected: Sequence[Event]) -> None:
    """Tokens, the reason and probabilities are equal; the last differ by rounding."""
    for field in ("tokens", "probabilities"):
        written, wanted = (sum((getattr(block, field) for block in blocks(each)), ()) for each in (events, expected))
        assert written == (wanted if field == "tokens" else pytest.approx(wanted, abs=1e-4))
    assert finished(events).reason == finished(expected).reason


def both(model: DiffusionGemma, config: GenerationConfig, prompt: Sequence[int] = PROMPT) -> list[Event]:
    """Return the events of speculative mode, which are equal to those of causal mode."""
    events = list(stream(model, prompt, config))
    causal = replace(config, mode="causal", canvas_length=None, draft_steps=1)
    assert_equal(events, list(stream(model, prompt, causal)))
    return events


def asked(session: Session, question: str, **options: Any) -> Completion:
    """Return the answer of speculative mode, which is equal to that of causal mode."""
    answer = session.generate(question, mode="speculative", **options)
    expected = session.generate(question, mode="causal", **options)
    assert (answer.tokens, answer.finish_reason) == (expected.tokens, expected.finish_reason)
    assert answer.text == expected.text
    assert answer.probabilities == pytest.approx(expected.probabilities, abs=1e-4)
    return answer


# the demo model, whose drafts are mostly right


@pytest.mark.parametrize("options", [{"greedy": True}, {"seed": 1}], ids=str)
def test_the_answer_is_that_of_causal_mode_in_a_third_of_the_passes(session: Session, options: dict[str, Any]) -> None:
    answers = [asked(session, case.prompt, max_tokens=40, **options) for case in QUESTIONS.values()]
    assert len(answers) == 6
    assert sum(answer.stats.tokens for answer in answers) >= 3 * sum(answer.stats.steps for answer in answers)


@pytest.mark.parametrize("seed", range(3))
def test_so_is_an_answer_of_unlikely_tokens(session: Session, seed: int) -> None:
    asked(session, JSON, max_tokens=24, temperature=2.0, top_p=1.0, seed=seed)


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(
    "matching",
    [
        {"json_schema": PERSON},
        {"regex": r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"},
        {"choices": ("Rome", "Berlin", "Rome and Berlin")},
        {"regex": "[a-z ]{8,12}"},
    ],
    ids=["schema", "date", "choices", "letters"],
)
def test_so_is_an_answer_that_must_match(session: Session, matching: dict[str, Any], seed: int) -> None:
    asked(session, JSON, max_tokens=64, seed=seed, **matching)


def test_tokens_that_a_constraint_forces_are_drafted_right(session: Session) -> None:
    """The denoiser thinks of none of them; they come out of the constraint."""
    answer = asked(session, JSON, regex="the sky is blue today!", greedy=True)
    assert answer.stats.blocks < len(answer.tokens) / 4


@pytest.mark.parametrize("stop", ['"', '", "', "34,", "Rome", 'age": 3'])
def test_it_ends_at_a_stop_string_in_the_middle_of_a_draft(session: Session, stop: str) -> None:
    answer = asked(session, JSON, max_tokens=64, stop=stop)
    assert answer.finish_reason == "stop"
    assert stop not in answer.text


@pytest.mark.parametrize("matching", [{}, {"regex": "[A-Z][a-z]*"}], ids=["free", "held"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_max_tokens_may_be_few(session: Session, count: int, matching: dict[str, Any]) -> None:
    answer = asked(session, JSON, max_tokens=count, **matching)
    assert len(answer.tokens) <= count


def test_a_prompt_that_was_read_before_is_not_read_again(session: Session) -> None:
    store = Prefixes()
    first, second = (session.generate(JSON, mode="speculative", prefix=store, seed=4) for _ in range(2))
    assert first.tokens == second.tokens == asked(session, JSON, seed=4).tokens
    assert second.stats.reused_tokens >= second.stats.prompt_tokens - 1


# random weights, whose drafts are mostly wrong


@pytest.mark.parametrize("changes", [{"greedy": True}, {"seed": 1, "temperature": 0.5}], ids=str)
@pytest.mark.parametrize("draft", [{}, {"draft_steps": 2}, {"canvas_length": 5}, {"canvas_length": 1}], ids=str)
def test_wrong_drafts_change_nothing(model: DiffusionGemma, changes: dict[str, Any], draft: dict[str, Any]) -> None:
    """The prompt is longer than the window."""
    both(model, replace(CONFIG, **changes, **draft))


def test_nor_do_they_where_the_answer_grows_beyond_the_window(model: DiffusionGemma) -> None:
    both(model, replace(CONFIG, seed=1), prompt=(10,))


def test_a_block_has_the_tokens_and_the_passes_of_a_cycle(model: DiffusionGemma) -> None:
    events = both(model, replace(CONFIG, draft_steps=2, max_tokens=21, greedy=True))
    sizes, steps = [len(block.tokens) for block in blocks(events)], [block.steps for block in blocks(events)]
    stats = finished(events).stats
    assert sum(sizes) == stats.tokens == 21
    # A last token alone is written without a draft.
    assert steps == [3] * (len(steps) - 1) + [1 if sizes[-1] == 1 and sum(sizes[:-1]) == 20 else 3]
    assert stats.steps_per_block == tuple(steps)
    assert [block.last for block in blocks(events)] == [False] * (len(steps) - 1) + [True]


def test_a_canvas_of_one_position_is_causal_mode(model: DiffusionGemma) -> None:
    events = both(model, replace(CONFIG, canvas_length=1, max_tokens=5))
    assert [(block.steps, len(block.tokens)) for block in blocks(events)] == [(1, 1)] * 5


def test_padding_is_no_token_of_the_answer(model: DiffusionGemma) -> None:
    drawn = sum((block.tokens for block in blocks(both(model, replace(CONFIG, seed=1)))), ())
    job = Job(tokens=PROMPT, config=replace(CONFIG, seed=1), padding=drawn[3])
    events = [event for _, event in stream_many(model, [job])]
    written = sum((block.tokens for block in blocks(events)), ())
    assert written == tuple(token for token in drawn if token != drawn[3])
    assert finished(events).stats.tokens == len(written)


def test_answers_beside_each_other_are_those_alone(model: DiffusionGemma) -> None:
    jobs = [
        Job(tokens=PROMPT[: 4 + 9 * seed], config=replace(CONFIG, seed=seed, mode=mode, max_steps=2))
        for seed, mode in enumerate(("speculative", "causal", "canvas"))
    ]
    events: dict[int, list[Event]] = {0: [], 1: [], 2: []}
    for number, event in stream_many(model, jobs):
        events[number].append(event)
    for number, job in enumerate(jobs):
        assert_equal(events[number], list(stream(model, job.tokens, job.config)))


# draws


def test_draws_have_the_probabilities_of_the_tokens() -> None:
    logits = mx.array([[math.log(probability) for probability in (0.5, 0.3, 0.15, 0.05)]] * 2000)
    all_of_them, nucleus = (
        np.bincount(np.array(draw(logits, replace(CONFIG, top_p=top_p), 0).tokens), minlength=4) / 2000
        for top_p in (1.0, 0.7)
    )
    assert all_of_them == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.04)
    assert nucleus == pytest.approx([0.625, 0.375, 0, 0], abs=0.04)


def test_a_draw_depends_on_its_position_and_not_on_the_draws_beside_it() -> None:
    logits = mx.random.normal((4, 50), key=mx.random.key(0)) * 3
    together = draw(logits, replace(CONFIG, seed=7), 11)
    alone = draw(logits[2:3], replace(CONFIG, seed=7), 13)
    assert together.tokens[2].item() == alone.tokens.item()
    assert together.probabilities[2].item() == pytest.approx(alone.probabilities.item())


def test_only_the_first_token_of_an_answer_must_not_end_it() -> None:
    logits = mx.array(np.eye(6, dtype=np.float32)[[3, 3, 3]] * 9)
    config = GenerationConfig(greedy=True, stop_tokens=(3,))
    first, later = draw(logits, config, 0).tokens.tolist(), draw(logits, config, 1).tokens.tolist()
    assert first[0] != 3
    assert first[1:] == [3, 3]
    assert later == [3, 3, 3]
