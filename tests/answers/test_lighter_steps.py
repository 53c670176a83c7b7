"""Steps that compute less, in a session: what they change, and what they leave as it is."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_diffgemma import Regex, Session, load
from mlx_diffgemma.events import BlockCommitted
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma

QUESTIONS = ("What is 47 + 38?", "Sort: lamp, boat, rocket, apple", "Count from 3 to 9")
UNSETTLED = {"rows": "unsettled", "whole_every": 4}


@pytest.fixture(scope="module")
def demo_session() -> Session:
    return load("demo")


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many positions each step computed."""
    counts: list[int] = []
    whole = DiffusionGemma.processed_logits

    def counted(model: DiffusionGemma, hidden: Any, temperature: Any) -> Any:
        counts.append(hidden.shape[1])
        return whole(model, hidden, temperature)

    monkeypatch.setattr(DiffusionGemma, "processed_logits", counted)
    return counts


def test_answers_are_those_of_whole_steps(demo_session: Session, rows: list[int]) -> None:
    answers = [demo_session.generate(question, **UNSETTLED).text for question in QUESTIONS]
    assert min(rows) < max(rows)
    assert answers == [demo_session.generate(question).text for question in QUESTIONS]


def test_answers_side_by_side_are_those_of_each_alone(demo_session: Session) -> None:
    alone = [demo_session.generate(question, **UNSETTLED).tokens for question in QUESTIONS]
    together = demo_session.generate(list(QUESTIONS), **UNSETTLED)
    assert [answer.tokens for answer in together] == alone


def test_an_answer_that_must_match_computes_all_positions(demo_session: Session, rows: list[int]) -> None:
    answer = demo_session.generate(QUESTIONS[0], constraint=Regex(r"[0-9 +=]*"), **UNSETTLED)
    assert len(set(rows)) == 1
    assert answer.tokens == demo_session.generate(QUESTIONS[0], constraint=Regex(r"[0-9 +=]*")).tokens


def test_the_part_of_the_prefix_that_is_seen_matters_to_later_steps_alone(demo_session: Session) -> None:
    """The first step sees it whole, so a canvas of one step is what it would be."""
    prompt = "Count from 3 to 40"
    first = [demo_session.generate(prompt, max_steps=1, prefix_top_k=n, seed=3).tokens for n in (None, 1)]
    assert first[0] == first[1]
    assert demo_session.generate(prompt, prefix_top_k=500).tokens == demo_session.generate(prompt).tokens


def test_a_talk_goes_on_as_after_answers_that_saw_all(demo_session: Session) -> None:
    """What is kept of a prefix is whole: only canvases see part of it."""
    question = [{"role": "user", "content": QUESTIONS[0]}]
    answer = demo_session.generate(question, prefix_top_k=2)
    talk = [*question, {"role": "assistant", "content": answer.text}, {"role": "user", "content": QUESTIONS[2]}]
    continued = demo_session.generate(talk)
    assert continued.tokens == load("demo").generate(talk).tokens


def test_candidates_of_other_lengths_choose_for_themselves(demo_session: Session) -> None:
    text = "3 4 5 6 <gap:1-2> 8 9"
    whole = demo_session.infill(text, max_steps=3)
    assert demo_session.infill(text, max_steps=3, prefix_top_k=500, rows="unsettled", whole_every=1).text == whole.text
    assert demo_session.infill(text, max_steps=3, prefix_top_k=2, **UNSETTLED).text.startswith("3 4 5 6 ")


def test_canvases_after_the_first_choose_anew(demo_session: Session) -> None:
    events = list(demo_session.stream("Count from 3 to 60", prefix_top_k=8, max_tokens=120, **UNSETTLED))
    assert sum(isinstance(event, BlockCommitted) for event in events) > 1
