"""The demo model on its suites, a few questions of every kind: how often it is right, in how many steps.

`mlx_diffgemma.bench demo --no-speed --repeats 1 --retries 1 --suite demo-accuracy` (or demo-infill, demo-constrained)
asks a whole suite. Here a few of its questions show that each kind of suite works; `test_demo_model` asks more of every
kind and counts the right answers.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jsonschema
import pytest
from demo_model.suites import CHOICES, PERSON

from mlx_diffgemma.benchmark import SuiteName
from mlx_diffgemma.benchmark.answers import Asking, ask
from mlx_diffgemma.benchmark.diffusion import Diffusion, ModelChoice, load_diffusion
from mlx_diffgemma.benchmark.prompts import built_in_suite
from mlx_diffgemma.benchmark.results import Attempt, figures
from mlx_diffgemma.benchmark.suite import Case
from mlx_diffgemma.errors import OptionError
from mlx_diffgemma.infilling.template import Gap

ONCE = Asking(max_tokens=384, repeats=1, retries=1, seed=0)


@pytest.fixture(scope="module")
def demo_model() -> Diffusion:
    return load_diffusion(ModelChoice(model="demo"))


def groups(name: SuiteName, chosen: slice, kinds: tuple[str, ...] = ()) -> Mapping[str, list[Case]]:
    """Return some cases of every group of a suite, or of the groups `kinds`."""
    found: dict[str, list[Case]] = defaultdict(list)
    for case in built_in_suite(name).cases:
        if not kinds or case.row in kinds:
            found[case.row].append(case)
    return {row: cases[chosen] for row, cases in found.items()}


def asked(subject: Diffusion, cases: list[Case]) -> list[Attempt]:
    return [attempt for case in cases for attempt in ask(subject, case, ONCE)]


def right(subject: Diffusion, name: SuiteName, chosen: slice, kinds: tuple[str, ...]) -> dict[str, int]:
    """Return how many of some cases of every group are answered right."""
    return {row: figures(asked(subject, cases)).accepted for row, cases in groups(name, chosen, kinds).items()}


def test_one_token_after_another_is_right_too(demo_model: Diffusion) -> None:
    choice = replace(demo_model.choice, choices={"mode": "causal", "temperature": 0.001})
    accepted = right(replace(demo_model, choice=choice), "demo-accuracy", slice(10, 13), ("sums", "json", "count"))
    assert list(accepted) == ["sums", "json", "count"]
    assert sum(accepted.values()) >= 8, accepted


def test_options_of_the_command_line_apply_to_a_suite(demo_model: Diffusion) -> None:
    """A canvas needs two equal drafts to converge, but one is enough without a second look, or in one step."""
    [cases] = groups("demo-accuracy", slice(3), ("sums",)).values()
    usual, unstable, hasty = (
        asked(replace(demo_model, choice=replace(demo_model.choice, choices=choices)), cases)
        for choices in ({}, {"stability_threshold": 0}, {"max_steps": 1})
    )
    assert min(attempt.reply.forwards for attempt in usual) == 2
    assert min(attempt.reply.forwards for attempt in unstable) == 1
    assert {attempt.reply.forwards for attempt in hasty} == {1}


def test_gaps_are_filled_right_and_the_text_around_them_stays(demo_model: Diffusion) -> None:
    kinds = ("sudoku", "function", "json", "count", "function, any length")
    for row, cases in groups("demo-infill", slice(4), kinds).items():
        attempts = asked(demo_model, cases)
        assert sum(attempt.accepted for attempt in attempts) >= 3, row
        for case, attempt in zip(cases, attempts, strict=True):
            assert_intact(case, attempt.reply.text)


def assert_intact(case: Case, text: str) -> None:
    """Every text of a template is in the filled text, in order."""
    position = 0
    for part in case.template:
        if not isinstance(part, Gap):
            position = text.index(part, position) + len(part)
    first, last = case.template[0], case.template[-1]
    assert isinstance(first, Gap) or text.startswith(first)
    assert isinstance(last, Gap) or text.endswith(last)


@pytest.mark.parametrize("condition", ["default", "unseen names", "one step", "canvas of 8", "hot"])
def test_under_a_schema_every_answer_is_valid_and_none_fewer_are_right(demo_model: Diffusion, condition: str) -> None:
    free, schema = (
        asked(demo_model, cases)
        for cases in groups("demo-constrained", slice(1), (f"{condition}, free", f"{condition}, schema")).values()
    )
    for attempt in schema:
        jsonschema.validate(json.loads(attempt.reply.text), PERSON)
    assert sum(attempt.accepted for attempt in schema) >= sum(attempt.accepted for attempt in free)


@pytest.mark.parametrize("kind", ["choices", "date"])
def test_a_question_of_any_kind_gets_one_of_the_choices_or_a_date(demo_model: Diffusion, kind: str) -> None:
    [cases] = groups("demo-constrained", slice(3), (kind,)).values()
    attempts = asked(demo_model, cases)
    assert all(attempt.accepted for attempt in attempts)
    assert kind == "date" or {attempt.reply.text for attempt in attempts} <= set(CHOICES)


def test_an_option_that_the_model_refuses_names_its_prompt(demo_model: Diffusion) -> None:
    [case] = groups("demo", slice(1), ("sum",))["sum"]
    options: dict[str, Any] = {"canvas_length": 64}
    with pytest.raises(OptionError, match=r"^prompt sum: canvas_length=64 is longer than the 32 positions"):
        demo_model.problem(replace(case, options=options), 20)
