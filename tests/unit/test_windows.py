"""Which parts share a canvas, and how long their gaps may be: worked by hand on canvases of 16."""

from __future__ import annotations

import random

from mlx_diffgemma.infilling.boundaries import TokenGap, TokenPart
from mlx_diffgemma.infilling.lengths import coarse_lengths, coarse_lengths_per_gap, lengths_around, middle_lengths
from mlx_diffgemma.infilling.windows import fits, gap_budget, lay_out, next_window, split_leading_text

CAPACITY = 16


def text(count: int, first: int = 100) -> tuple[int, ...]:
    return tuple(range(first, first + count))


def gap_of(length: int) -> TokenGap:
    return TokenGap(min_tokens=length, max_tokens=length)


def test_a_template_that_fits_is_in_one_canvas() -> None:
    parts: tuple[TokenPart, ...] = (text(4), gap_of(3), text(2), gap_of(1), text(1))
    assert fits(parts, CAPACITY)
    assert split_leading_text(parts, CAPACITY, 0) == ((), parts)
    found = next_window(parts, CAPACITY)
    assert (found.parts, found.rest) == (parts, ())
    made = lay_out(found, (3, 1), CAPACITY, pad=0)
    assert made.slots == (*text(4), None, None, None, *text(2), None, *text(1), 0, 0, 0, 0, 0)
    assert made.length == 11
    assert made.spans == ((4, 7), (9, 10))
    assert made.free_spans == [(0, 3), (3, 4)]
    assert made.rest == ()


def test_text_before_a_canvas_is_only_read_up_to_where_the_model_would_have_begun_one() -> None:
    """35 tokens: two canvases and three tokens of the third, where there is space for the gap."""
    leading, rest = split_leading_text((text(35), gap_of(2), text(20)), CAPACITY, 0)
    assert (leading, rest) == (text(32), (text(3, 132), gap_of(2), text(20)))
    assert split_leading_text((text(35), gap_of(2), text(20)), CAPACITY, 3)[0] == text(29)


def test_a_canvas_begins_at_the_gap_where_too_little_would_be_left_after_it() -> None:
    assert split_leading_text((text(30), gap_of(2), text(20)), CAPACITY, 0) == (text(30), (gap_of(2), text(20)))
    assert split_leading_text((text(3), gap_of(2), text(20)), CAPACITY, 5) == (text(3), (gap_of(2), text(20)))


def test_text_without_a_gap_after_it_is_only_read() -> None:
    assert split_leading_text((text(3),), CAPACITY, 0) == (text(3), ())
    assert split_leading_text((gap_of(1),), CAPACITY, 0) == ((), (gap_of(1),))
    assert split_leading_text((), CAPACITY, 0) == ((), ())


def test_what_does_not_fit_waits_and_is_seen() -> None:
    found = next_window((gap_of(4), text(20), gap_of(2), text(1)), CAPACITY)
    assert found.parts == (gap_of(4), text(12))
    assert found.rest == (text(8, 112), gap_of(2), text(1))
    made = lay_out(found, (4,), CAPACITY, pad=0)
    assert made.slots == (None, None, None, None, *text(12))
    assert made.rest == found.rest


def test_a_gap_that_does_not_fit_whole_waits() -> None:
    found = next_window((gap_of(4), text(6), gap_of(7), text(1)), CAPACITY)
    assert (found.parts, found.rest) == ((gap_of(4), text(6)), (gap_of(7), text(1)))


def test_a_gap_that_is_too_long_is_cut() -> None:
    found = next_window((gap_of(40), text(3)), CAPACITY)
    assert found.parts == (gap_of(16),)
    assert found.rest == (gap_of(24), text(3))
    assert found.unfinished
    assert next_window(found.rest, CAPACITY).rest == (gap_of(8), text(3))
    assert not next_window((gap_of(8), text(3)), CAPACITY).unfinished


