"""Stop strings against slow and obvious versions: in bytes of tokens, and in a text that grows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import AnyStr

import pytest

from mlx_diffgemma.sampling.canvas import Endings
from mlx_diffgemma.sampling.stop_strings import BEGINNING, StopProgress, StopStrings
from mlx_diffgemma.text.channels import Channel, Channels
from mlx_diffgemma.text.until_stop import Match, UntilStop, first_match, undecided_length

OPEN, CLOSE, END = 0, 1, 2
PIECES = (b"", b"", b"", b"a", b"b", b"ab", b"ba", b"aab", b"\xc3", b"\xa9", "é".encode(), b"a\xc3", b"\xa9b", b"")
STOPS = ("a", "ab", "aab", "ba", "bb", "abab", "é", "aé", "ébb", "éé", "bé")


def strings(*stops: str) -> StopStrings:
    return StopStrings(stops=tuple(stop.encode() for stop in stops), token_bytes=PIECES, channels=Channels(OPEN, CLOSE))


def spelled(*pieces: bytes | int) -> list[int]:
    """Return ids: control tokens as they are, and the tokens of these bytes."""
    return [piece if isinstance(piece, int) else PIECES.index(piece) for piece in pieces]


# slow and obvious versions


def slowly_matched(text: AnyStr, stops: Sequence[AnyStr]) -> Match | None:
    """Look at every end, and at every start before it."""
    for end in range(len(text) + 1):
        for start in range(end):
            if text[start:end] in stops:
                return Match(start, end)
    return None


def slowly_found(tokens: Sequence[int], stops: Sequence[bytes]) -> int | None:
    """Join the whole answer after every token."""
    answer, thinking = b"", False
    for position, token in enumerate(tokens):
        thinking = token == OPEN or (thinking and token != CLOSE)
        answer += b"" if thinking else PIECES[token]
        if any(stop in answer for stop in stops):
            return position
    return None


def found_in_canvases(tokens: Sequence[int], ends: StopStrings, chance: random.Random) -> int | None:
    """Look for the end of an answer in canvases of random lengths, of which sometimes only a part is kept."""
    endings, start = Endings(tokens=(), strings=ends), 0
    while start < len(tokens):
        canvas = tokens[start : start + chance.randint(1, 6)]
        position = endings.first(canvas)
        if position is not None:
            return start + position
        kept = canvas[: chance.randint(0, len(canvas))]
        endings, start = endings.after(kept), start + len(kept)
    return None


@pytest.mark.parametrize("seed", range(300))
def test_the_end_of_an_answer_is_found_wherever_its_canvases_are_cut(seed: int) -> None:
    chance = random.Random(seed)
    ends = strings(*chance.sample(STOPS, chance.randint(1, 3)))
    tokens = chance.choices(range(len(PIECES)), k=chance.randint(1, 30))
    assert found_in_canvases(tokens, ends, chance) == slowly_found(tokens, ends.stops)


@pytest.mark.parametrize("seed", range(300))
def test_a_growing_text_is_passed_on_up_to_its_first_stop_string(seed: int) -> None:
    """Every part as soon as no stop string can begin in it, and not before."""
    chance = random.Random(seed)
    stops = chance.sample(STOPS, chance.randint(1, 3))
    text = "".join(chance.choices("abé", k=chance.randint(0, 30)))
    match = slowly_matched(text, stops)
    until_stop, shown, taken = UntilStop(stops), "", 0
    while taken < len(text):
        part = text[taken : taken + chance.randint(1, 6)]
        taken += len(part)
        shown += until_stop.take(part, last=False)
        if match is None or taken < match.end:
            can_begin = (at for at in range(taken) if any(stop.startswith(text[at:taken]) for stop in stops))
            assert shown == text[: next(can_begin, taken)]
    shown += until_stop.take("", last=True)
    assert shown == (text if match is None else text[: match.start])


@pytest.mark.parametrize("seed", range(100))
def test_the_match_is_that_of_trying_every_span(seed: int) -> None:
    chance = random.Random(seed)
    stops = [stop.encode() for stop in chance.sample(STOPS, 3)]
    data = bytes(chance.choices(b"ab\xc3\xa9", k=20))
    assert first_match(data, stops) == slowly_matched(data, stops)


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [
        ("aaab", ["aab"], (1, 4)),
        ("xabc", ["abc", "ab"], (1, 3)),
        ("xabc", ["bc", "abc"], (1, 4)),
        ("xabc", ["abcd", "bc"], (2, 4)),
        ("ab", ["abc"], None),
        ("", ["a"], None),
        ("abc", [], None),
    ],
)
def test_the_earliest_end_wins_and_then_the_earliest_start(
    text: str, stops: list[str], expected: tuple[int, int] | None
) -> None:
    assert first_match(text, stops) == expected


@pytest.mark.parametrize(
    ("text", "stops", "expected"),
    [("xaa", ["aab"], 2), ("xaaa", ["aab"], 2), ("xab", ["abc", "bcd"], 2), ("x", ["aab"], 0), ("x\n", ["\n\n"], 1)],
)
def test_an_end_with_which_a_stop_string_begins_is_undecided(text: str, stops: list[str], expected: int) -> None:
    assert undecided_length(text, stops) == expected


# tokens


@pytest.mark.parametrize(
    ("tokens", "stops", "position"),
    [
        (spelled(b"a", b"aab", b"b"), ["aab"], 1),
        (spelled(b"b", b"aab"), ["a"], 1),
        (spelled(b"b", b"a\xc3", b"\xa9b"), ["é"], 2),
        (spelled(b"\xc3", b"\xc3", b"\xa9", b"\xa9"), ["é"], 2),
        (spelled(b"\xa9", b"a", b"\xc3", b"b"), ["ab"], None),
        (spelled(OPEN, b"ab", CLOSE, b"b"), ["ab"], None),
        (spelled(OPEN, b"ab", CLOSE, b"ab"), ["ab"], 3),
        (spelled(b"a", OPEN, b"a", CLOSE, b"b"), ["ab"], 4),
        ([*spelled(b"a"), 999, *spelled(b"b")], ["ab"], 2),
        ([], ["a"], None),
    ],
)
def test_a_stop_string_ends_in_the_token_that_completes_it(
    tokens: list[int], stops: list[str], position: int | None
) -> None:
    assert strings(*stops).find(tokens, BEGINNING) == position


def test_a_thought_that_goes_on_in_the_next_canvas_has_no_stop_string() -> None:
    ends = strings("ab")
    thinking = ends.after(spelled(b"a", OPEN, b"a"), BEGINNING)
    assert thinking == StopProgress(channel=Channel(thinking=True, header=b"a"), tail=b"a")
    assert ends.find(spelled(b"b", b"ab"), thinking) is None
    assert ends.find(spelled(b"b", CLOSE, b"b"), thinking) == 2


def test_a_channel_of_another_name_is_the_answer() -> None:
    final = len(PIECES)
    ends = StopStrings(stops=(b"ab",), token_bytes=(*PIECES, b"final\n"), channels=Channels(OPEN, CLOSE))
    assert ends.find([OPEN, final, *spelled(b"ab"), CLOSE], BEGINNING) == 2
    within = ends.after([OPEN, final, *spelled(b"a")], BEGINNING)
    assert ends.find(spelled(b"b"), within) == 0


def test_no_more_of_an_answer_is_remembered_than_a_stop_string_may_begin_with() -> None:
    ends = strings("abab", "bb")
    assert ends.after(spelled(*[b"ba"] * 50, b"a"), BEGINNING).tail == b"a"
    assert ends.after(spelled(*[b"a"] * 50, b"ba"), BEGINNING).tail == b"aba"


def test_an_end_token_ends_an_answer_where_it_comes_before_a_stop_string() -> None:
    endings = Endings(tokens=(END,), strings=strings("ab"))
    assert endings.cut(spelled(b"b", END, b"ab")) == (tuple(spelled(b"b", END)), True)
    assert endings.cut(spelled(b"b", b"ab", END)) == (tuple(spelled(b"b", b"ab")), True)
    assert endings.cut(spelled(b"a", END, b"b")) == (tuple(spelled(b"a", END)), True)
    assert endings.cut(spelled(b"a", b"a")) == (tuple(spelled(b"a", b"a")), False)


# drafts


@pytest.mark.parametrize(
    ("before", "pieces", "thought", "expected"),
    [
        ("", ("x", "yEN", "D", "z"), 0, ("x", "y", "", "")),
        ("xE", ("ND", "z"), 0, ("", "")),
        ("xE", ("z", "END"), 0, ("z", "")),
        ("x", ("END", "y", "END", "z"), 1, ("END", "y", "", "")),
        ("x", ("EN", "d"), 0, ("EN", "d")),
    ],
)
def test_a_draft_is_shown_up_to_its_first_stop_string(
    before: str, pieces: tuple[str, ...], thought: int, expected: tuple[str, ...]
) -> None:
    until_stop = UntilStop(["END"])
    until_stop.take(before, last=False)
    assert until_stop.cut(pieces, thought)[1] == expected
