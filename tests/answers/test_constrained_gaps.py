"""Gaps whose text must match something: with random weights, which write whatever is allowed, and with the demo."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from tiny import random_model, tiny_config

import mlx_diffgemma
from mlx_diffgemma import Gap, Session, load
from mlx_diffgemma.constraint.cache import Vocabulary, automaton_of
from mlx_diffgemma.constraint.spec import Regex
from mlx_diffgemma.errors import DiffGemmaError
from mlx_diffgemma.events import BlockCommitted, Denoised
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.infilling.boundaries import TokenGap
from mlx_diffgemma.infilling.gap_constraints import with_length_limits
from mlx_diffgemma.infilling.lengths import coarse_lengths, possible_lengths
from mlx_diffgemma.infilling.template import Part
from mlx_diffgemma.text.tokenizer import load_tokenizer

DEMO = Path(mlx_diffgemma.__file__).parent / "demo"
CONFIG = GenerationConfig(max_steps=3, stop_tokens=(1, 106), max_tokens=20)
WHOLE = {"type": "integer"}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
}


@pytest.fixture(scope="module")
def wild() -> Session:
    """Random weights, canvases of 16: they fill gaps with whatever is allowed."""
    return Session(random_model(tiny_config(vocab_size=888)), load_tokenizer(DEMO), CONFIG)


@pytest.mark.parametrize(
    ("parts", "pattern"),
    [
        (["born ", Gap(regex=r"\d{4}-\d{2}"), "."], r"born \d{4}-\d{2}\."),
        (["born", Gap(regex=r" \d{2}"), "\r\n"], r"born \d{2}\r\n"),
        ([Gap(choices=["漢字", "かな", "🙂"]), "。"], "(?:漢字|かな|🙂)。"),
        (["a ", Gap(choices=["x", "yes and no"]), " b ", Gap(regex="[0-9]+"), " c"], "a (?:x|yes and no) b [0-9]+ c"),
        (["a ", Gap(2, 2, regex="[ab]+"), " c"], "a [ab]+ c"),
        (["the end is ", Gap(regex="(?:no)+")], "the end is (?:no)+"),
        (["the end is ", Gap(3, 7, regex="[01]*")], "the end is [01]+"),
        (["x" * 50, Gap(regex="[ab]{2}"), "y" * 50, Gap(choices=["p", "q"]), "z"], "x{50}[ab]{2}y{50}[pq]z"),
    ],
    ids=[
        "absorbed space",
        "its own space",
        "characters of several tokens",
        "two",
        "given",
        "open",
        "ranged",
        "windows",
    ],
)
def test_the_text_of_a_gap_matches(wild: Session, parts: list[Part], pattern: str) -> None:
    for seed in range(3):
        result = wild.infill(parts, config=replace(CONFIG, seed=seed))
        assert re.fullmatch(pattern, result.text), result.text


def test_a_gap_longer_than_a_canvas_matches_as_a_whole(wild: Session) -> None:
    digits = wild.infill(["n = ", Gap(40, 45, regex="(?:[0-9]{10}x){4}[a-z]*"), ";"])
    assert re.fullmatch("n = (?:[0-9]{10}x){4}[a-z]*;", digits.text)
    blocks = [
        event for event in wild.stream_infill(["n = ", Gap(20, regex="[ab]{20,}")]) if isinstance(event, BlockCommitted)
    ]
    assert len(blocks) > 2
    assert re.fullmatch("n = [ab]{20,}", "".join(block.text for block in blocks))


@pytest.mark.parametrize(
    ("gap", "pattern"),
    [
        (Gap(1, 60), "é{12}"),
        (Gap(1, 60), "é{20}"),
        (Gap(1, 60), "xé{20}"),
        (Gap(40, 45), "漢{5,15}[a-z]*"),
        (Gap(40, 40), "x🙂{9}[a-z]*"),
        (Gap(20), "[é漢🙂]+"),
        (Gap(20, 20), "a[éß]+"),
        (Gap(), "🙂{1,9}"),
    ],
)
@pytest.mark.parametrize("after", ["", "。"], ids=["open", "closed"])
def test_a_canvas_may_end_inside_a_character_of_a_gap_that_goes_on(
    wild: Session, gap: Gap, pattern: str, after: str
) -> None:
    """Canvases of 16, two to four bytes per character, one token per byte: the gaps cross one border or two."""
    parts = ["a ", replace(gap, constraint=Regex(pattern)), *([after] if after else [])]
    for seed in range(2):
        result = wild.infill(parts, config=replace(CONFIG, seed=seed, max_steps=2, max_tokens=40))
        assert re.fullmatch(pattern, result.gaps[0])
        assert result.text == f"a {result.gaps[0]}{after}"


@pytest.mark.parametrize("gap", [Gap(20, 20), Gap(40, 40), Gap(17)])
@pytest.mark.parametrize("after", ["", "。"], ids=["open", "closed"])
def test_a_gap_that_goes_on_is_whole_characters_without_a_constraint(wild: Session, gap: Gap, after: str) -> None:
    result = wild.infill(["a ", gap, *([after] if after else [])], config=replace(CONFIG, max_steps=2, max_tokens=40))
    assert result.text == f"a {result.gaps[0]}{after}"
    assert "\ufffd" not in result.text


def test_json_in_a_gap_is_valid(wild: Session, tmp_path: Path) -> None:
    schema = tmp_path / "person.json"
    schema.write_text(json.dumps(PERSON))
    for source in (PERSON, schema):
        result = wild.infill(["person: ", Gap(json_schema=source), "\n"], config=replace(CONFIG, canvas_length=16))
        jsonschema.validate(json.loads(result.gaps[0]), PERSON)


def test_every_draft_of_a_gap_matches(wild: Session) -> None:
    parts = ["born ", Gap(8, 8, regex=r"(?:\d\d-)+\d"), "!"]
    drafts = [event for event in wild.stream_infill(parts) if isinstance(event, Denoised)]
    assert drafts
    for draft in drafts:
        assert re.fullmatch(r"born (?:\d\d-)+\d!", "".join(draft.pieces))


def test_lengths_in_which_nothing_matches_are_not_tried() -> None:
    pieces = [bytes([byte]) for byte in range(256)]
    automaton = automaton_of(Regex("(?:abc)+"), Vocabulary.of(pieces, 300), (), False)
    assert possible_lengths(TokenGap(min_tokens=2, max_tokens=10, automaton=automaton)) == [3, 6, 9]
    assert coarse_lengths(TokenGap(min_tokens=2, max_tokens=10, automaton=automaton)) == [3, 6, 9]
    many = coarse_lengths(TokenGap(min_tokens=1, max_tokens=300, automaton=automaton))
    assert len(many) == 16
    assert all(length % 3 == 0 for length in many)
    assert with_length_limits(TokenGap(min_tokens=2, max_tokens=10, automaton=automaton), 0).min_tokens == 3
    assert with_length_limits(TokenGap(min_tokens=4, automaton=automaton), 16) == TokenGap(
        min_tokens=6, max_tokens=16, automaton=automaton
    )
    assert np.array_equal(automaton.finishing(1, 2), automaton.finishing(0, 2) & ~automaton.accepting)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Gap(regex="a", choices=["b"]), "a gap: regex and choices cannot both be kept"),
        (lambda: Gap(choices=[]), "a gap: choices=.* must be a tuple of different texts"),
        (lambda: Gap(regex=3), "a gap: regex=3 must be text"),  # pyright: ignore[reportArgumentType]
        (lambda: Gap(regex="\ud800"), "must be text"),
        (lambda: Gap(json_schema="nowhere.json"), "the schema nowhere.json cannot be read"),
        (lambda: Gap(constraint=Regex("a"), regex="b"), "a gap: constraint and regex cannot both be kept"),
    ],
)
def test_a_gap_that_cannot_be_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(DiffGemmaError, match=message):
        make()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (["a", Gap(8, 8, choices=["a", "bb"]), "b"], "what a gap must match has no text of 8 tokens"),
        (["a", Gap(1, 3, regex="[0-9]{9}"), "b"], "no text of 1 to 3 tokens: give the gap another length"),
        (["a", Gap(regex="("), "b"], r"regex '\(': missing \) for the group at position 0"),
    ],
)
def test_what_no_gap_can_match_is_refused_at_once(wild: Session, parts: list[Part], message: str) -> None:
    with pytest.raises(DiffGemmaError, match=message):
        wild.stream_infill(parts)


def test_what_an_answer_must_match_is_not_for_gaps(wild: Session) -> None:
    with pytest.raises(DiffGemmaError, match="belong to a gap"):
        wild.stream_infill("a <gap>", config=replace(CONFIG, constraint=Regex("a")))


def test_the_demo_writes_what_it_would_have_written_if_that_matches() -> None:
    session = load("demo")
    function = session.infill(
        ["def area(width, height):\n    return ", Gap(choices=["width + height", "width * height", "width"])],
        "Write a Python function area that multiplies width and height",
    )
    assert function.gaps == ("width * height",)
    record = session.infill(
        ['{"name": "Ada", "age": ', Gap(1, 4, json_schema=WHOLE), ', "city": "', Gap(1, 2, regex=r"[A-Z]\w+"), '"}'],
        "Give JSON: Ada is 33 and lives in Oslo.",
    )
    assert record.text == '{"name": "Ada", "age": 33, "city": "Oslo"}'
