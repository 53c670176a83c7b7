"""Literal text keeps its bytes, and a gap has none that are not its own: with the demo's tokenizer."""

from __future__ import annotations

import random
from pathlib import Path

import mlx.core as mx
import pytest

import mlx_diffgemma
from mlx_diffgemma.constraint.cache import Vocabulary
from mlx_diffgemma.infilling.boundaries import Boundaries, TokenGap
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
def boundaries(tokenizer: Tokenizer) -> Boundaries:
    return Boundaries(tokenizer, Vocabulary.of(tokenizer.all_token_bytes, SIZE + 8), STOPS)


@pytest.mark.parametrize("text", TEXTS)
def test_a_literal_is_encoded_byte_for_byte_and_without_special_tokens(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.literal(text)
    assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
    assert not set(ids) & tokenizer.special


def test_a_literal_that_is_plain_is_encoded_as_ever(tokenizer: Tokenizer) -> None:
    assert tokenizer.literal("What is 47 + 38?") == tokenizer.encode("What is 47 + 38?")[1:]


def test_any_text_cut_anywhere_keeps_its_bytes(boundaries: Boundaries) -> None:
    rng = random.Random(2)
    alphabet = 'ab 12\n\r\t{}":,漢é🙂▁<|>'
    for _ in range(100):
        text = "".join(rng.choices(alphabet, k=30))
        cut = rng.randrange(31)
        parts = boundaries.token_parts([part for part in (text[:cut], Gap(2, 2), text[cut:]) if part != ""])
        data = b"".join(
            (b"\0" if not part.absorbs_space else b" \0")
            if isinstance(part, TokenGap)
            else b"".join(map(boundaries.tokenizer.token_bytes, part))
            for part in parts
        )
        assert data == f"{text[:cut]}\0{text[cut:]}".encode()


def test_a_single_space_before_a_gap_is_absorbed_by_it(boundaries: Boundaries) -> None:
    text, gap, after = boundaries.token_parts(parse("x = <gap>, y"))
    assert gap == TokenGap(absorbs_space=True)
    assert isinstance(text, tuple)
    assert boundaries.tokenizer.decode(text) == "x ="
    assert isinstance(after, tuple)
    assert after[-1] == END
    assert boundaries.token_parts(parse("a\n<gap>"))[1] == TokenGap(open_ended=True)


def test_a_space_that_is_part_of_a_token_stays(boundaries: Boundaries) -> None:
    text, gap, _ = boundaries.token_parts(parse("def f(x, y):\n    return <gap:3>"))
    assert gap == TokenGap(min_tokens=3, max_tokens=3)
    assert isinstance(text, tuple)
    assert boundaries.tokenizer.decode(text) == "def f(x, y):\n    return "


def test_the_end_of_the_text_is_an_end_token_or_open(boundaries: Boundaries) -> None:
    assert boundaries.token_parts(parse("<gap:3>"))[-1] == (END,)
    assert boundaries.token_parts(parse("<gap:3-4>")) == (TokenGap(min_tokens=3, max_tokens=4, open_ended=True),)


def forbidden(boundaries: Boundaries, gap: TokenGap, length: int, *, whole_characters: bool = False) -> list[set[int]]:
    """Per position, what the bans forbid."""
    out: list[set[int]] = [set() for _ in range(length)]
    for positions, tokens in boundaries.bans([(0, length, gap)], whole_characters=whole_characters):
        for place in range(length)[positions]:
            out[place] |= set(tokens.tolist())
    return out


def test_special_tokens_end_tokens_and_unknown_ids_are_banned_from_gaps(boundaries: Boundaries) -> None:
    expected = {token for token in range(SIZE + 8) if not boundaries.tokenizer.token_bytes(token)} | set(STOPS)
    assert set(range(SIZE, SIZE + 8)) < expected
    assert forbidden(boundaries, TokenGap(), 3) == [expected] * 3


def test_an_end_token_ends_an_open_gap_after_its_minimum_length(boundaries: Boundaries) -> None:
    found = forbidden(boundaries, TokenGap(min_tokens=2, open_ended=True), 4)
    assert [set(STOPS) & banned for banned in found] == [set(STOPS), set(STOPS), set(), set()]
    assert all(2 in banned for banned in found)


def test_a_gap_that_absorbs_a_space_begins_with_it_and_is_not_only_that(boundaries: Boundaries) -> None:
    tokens = boundaries.tokenizer
    allowed = [set(range(SIZE)) - banned for banned in forbidden(boundaries, TokenGap(absorbs_space=True), 2)]
    assert {tokens.token_bytes(token)[:1] for token in allowed[0]} == {b" "}
    assert b" " in {tokens.token_bytes(token) for token in allowed[0]}
    assert len(allowed[1]) > len(allowed[0])
    [alone] = forbidden(boundaries, TokenGap(absorbs_space=True), 1)
    assert b" " not in {tokens.token_bytes(token) for token in set(range(SIZE)) - alone}


def test_no_part_of_a_character_is_allowed_where_characters_must_be_whole(boundaries: Boundaries) -> None:
    [banned] = forbidden(boundaries, TokenGap(), 1, whole_characters=True)
    for token in set(range(SIZE)) - banned:
        boundaries.tokenizer.token_bytes(token).decode()


def test_the_text_of_a_gap_is_without_the_absorbed_space_and_whole(boundaries: Boundaries) -> None:
    literal = boundaries.tokenizer.literal
    assert boundaries.data(literal(" 33"), TokenGap(absorbs_space=True)) == b"33"
    assert boundaries.data(literal("33"), TokenGap(absorbs_space=True)) is None
    assert boundaries.data(literal("漢"), TokenGap()) == "漢".encode()
    assert boundaries.data(literal("漢")[:-1], TokenGap()) is None


def test_bans_are_computed_once(boundaries: Boundaries) -> None:
    one, other = (boundaries.bans([(0, 1, TokenGap())], whole_characters=False)[0].tokens for _ in range(2))
    assert one is other
    assert one.dtype == mx.int32