def test_an_open_gap_takes_what_is_left_and_goes_on() -> None:
    found = next_window((text(4), TokenGap(min_tokens=2, max_tokens=30, open_ended=True)), CAPACITY)
    assert found.parts == (text(4), TokenGap(min_tokens=2, max_tokens=12, open_ended=True))
    assert found.rest == (TokenGap(min_tokens=0, max_tokens=18, open_ended=True),)
    assert coarse_lengths_per_gap(found) == [[12]]
    assert lay_out(found, (12,), CAPACITY, pad=0).slots == (*text(4), *[None] * 12)


def test_longer_fillings_see_less_of_the_text_after_them() -> None:
    found = next_window((text(2), TokenGap(min_tokens=1, max_tokens=10), text(10)), CAPACITY)
    assert found.gaps == [TokenGap(min_tokens=1, max_tokens=10)]
    short, long = lay_out(found, (1,), CAPACITY, pad=0), lay_out(found, (10,), CAPACITY, pad=0)
    assert short.slots == (*text(2), None, *text(10), 0, 0, 0)
    assert (short.length, short.rest) == (13, ())
    assert long.slots == (*text(2), *[None] * 10, *text(4))
    assert (long.length, long.rest) == (16, (text(6, 104),))


def test_gaps_of_unknown_length_share_what_is_left() -> None:
    found = next_window((text(4), TokenGap(), text(2), TokenGap(), text(2)), CAPACITY)
    assert [gap.max_tokens for gap in found.gaps] == [4, 4]
    assert gap_budget(found.parts, CAPACITY) == 10
    assert next_window((TokenGap(), text(40)), CAPACITY).gaps[0].max_tokens == 10


def test_a_few_lengths_are_all_tried_and_many_by_their_ratio() -> None:
    assert coarse_lengths(TokenGap(min_tokens=3, max_tokens=9)) == [3, 4, 5, 6, 7, 8, 9]
    many = coarse_lengths(TokenGap(min_tokens=1, max_tokens=200))
    assert (many[0], many[-1], len(many)) == (1, 200, 16)
    assert many == sorted(set(many))
    assert lengths_around(range(1, 21), [1, 2, 3, 8, 20], 3) == [4, 5, 6, 7]
    assert lengths_around([4], [4], 4) == []
    assert len(lengths_around(range(10, 101), [10, 50, 100], 50)) <= 8


def test_the_first_lengths_keep_to_what_there_is() -> None:
    assert middle_lengths([[1, 2, 3], [5]], 99) == (2, 5)
    assert middle_lengths([[1, 2, 3], [1, 2, 3]], 3) == (1, 1)


def test_windows_one_after_another_lose_nothing() -> None:
    """Whatever the parts: every token comes once, in order, and every gap is as long as it may be."""
    rng = random.Random(5)
    for _ in range(300):
        parts: list[TokenPart] = []
        for n in range(rng.randint(1, 5)):
            least = rng.randint(1, 30)
            parts += [
                text(rng.randint(1, 50), 1000 * n + 100),
                TokenGap(min_tokens=least, max_tokens=least + rng.choice((0, 0, 3, 40))),
            ]
        parts.append(text(rng.randint(1, 40), 9000))
        rest, position, seen, free = tuple(parts), 0, [], 0
        while rest:
            tokens, rest = split_leading_text(rest, CAPACITY, position)
            seen += tokens
            position += len(tokens)
            if not rest:
                break
            found = next_window(rest, CAPACITY)
            tried = coarse_lengths_per_gap(found)
            lengths = middle_lengths(tried, gap_budget(found.parts, CAPACITY))
            made = lay_out(found, lengths, CAPACITY, pad=0)
            assert len(made.slots) <= CAPACITY
            assert made.slots[: made.length].count(None) == sum(lengths) == made.slots.count(None)
            seen += [slot for slot in made.slots[: made.length] if slot is not None]
            free += sum(lengths)
            rest, position = made.rest, position + made.length
        assert seen == [token for part in parts if not isinstance(part, TokenGap) for token in part]
        gaps = [part for part in parts if isinstance(part, TokenGap)]
        assert sum(gap.min_tokens for gap in gaps) <= free <= sum(gap.max_tokens or 0 for gap in gaps)
