"""Answers that end before a stop string: within a canvas, across canvases, however they are written and shown."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from tiny import Doubting, ScriptedModel, Shrinking

from mlx_diffgemma import BlockCommitted, Denoised, Finished, GenerationConfig, Session, load
from mlx_diffgemma.errors import OptionError
from mlx_diffgemma.events import Event
from mlx_diffgemma.generation.engine import stream_many
from mlx_diffgemma.generation.job import Job
from mlx_diffgemma.sampling.stop_strings import StopStrings
from mlx_diffgemma.sampling.stopping import StableAndConfident
from mlx_diffgemma.text.channels import Channels

STOP, OPEN, CLOSE = 9, 10, 11
TOKEN_BYTES = [bytes([ord("a") + token]) if token < STOP else b"" for token in range(12)]
"""Token 0 is the text a, token 1 the text b, and so on."""
CONFIG = GenerationConfig(max_tokens=100, stop_tokens=(STOP,), max_steps=6)
JSON, PERSON = "Give JSON: Ana is 34 and lives in Rome.", '{"name": "Ana", "age": 34, "city": "Rome"}'


def run(model: Any, *stops: str, config: GenerationConfig = CONFIG) -> list[Event]:
    ends = StopStrings(
        stops=tuple(stop.encode() for stop in stops), token_bytes=TOKEN_BYTES, channels=Channels(OPEN, CLOSE)
    )
    job = Job(tokens=[20, 21], config=config, stop_strings=ends if stops else None)
    return [event for _, event in stream_many(model, [job])]


def of(kind: type, events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def tokens(events: list[Event]) -> tuple[int, ...]:
    return sum((block.tokens for block in of(BlockCommitted, events)), ())


def ended(events: list[Event]) -> tuple[tuple[int, ...], str, tuple[int, ...]]:
    """Return the tokens of an answer, why it ended, and the steps of its canvases."""
    finished = of(Finished, events)[0]
    assert of(BlockCommitted, events)[-1].last
    assert finished.stats.tokens == len(tokens(events))
    return tokens(events), finished.reason, finished.stats.steps_per_block


# the canvas


CHANGING = [[1, 2, 3, token] for token in (4, 5, 6, 7, 4, 5)]
"""The text bcd, and a last token that never stays the same."""


def test_what_comes_after_a_stop_string_need_not_converge() -> None:
    assert ended(run(ScriptedModel(CHANGING), "cd")) == ((1, 2, 3), "stop", (2,))
    slow = ended(run(ScriptedModel(CHANGING), "cd", config=replace(CONFIG, until_end=False)))
    assert slow == ((1, 2, 3), "stop", (6,))


def test_what_comes_before_a_stop_string_must_converge() -> None:
    script = [[1, 2, 3, 4], [5, 2, 3, 4], [6, 2, 3, 5], [6, 2, 3, 4]]
    assert ended(run(ScriptedModel(script), "cd")) == ((6, 2, 3), "stop", (4,))
    unsure = [[1, 2, 3, 4]] * 6
    assert ended(run(ScriptedModel(unsure, margin=2), "cd")) == ((1, 2, 3), "stop", (6,))


def test_without_end_tokens_a_stop_string_ends_the_answer() -> None:
    config = replace(CONFIG, stop_tokens=())
    assert ended(run(ScriptedModel(CHANGING), "cd", config=config)) == ((1, 2, 3), "stop", (2,))


def test_an_end_token_before_the_stop_string_ends_the_answer() -> None:
    assert ended(run(ScriptedModel([[1, STOP, 2, 3]] * 2), "cd", "bcd")) == ((1, STOP), "stop", (2,))


def test_a_draft_says_where_its_stop_string_ends() -> None:
    assert [event.end for event in of(Denoised, run(ScriptedModel(CHANGING), "cd"))] == [2, 2]


def test_a_stop_string_begins_in_one_canvas_and_ends_in_a_later_one() -> None:
    script = [*[[1, 2, 3, 4]] * 2, *[[5, 6, 7, 8]] * 2, *[[0, 1, 2, 3]] * 2]
    assert ended(run(ScriptedModel(script), "efghia")) == ((1, 2, 3, 4, 5, 6, 7, 8, 0), "stop", (2, 2, 2))


def test_a_stop_string_beyond_max_tokens_ends_nothing() -> None:
    events = run(ScriptedModel(CHANGING), "cd", config=replace(CONFIG, max_tokens=2))
    assert ended(events)[:2] == ((1, 2), "length")


def test_a_thought_has_no_stop_string() -> None:
    script = [*[[OPEN, 2, 3, 4]] * 2, *[[2, 3, CLOSE, 2]] * 2, *[[3, 5, 6, 7]] * 2]
    assert ended(run(ScriptedModel(script), "cd")) == ((OPEN, 2, 3, 4, 2, 3, CLOSE, 2, 3), "stop", (2, 2, 2))


def test_a_canvas_is_trimmed_after_its_stop_string() -> None:
    config = replace(CONFIG, trim=True)
    events = run(Shrinking([[1, 2, 3, 4], *[[1, 5, 6, 4]] * 5]), "fg", config=config)
    assert [len(event.best) for event in of(Denoised, events)] == [4, 4, 4, 3, 3, 3]
    assert tokens(events) == (1, 5, 6)


def test_a_stop_string_that_verify_doubts_ends_nothing() -> None:
    script = [*[[1, 2, 3, 4]] * 2, *[[5, 6, 7, 8]] * 2]
    events = run(Doubting(script, doubted=[2]), "cd", "gh", config=replace(CONFIG, verify=0.5))
    # The token after the first two is doubted twice more, and then accepted.
    assert [block.tokens for block in of(BlockCommitted, events)] == [(1, 2), (), (), (5, 6, 7)]


def test_a_job_without_stop_strings_is_judged_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    judged: list[int] = []
    judge = StableAndConfident.judge

    def counting(self: StableAndConfident, step: mx.array, *arrays: mx.array) -> tuple[mx.array, mx.array]:
        judged.append(step.item())
        return judge(self, step, *arrays)

    monkeypatch.setattr(StableAndConfident, "judge", counting)
    run(ScriptedModel(CHANGING), config=replace(CONFIG, max_tokens=4))
    assert judged == [1, 2, 3, 4, 5, 6]
    judged.clear()
    run(ScriptedModel(CHANGING), "cd")
    assert judged == [1, 1, 2, 2]


# whole answers


@pytest.fixture(scope="module")
def session() -> Session:
    return load("demo")


@pytest.fixture(scope="module")
def noise(demo: Path) -> Session:
    """A model of random weights, whose answers have any characters, in any tokens."""
    return load(demo)


@pytest.mark.parametrize("changes", [{}, {"trim": True}, {"verify": 0.01}, {"mode": "causal"}], ids=str)
@pytest.mark.parametrize("stop", ['"', '", "', "34,", "Rome", 'age": 3', '{"n'])
def test_an_answer_of_the_demo_ends_before_the_stop_string(
    session: Session, stop: str, changes: dict[str, Any]
) -> None:
    whole = session.generate(JSON, max_tokens=64, **changes)
    assert whole.text == PERSON
    answer = session.generate(JSON, max_tokens=64, stop=["never", stop], **changes)
    assert answer.text == PERSON[: PERSON.index(stop)]
    assert answer.finish_reason == "stop"
    decoded = [session.tokenizer.decode(answer.tokens[:count]) for count in range(len(answer.tokens) + 1)]
    assert [stop in text for text in decoded] == [False] * len(answer.tokens) + [True]


@pytest.mark.parametrize("mode", ["canvas", "causal", "speculative"])
@pytest.mark.parametrize("seed", range(12))
def test_any_part_of_an_answer_can_end_it(noise: Session, seed: int, mode: Any) -> None:
    """Each of the parts may begin and end inside tokens and canvases; the answer is the whole one, cut there."""
    chance = random.Random(seed)
    config = GenerationConfig(
        max_tokens=40, max_steps=2, seed=seed, canvas_length=chance.choice([3, 7, 16]), stop_tokens=(), mode=mode
    )
    whole = noise.generate("Hello", config)
    stops = [stop for stop in parts_of(whole.text, chance) if "\ufffd" not in stop]
    assert stops
    _, start = min((whole.text.find(stop) + len(stop), whole.text.find(stop)) for stop in stops)
    events = list(noise.stream("Hello", config, stop=stops))
    texts = [event.text for event in events if isinstance(event, BlockCommitted)]
    assert "".join(texts) == whole.text[:start]
    assert whole.tokens[: len(tokens(events))] == tokens(events)
    assert of(Finished, events)[0].reason == "stop"


def parts_of(text: str, chance: random.Random) -> list[str]:
    """Return some parts of a text, of one to eight characters."""
    starts = [chance.randrange(len(text)) for _ in range(8)]
    return [text[start : start + chance.randint(1, 8)] for start in starts][: chance.randint(4, 8)]


def test_text_is_shown_when_no_stop_string_can_begin_in_it(session: Session) -> None:
    """In causal mode every token is a block of its own; nothing of a stop string is shown, nor of a draft's."""
    causal = session.stream(JSON, max_tokens=64, mode="causal", stop='"age": 3')
    texts = [event.text for event in causal if isinstance(event, BlockCommitted)]
    assert texts[-2:] == ['", ', ""]
    assert "".join(texts) == PERSON[: PERSON.index('"age')]
    drafts = [event for event in session.stream(JSON, max_tokens=64, stop='"age": 3') if isinstance(event, Denoised)]
    assert "".join(drafts[-1].pieces) == PERSON[: PERSON.index('"age')]


