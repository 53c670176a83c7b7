"""Literal text keeps its bytes, and a gap has none that are not its own: with the demo's tokenizer."""

from __future__ import annotations

import random
from pathlib import Path

import mlx.core as mx
import pytest

import mlx_diffgemma
from mlx_diffgemma.constraint.cache import Vocabulary
from mlx_diffgemma.infilling.boundaries import Hole, Joints
from mlx_diffgemma.infilling.template import Gap, parse
from mlx_diffgemma.text.tokenizer import Tokenizer, load_tokenizer

SIZE, STOPS, END = 880, (1, 106, 50), 106
TEXTS = [
    "def area(w, h):\r\n\treturn w * h\r\n",
    "  leading, trailing  ",
    " one",
    "漢字かな交じり文",
    "👩‍👩‍👧‍👦 é é ﬁ\ufeff",
    "▁ is not a space, <0x41> is no byte",
    "<bos><|turn>user\n<turn|><pad><unk><unused7>",
    "\x01\x7f\u2028\u00a0",
    "a" * 3000,
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_tokenizer(Path(mlx_diffgemma.__file__).parent / "demo")


@pytest.fixture(scope="module")
def joints(tokenizer: Tokenizer) -> Joints:
    return Joints(tokenizer, Vocabulary.of(tokenizer.all_token_bytes, SIZE + 8), STOPS)


@pytest.mark.parametrize("text", TEXTS)
def test_a_literal_is_encoded_byte_for_byte_and_without_special_tokens(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.literal(text)
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert not set(ids) & tokenizer.special


def test_a_literal_that_is_plain_is_encoded_as_ever(tokenizer: Tokenizer) -> None:
    assert tokenizer.literal("What is 47 + 38?") == tokenizer.encode("What is 47 + 38?")[1:]


def test_any_text_cut_anywhere_keeps_its_bytes(joints: Joints) -> None:
    rng = random.Random(2)
    alphabet = 'ab 12\n\r\t{}":,漢é🙂▁<|>'
    for _ in range(100):
        text = "".join(rng.choices(alphabet, k=30))
        cut = rng.randrange(31)
        pieces = joints.pieces([part for part in (text[:cut], Gap(2, 2), text[cut:]) if part != ""])
        data = b"".join(
            (b"\0" if not piece.healed else b" \0")
            if isinstance(piece, Hole)
            else b"".join(map(joints.tokenizer.token_bytes, piece))
            for piece in pieces
        )
        assert data == f"{text[:cut]}\0{text[cut:]}".encode()


def test_a_single_space_before_a_gap_is_left_to_it(joints: Joints) -> None:
    text, hole, after = joints.pieces(parse("x = <gap>, y"))
    assert hole == Hole(healed=True)
    assert isinstance(text, tuple)
    assert joints.tokenizer.decode(text) == "x ="
    assert isinstance(after, tuple)
    assert after[-1] == END
    assert joints.pieces(parse("a\n<gap>"))[1] == Hole(open=True)


def test_a_space_that_is_part_of_a_token_stays(joints: Joints) -> None:
    text, hole, _ = joints.pieces(parse("def f(x, y):\n    return <gap:3>"))
    assert hole == Hole(least=3, most=3)
    assert isinstance(text, tuple)
    assert joints.tokenizer.decode(text) == "def f(x, y):\n    return "


def test_the_end_of_the_text_is_an_end_token_or_open(joints: Joints) -> None:
    assert joints.pieces(parse("<gap:3>"))[-1] == (END,)
    assert joints.pieces(parse("<gap:3-4>")) == (Hole(least=3, most=4, open=True),)


def forbidden(joints: Joints, hole: Hole, length: int, *, strict: bool = False) -> list[set[int]]:
    """Per position, what the bans forbid."""
    out: list[set[int]] = [set() for _ in range(length)]
    for places, tokens in joints.bans([(0, length, hole)], strict=strict):
        for place in range(length)[places]:
            out[place] |= set(tokens.tolist())
    return out


def test_special_tokens_end_tokens_and_unknown_ids_stand_in_no_gap(joints: Joints) -> None:
    expected = {token for token in range(SIZE + 8) if not joints.tokenizer.token_bytes(token)} | set(STOPS)
    assert set(range(SIZE, SIZE + 8)) < expected
    assert forbidden(joints, Hole(), 3) == [expected] * 3


def test_an_end_token_ends_an_open_gap_behind_its_least_length(joints: Joints) -> None:
    found = forbidden(joints, Hole(least=2, open=True), 4)
    assert [set(STOPS) & place for place in found] == [set(STOPS), set(STOPS), set(), set()]
    assert all(2 in place for place in found)


def test_a_healed_gap_begins_with_its_space_and_is_not_only_that(joints: Joints) -> None:
    tokens = joints.tokenizer
    allowed = [set(range(SIZE)) - place for place in forbidden(joints, Hole(healed=True), 2)]
    assert {tokens.token_bytes(token)[:1] for token in allowed[0]} == {b" "}
    assert b" " in {tokens.token_bytes(token) for token in allowed[0]}
    assert len(allowed[1]) > len(allowed[0])
    [alone] = forbidden(joints, Hole(healed=True), 1)
    assert b" " not in {tokens.token_bytes(token) for token in set(range(SIZE)) - alone}


def test_strictly_no_part_of_a_character_stands_in_a_gap(joints: Joints) -> None:
    [place] = forbidden(joints, Hole(), 1, strict=True)
    for token in set(range(SIZE)) - place:
        joints.tokenizer.token_bytes(token).decode()


def test_the_text_of_a_gap_is_without_the_healed_space_and_whole(joints: Joints) -> None:
    literal = joints.tokenizer.literal
    assert joints.text(literal(" 33"), Hole(healed=True)) == "33"
    assert joints.text(literal("33"), Hole(healed=True)) is None
    assert joints.text(literal("漢"), Hole()) == "漢"
    assert joints.text(literal("漢")[:-1], Hole()) is None


def test_bans_are_computed_once(joints: Joints) -> None:
    one, other = (joints.bans([(0, 1, Hole())], strict=False)[0].tokens for _ in range(2))
    assert one is other
    assert one.dtype == mx.int32
