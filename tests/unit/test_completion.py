"""The one result of an answer: from its events, as text, as a short line, as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from scripted import figures

from mlx_diffgemma.completion import Completion, gather
from mlx_diffgemma.events import BlockCommitted, Event, Finished, FinishReason, GapFilled, Prefilled
from mlx_diffgemma.infilling.result import gather_filled
from mlx_diffgemma.infilling.template import Gap

BLOCKS: Sequence[Event] = (
    Prefilled(done=7, total=7),
    BlockCommitted(block=0, steps=3, tokens=(1, 2), probabilities=(0.5, 1.0), last=False, text="Hel", thought="Hm."),
    BlockCommitted(block=1, steps=2, tokens=(3, 106), probabilities=(0.25, 1.0), last=True, text="lo"),
)


def finished(reason: FinishReason = "stop") -> list[Event]:
    return [*BLOCKS, Finished(reason=reason, stats=figures())]


@pytest.mark.parametrize("reason", ["stop", "length", "empty"])
def test_events_become_an_answer(reason: FinishReason) -> None:
    answer = gather(finished(reason), seed=3)
    assert (answer.text, answer.thought, answer.tokens) == ("Hello", "Hm.", (1, 2, 3, 106))
    assert (answer.probabilities, answer.finish_reason, answer.seed) == ((0.5, 1.0, 0.25, 1.0), reason, 3)
    assert (answer.calls, answer.prefix) == ((), None)


@pytest.mark.parametrize(
    ("text", "reason", "is_empty"),
    [("", "empty", True), ("", "length", True), ("", "stop", False), ("a", "length", False)],
)
def test_an_answer_without_text_is_empty_unless_a_stop_string_ended_it(
    text: str, reason: FinishReason, is_empty: bool
) -> None:
    block = BlockCommitted(block=0, steps=1, tokens=(9,), last=True, text=text, thought="Hm.")
    assert gather([block, Finished(reason=reason, stats=figures())], seed=0).is_empty == is_empty


def test_a_template_is_empty_if_nothing_is_in_its_gaps() -> None:
    end = Finished(reason="stop", stats=figures())
    nothing, something = (GapFilled(gap=0, tokens=1, text=text) for text in ("", "b"))
    assert gather_filled(("a", Gap()), [nothing, end], seed=0).finish_reason == "empty"
    assert gather_filled(("a", Gap(), "c", Gap()), [nothing, something, end], seed=0).finish_reason == "stop"


def test_events_that_end_early_are_an_interrupted_answer() -> None:
    answer = gather(BLOCKS, seed=0)
    assert answer.finish_reason == "interrupted"
    assert (answer.stats.prompt_tokens, answer.stats.tokens, answer.stats.steps_per_block) == (7, 4, (3, 2))
    assert json.loads(answer.to_json())["stats"] is None


def test_an_answer_is_its_text_and_is_shown_in_one_short_line() -> None:
    answer = gather(finished(), seed=0)
    assert str(answer) == f"{answer}" == "Hello"
    assert repr(answer) == "<Completion 'Hello' 4 tokens, stop>"
    long = gather([BlockCommitted(block=0, steps=1, tokens=(1,), last=True, text="line\n" * 99)], seed=0)
    assert repr(long) == f"<Completion {('line' + chr(10)) * 7 + 'line…'!r} 1 tokens, interrupted>"


def test_the_json_form_has_every_field_by_name() -> None:
    record = json.loads(gather(finished(), seed=5).to_json(index=2, choices={"a": 1.0}))
    assert list(record) == [
        *("index", "text", "thought", "calls", "tokens", "probabilities", "finish_reason", "seed", "stats", "choices")
    ]
    assert (record["index"], record["seed"], record["choices"]) == (2, 5, {"a": 1.0})
    assert record["stats"]["steps"] == 14


def test_a_filled_template_is_an_answer_with_gaps() -> None:
    parts = ("a ", Gap(), " c ", Gap())
    events = [*BLOCKS, GapFilled(gap=0, tokens=1, text="b"), GapFilled(gap=1, tokens=1, text="d")]
    whole = gather_filled(parts, [*events, Finished(reason="stop", stats=figures())], seed=1)
    assert isinstance(whole, Completion)
    assert (whole.text, whole.gaps, whole.tokens, whole.seed) == ("a b c d", ("b", "d"), (1, 2, 3, 106), 1)
    assert json.loads(whole.to_json())["gaps"] == ["b", "d"]
    assert repr(whole) == "<Infilled 'a b c d' 4 tokens, stop>"
    early = gather_filled(parts, events[:-1], seed=1)
    assert (early.finish_reason, early.gaps, early.text) == ("interrupted", ("b",), "Hello")