def test_what_only_began_like_a_stop_string_is_shown_at_the_end(session: Session) -> None:
    events = list(session.stream(JSON, max_tokens=64, mode="causal", stop='"}!'))
    texts = [event.text for event in events if isinstance(event, BlockCommitted)]
    assert "".join(texts) == PERSON
    assert texts[-1].endswith('"}')


def test_answers_side_by_side_end_at_their_own_stop_strings(session: Session) -> None:
    stops: Sequence[tuple[str, ...]] = ((), ("34",), ('"city',), ('", "', "Ana"))
    configs = [replace(session.defaults, max_tokens=64, stop=stop) for stop in stops]
    together = session.generate([JSON] * 4, configs)
    assert [answer.text for answer in together] == [PERSON, '{"name": "Ana", "age": ', PERSON[:27], '{"name": "']
    assert [answer.tokens for answer in together] == [session.generate(JSON, config).tokens for config in configs]


def test_an_answer_may_be_empty_before_its_stop_string(session: Session) -> None:
    answer = session.generate(JSON, max_tokens=64, stop="{")
    assert (answer.text, answer.finish_reason, len(answer.tokens)) == ("", "stop", 1)


def test_a_constraint_and_stop_strings_are_not_kept_together(session: Session) -> None:
    for constraint in ({"regex": "a"}, {"choices": ["a"]}, {"json_schema": {"type": "integer"}}):
        with pytest.raises(OptionError, match="stop cannot be kept with regex, json_schema or choices"):
            session.stream(JSON, stop="a", **constraint)


def test_choices_gaps_and_edits_know_no_stop_strings(session: Session) -> None:
    config = replace(session.defaults, max_tokens=32, max_steps=2, stop=("a", " "))
    free = replace(config, stop=())
    assert session.choose("Yes?", ["a", "b"], config) == session.choose("Yes?", ["a", "b"], free)
    template = "a <gap:3> b"
    assert session.infill(template, config=config).text == session.infill(template, config=free).text
