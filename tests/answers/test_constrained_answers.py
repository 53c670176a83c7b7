"""Answers that must match: across canvases, beside free ones, in every mode, in any thread; and how likely they are."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import mlx.core as mx
import numpy as np
import pytest
from in_process import call
from terminal import environment
from threaded import taken_in_threads
from tiny import encoded

from mlx_diffgemma import BlockCommitted, Completion, Denoised, GenerationConfig, Session, generate, load
from mlx_diffgemma.constraint.spec import Choices, JsonSchema, Regex
from mlx_diffgemma.errors import ConstraintError, OptionError
from mlx_diffgemma.generation.scoring import log_probabilities

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}, "city": {"type": "string"}},
    "required": ["name", "age", "city"],
}
QUESTION = "Give JSON: Ana is 34 and lives in Rome."
ANSWER = '{"name": "Ana", "age": 34, "city": "Rome"}'
DATE = r"\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])"
SHORT = {"canvas_length": 4, "max_tokens": 60, "max_steps": 6}


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Automata are kept in a folder of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def session() -> Session:
    return load("demo")


@pytest.fixture(scope="module")
def noise(demo: Path) -> Session:
    """A model of random weights: whatever it says that matches, matches for the constraint alone."""
    return load(demo)


@pytest.fixture
def defaults(session: Session) -> GenerationConfig:
    return replace(session.defaults, max_tokens=64)


def test_an_answer_that_matches_anyway_is_the_same(session: Session, defaults: GenerationConfig) -> None:
    free = session.generate(QUESTION, defaults)
    held = session.generate(QUESTION, defaults, json_schema=PERSON)
    assert free.text == held.text == ANSWER
    assert free.tokens == held.tokens


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"trim": True},
        {"verify": 0.01, "max_tokens": 14, "max_steps": 2},
        {"mode": "causal"},
        {"mode": "speculative"},
        SHORT,
        {"conditioning_top_k": None},
    ],
    ids=str,
)
def test_the_answer_matches_however_it_is_written(noise: Session, changes: dict[str, Any]) -> None:
    config = replace(noise.defaults, **{"max_steps": 4, "max_tokens": 40, **changes})
    answer = noise.generate("Hello", config, regex=DATE)
    assert re.fullmatch(DATE, answer.text)
    assert answer.finish_reason == "stop" or len(answer.tokens) == config.max_tokens
    if config.verify is None:
        # Checked text is denoised again from nearly every token of a model of noise, which takes long.
        person = noise.generate("Hello", replace(config, max_tokens=60), json_schema=PERSON)
        jsonschema.validate(json.loads(person.text), PERSON)
    assert noise.generate("Hello", config, choices=["yes", "no"]).text in ("yes", "no")


def test_a_text_over_several_canvases_is_finished_within_the_budget(noise: Session) -> None:
    pattern = "(ab|cd){12,20}!"
    shortest = int(noise.preparation.constraint(replace(noise.defaults, constraint=Regex(pattern))).distance[0])
    for room in (shortest, shortest + 1, shortest + 7):
        config = replace(noise.defaults, max_tokens=room, canvas_length=4, max_steps=3)
        answer = noise.generate("Hello", config, regex=pattern)
        assert re.fullmatch(pattern, answer.text)
        assert len(answer.tokens) <= room
        assert answer.stats.blocks > 2
    with pytest.raises(ConstraintError, match=rf"the shortest answer that matches takes {shortest} tokens"):
        noise.stream("Hello", replace(noise.defaults, max_tokens=shortest - 1), regex=pattern)


def test_every_draft_matches_as_far_as_it_goes(noise: Session) -> None:
    config = replace(noise.defaults, max_steps=5, max_tokens=24)
    automaton = noise.preparation.constraint(replace(config, constraint=Regex(DATE)))
    assert automaton is not None
    for event in noise.stream("Hello", config, regex=DATE):
        if isinstance(event, Denoised) and event.block == 0:
            state = automaton.after(0, event.best[: event.end])
            assert state >= 0
            assert event.end is None or automaton.accepting[state]


def test_the_same_beside_others_as_alone(session: Session, defaults: GenerationConfig) -> None:
    prompts = [QUESTION, "What is 47 + 38?", "Hello", "What is 3 + 4?"]
    # What the questions do not ask for never converges: eight steps are as telling as 48.
    defaults = replace(defaults, max_steps=8)
    configs = [
        replace(defaults, constraint=JsonSchema(PERSON)),
        defaults,
        replace(defaults, constraint=Choices(("yes", "no")), seed=3),
        replace(defaults, constraint=Regex(DATE)),
    ]
    together = session.generate(prompts, configs, batch_size=4)
    alone = [session.generate(prompt, config) for prompt, config in zip(prompts, configs, strict=True)]
    assert [answer.tokens for answer in together] == [answer.tokens for answer in alone]
    assert [answer.probabilities for answer in together] == [
        pytest.approx(answer.probabilities, abs=1e-3) for answer in alone
    ]
    assert all(
        answer.text in ("yes", "no") for answer in session.generate(prompts[:2], defaults, choices=["yes", "no"])
    )


def test_events_can_be_taken_in_any_thread(noise: Session) -> None:
    config = replace(noise.defaults, **SHORT)
    taken = taken_in_threads(noise.stream("Hello", config, regex=DATE))
    text = "".join(event.text for event in taken if isinstance(event, BlockCommitted))
    assert text == noise.generate("Hello", config, regex=DATE).text


def test_an_answer_that_may_be_empty_is_so_only_if_allowed(noise: Session) -> None:
    config = replace(noise.defaults, max_tokens=4, max_steps=2)
    assert noise.generate("Hello", config, regex="(abc)?").text == "abc"
    with pytest.raises(ConstraintError, match="only the empty text matches"):
        noise.generate("Hello", config, regex="")
    empty = noise.preparation.constraint(replace(config, constraint=Regex("(abc)?"), allow_empty=True))
    assert empty is not None
    assert empty.distance[0] == 0


@pytest.mark.parametrize(
    ("matching", "error", "message"),
    [
        ({"regex": "a("}, ConstraintError, r"regex .a\(.: missing \) for the group at position 1"),
        ({"json_schema": {"type": "aray"}}, ConstraintError, "type .aray. is none of JSON.s"),
        ({"json_schema": 5}, ConstraintError, "json_schema=5 is no dict, file or pydantic model"),
        ({"choices": []}, OptionError, r"choices=\(\) must be a tuple of different texts"),
        ({"choices": "yes"}, OptionError, "choices='yes' must be a list of texts"),
        ({"regex": "a", "choices": ["a"]}, OptionError, "regex and choices cannot both be kept"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_any_work(
    session: Session, matching: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        session.stream(QUESTION, **matching)
    assert "\n" not in str(raised.value)


def test_thinking_comes_before_the_answer_and_need_not_match(session: Session, noise: Session) -> None:
    config = replace(session.defaults, max_tokens=40, thinking=True)
    jsonschema.validate(json.loads(session.generate(QUESTION, config, json_schema=PERSON).text), PERSON)
    opening, closing = noise.tokenizer.thought_open, noise.tokenizer.thought_close
    automaton = noise.preparation.constraint(replace(config, constraint=Regex("abc")))
    assert automaton is not None
    plain = noise.preparation.constraint(replace(config, constraint=Regex("abc"), thinking=False))
    assert plain is not None
    thought, answer = noise.tokenizer.literal("thought\nHm."), noise.tokenizer.literal("abc")
    for tokens in (answer, [opening, closing, *answer], [opening, *thought, closing, *answer]):
        assert automaton.accepting[automaton.after(0, tokens)]
    for tokens in ([opening], [opening, *thought], [opening, *thought, closing]):
        assert not automaton.accepting[automaton.after(0, tokens)]
    assert automaton.after(0, [*thought, *answer]) == -1
    assert automaton.distance[:2].tolist() == [plain.distance[0], plain.distance[0] + 1]


# how likely


def test_probabilities_are_what_the_last_step_gave_each_token(session: Session, defaults: GenerationConfig) -> None:
    answer = session.generate(QUESTION, defaults)
    assert len(answer.probabilities) == len(answer.tokens)
    assert all(0.9 < value <= 1.001 for value in answer.probabilities)


@pytest.mark.parametrize("changes", [{}, SHORT, {"mode": "causal"}], ids=str)
def test_what_a_constraint_forces_is_certain_and_only_that(noise: Session, changes: dict[str, Any]) -> None:
    config = replace(noise.defaults, **{"max_tokens": 24, "max_steps": 4, **changes})
    # No token is longer than a character of these.
    answer = noise.generate("Hello", config, regex="§[α-ω]§§§")
    assert answer.text[0] == "§"
    automaton = noise.preparation.constraint(replace(config, constraint=Regex("§[α-ω]§§§")))
    assert automaton is not None
    ways = [
        automaton.allowed(automaton.after(0, answer.tokens[:place]), config.max_tokens).sum()
        for place in range(len(answer.tokens) - 1)
    ]
    assert 1 in ways
    assert max(ways) > 1
    for way, probability in zip(ways, answer.probabilities, strict=False):
        assert (probability == pytest.approx(1)) == (way == 1)


@pytest.mark.parametrize("matching", [{}, {"regex": DATE}], ids=["free", "held"])
def test_probabilities_in_causal_mode_are_the_encoders_among_what_is_allowed(
    session: Session, matching: dict[str, Any]
) -> None:
    config = replace(session.defaults, max_tokens=12, mode="causal", seed=2)
    answer: Completion = session.generate(QUESTION, config, **matching)
    tokens = [*session.tokens(QUESTION, config), *answer.tokens]
    logits = session.model.logits(encoded(session.model, mx.array([tokens[:-1]]), session.model.make_cache()))
    expected = np.exp(np.array(logits[0, -len(answer.tokens) :]))
    if matching:
        automaton = session.preparation.constraint(replace(config, constraint=Regex(DATE)))
        assert automaton is not None
        for place, row in enumerate(expected):
            state = automaton.after(0, answer.tokens[:place])
            allowed = automaton.allowed(state, config.max_tokens - place - 1)
            allowed[list(automaton.stops)] = automaton.accepting[state]
            row[~allowed] = 0
    expected /= expected.sum(axis=-1, keepdims=True)
    expected = [expected[place, token] for place, token in enumerate(answer.tokens)]
    assert answer.probabilities == pytest.approx(expected, abs=1e-4)


def test_the_distribution_over_choices_is_that_of_writing_them_one_by_one(session: Session) -> None:
    choices = ["Rome", "Ana", "New York", "New York City"]
    found = session.choose(QUESTION, choices)
    assert list(found) == choices
    assert sum(found.values()) == pytest.approx(1)
    prompt, logs = session.tokens(QUESTION), []
    for choice in choices:
        ids = session.tokenizer.literal(choice)
        hidden = encoded(session.model, mx.array([[*prompt, *ids]]), session.model.make_cache())
        logits = session.model.logits(hidden)[0, len(prompt) - 1 :]
        steps = np.array(mx.softmax(logits, axis=-1))
        stops = [stop for stop in session.defaults.stop_tokens if stop < steps.shape[-1]]
        logs.append(sum(np.log(steps[n, token]) for n, token in enumerate(ids)) + np.log(steps[-1, stops].sum()))
    weights = np.exp(np.array(logs) - max(logs))
    assert list(found.values()) == pytest.approx((weights / weights.sum()).tolist(), abs=1e-3)


def test_the_likeliest_choice_is_the_right_one(session: Session) -> None:
    found = session.choose("What is 47 + 38?", ["47 + 38 = 85", "47 + 38 = 84", "yes"])
    assert max(found, key=lambda choice: found[choice]) == "47 + 38 = 85"
    assert found["47 + 38 = 85"] > 0.5


def test_choices_need_an_end_token_and_must_differ(session: Session) -> None:
    with pytest.raises(ConstraintError, match="stop_tokens is empty"):
        session.choose(QUESTION, ["yes", "no"], replace(session.defaults, stop_tokens=()))
    with pytest.raises(OptionError, match="choices"):
        session.choose(QUESTION, ["yes", "yes"])
    assert log_probabilities(session.model, session.tokens(QUESTION), [[5]], [1])[0] < 0


def test_the_program_prints_how_sure_the_model_is(session: Session) -> None:
    done = call(generate.main, "--json", "--quiet", "--choices", "Rome,Ana", QUESTION, env=environment())
    answer = json.loads(done.stdout)
    assert answer["choices"] == pytest.approx(session.choose(QUESTION, ["Rome", "Ana"]), abs=1e-4)
    assert len(answer["probabilities"]) == len(answer["tokens"])
    # The prompt was read for the choices, but for its last token.
    assert answer["stats"]["reused_tokens"] == answer["stats"]["prompt_tokens"] - 1
    assert all(0 < share <= 1 for share in answer["probabilities"])
