"""The text of an answer while it arrives: characters in parts, thinking, channels, and where a canvas is cut."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scripted import figures

from mlx_diffgemma.events import BlockCommitted, Finished, FinishReason
from mlx_diffgemma.text.event_text import EventText
from mlx_diffgemma.text.tokenizer import Tokenizer, load_tokenizer
from mlx_diffgemma.text.transcript import Transcript

END, THINK_OPEN, THINK_CLOSE = 106, 100, 101


@pytest.fixture(scope="module")
def tokenizer(demo: Path) -> Tokenizer:
    return load_tokenizer(demo)


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of a text with control tokens."""
    return tokenizer.encode(text)[1:]


def added(tokenizer: Tokenizer, *blocks: Sequence[int]) -> list[tuple[str, str]]:
    transcript = Transcript(tokenizer)
    return [transcript.add(block, last=index == len(blocks) - 1) for index, block in enumerate(blocks)]


def test_a_character_cut_by_a_block_appears_when_it_is_whole(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a🙂b")[1:]
    assert len(ids) == 6
    assert added(tokenizer, ids[:3], ids[3:]) == [("a", ""), ("🙂b", "")]


def test_bytes_that_never_become_a_character_are_replaced_at_the_end(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("a🙂")[1:-1]
    assert added(tokenizer, ids) == [("a\ufffd", "")]


def test_text_that_was_returned_is_never_taken_back(tokenizer: Tokenizer) -> None:
    """transformers decodes a run of byte tokens as one: a bad byte spoils the good ones before it, already shown."""
    good, bad = tokenizer.encode("\x01")[1:], tokenizer.encode("🙂")[1:2]
    assert added(tokenizer, good, [*bad, *good]) == [("\x01", ""), ("\ufffd\x01", "")]


def test_an_empty_thought_is_no_part_of_the_text(tokenizer: Tokenizer) -> None:
    name, answer = tokenizer.encode("thought\n")[1:], tokenizer.encode("Yes.")[1:]
    assert added(tokenizer, [THINK_OPEN, *name, THINK_CLOSE, *answer, END]) == [("Yes.", "")]


def test_thinking_is_kept_apart_over_blocks(tokenizer: Tokenizer) -> None:
    name, answer = tokenizer.encode("thought\n")[1:], tokenizer.encode("Yes.")[1:]
    first, second = tokenizer.encode("Hm, ")[1:], tokenizer.encode("is it?")[1:]
    blocks = [[THINK_OPEN, *name[:1]], [*name[1:], *first], [*second, THINK_CLOSE, *answer, END]]
    assert added(tokenizer, *blocks) == [("", ""), ("", "Hm, "), ("Yes.", "is it?")]


def test_the_positions_of_a_thought_on_the_canvas_are_known(tokenizer: Tokenizer) -> None:
    transcript = Transcript(tokenizer)
    assert transcript.thought_positions((400, 401)) == 0
    assert transcript.thought_positions((THINK_OPEN, 400, THINK_CLOSE, 401)) == 3
    assert transcript.thought_positions((THINK_OPEN, 400)) == 2
    transcript.add([THINK_OPEN, 400], last=False)
    assert transcript.thought_positions((401, THINK_CLOSE, 402)) == 2


@pytest.mark.parametrize(
    ("said", "answer", "thought"),
    [
        ("<|channel>thought\nHm.\n<channel|>Yes.", "Yes.", "Hm.\n"),
        ("<|channel>thought\nA<channel|>b<|channel>thought\nC<channel|>d", "bd", "AC"),
        ("<|channel>thought\nA<|channel>thought\nC<channel|>d", "d", "AC"),
        ("<|channel>thought<channel|>Yes.", "Yes.", ""),
        ("<|channel><channel|>Yes.", "Yes.", ""),
        ("<|channel>final\nYes.<channel|>No.", "Yes.No.", ""),
        ("<|channel>thought\nHm.<channel|><|channel>final\nYes.", "Yes.", "Hm."),
        ("<|channel>final<channel|>Yes.", "Yes.", ""),
        ("<|channel>tho", "", ""),
        ("<|channel>Is it so?\nYes.<channel|>No.", "No.", "Is it so?\nYes."),
        ("<|channel>thoughtless words<channel|>No.", "No.", "thoughtless words"),
        ("thought\nfinal\n<channel|>Yes.", "thought\nfinal\nYes.", ""),
    ],
)
def test_a_channel_is_thinking_or_answer_by_its_name(
    tokenizer: Tokenizer, said: str, answer: str, thought: str
) -> None:
    assert added(tokenizer, ids(tokenizer, said)) == [(answer, thought)]


PIECES = (
    "<|channel>",
    "<channel|>",
    "thought",
    "thought\n",
    "final\n",
    "tho",
    "ught",
    "\n",
    "Hm. ",
    "a",
    "<turn|>",
    "🙂",
)


@settings(max_examples=100, deadline=None)
@given(said=st.lists(st.sampled_from(PIECES), max_size=14), cuts=st.data())
def test_where_the_canvases_are_cut_changes_no_text(tokenizer: Tokenizer, said: list[str], cuts: st.DataObject) -> None:
    whole = [token for piece in said for token in ids(tokenizer, piece)]
    places = sorted(cuts.draw(st.sets(st.integers(0, len(whole)), max_size=4)))
    blocks = [whole[begin:end] for begin, end in zip([0, *places], [*places, len(whole)], strict=True)]
    parts = added(tokenizer, *blocks)
    assert ("".join(answer for answer, _ in parts), "".join(thought for _, thought in parts)) == added(
        tokenizer, whole
    )[0]


@settings(max_examples=100, deadline=None)
@given(before=st.lists(st.sampled_from(PIECES), max_size=5), draft=st.lists(st.sampled_from(PIECES), max_size=10))
def test_leading_thoughts_of_a_canvas_add_nothing_to_the_answer(
    tokenizer: Tokenizer, before: list[str], draft: list[str]
) -> None:
    earlier, canvas = (tuple(token for piece in said for token in ids(tokenizer, piece)) for said in (before, draft))
    transcript, leading, whole = (Transcript(tokenizer) for _ in range(3))
    for each in (transcript, leading, whole):
        each.add(earlier, last=False)
    count = transcript.thought_positions(canvas)
    first, rest = leading.add(canvas[:count], last=False), leading.add(canvas[count:], last=True)
    assert first[0] == ""
    assert (rest[0], first[1] + rest[1]) == whole.add(canvas, last=True)


def test_positions_of_several_thoughts_and_of_other_channels(tokenizer: Tokenizer) -> None:
    def positions(text: str) -> int:
        return Transcript(tokenizer).thought_positions(tuple(ids(tokenizer, text)))

    two = "<|channel>thought\nA<channel|><|channel>thought\nB<channel|>"
    assert positions(two + "Yes.") == len(ids(tokenizer, two))
    assert positions("<|channel>final\nYes.") == 0
    assert positions("<|channel>thought\nA<channel|><|channel>final\nYes.") == len(
        ids(tokenizer, "<|channel>thought\nA<channel|>")
    )
    assert positions("Yes.<|channel>thought\nA<channel|>") == 0


def test_positions_follow_a_header_that_a_canvas_cuts(tokenizer: Tokenizer) -> None:
    for name, expected in (("thought", 3), ("final", 0)):
        transcript = Transcript(tokenizer)
        transcript.add(ids(tokenizer, f"<|channel>{name}"), last=False)
        hm = ids(tokenizer, "\na")
        assert len(hm) == 2
        assert transcript.thought_positions((*hm, THINK_CLOSE)) == expected


def test_the_pieces_of_a_draft_have_no_headers(tokenizer: Tokenizer) -> None:
    name, final = tokenizer.encode("thought\n")[1:], tokenizer.encode("final\n")[1:]
    word, answer = tokenizer.encode("Hm.")[1:], tokenizer.encode("Yes.")[1:]
    canvas = [THINK_OPEN, *name, *word, THINK_CLOSE, THINK_OPEN, *final, *answer, THINK_CLOSE]
    transcript = Transcript(tokenizer)
    pieces = transcript.pieces(canvas)
    assert len(pieces) == len(canvas)
    assert "".join(pieces) == "Hm.Yes."
    # A canvas that begins within a header.
    transcript.add([THINK_OPEN, *name[:1]], last=False)
    assert "".join(transcript.pieces([*name[1:], *word])) == "Hm."


@pytest.mark.parametrize(
    ("answer", "stop", "reason", "expected"),
    [
        ("Yes.", (), "stop", "stop"),
        ("Yes.", ("Yes",), "stop", "stop"),
        ("", (), "stop", "empty"),
        ("", (), "length", "empty"),
        ("<|channel>thought\nHm.<channel|>", (), "stop", "empty"),
        ("<|channel>thought\nHm.<channel|>", (), "length", "length"),
        ("<|channel>thought\nHm.<channel|>Yes.", (), "stop", "stop"),
    ],
)
def test_an_answer_of_no_text_or_of_a_thought_alone_is_empty(
    tokenizer: Tokenizer, answer: str, stop: tuple[str, ...], reason: FinishReason, expected: str
) -> None:
    text = EventText(tokenizer, stop)
    text.attached(BlockCommitted(block=0, steps=1, tokens=(*ids(tokenizer, answer), END), last=True))
    finished = text.attached(Finished(reason=reason, stats=figures()))
    assert isinstance(finished, Finished)
    assert finished.reason == expected
