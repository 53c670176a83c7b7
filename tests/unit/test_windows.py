"""Which pieces share a canvas, and how long their gaps may be: worked by hand on canvases of 16."""

from __future__ import annotations

import random

from mlx_diffgemma.infilling.boundaries import Hole, Piece
from mlx_diffgemma.infilling.windows import (
    arrange,
    fits,
    grid,
    grids,
    hole_budget,
    leading_text,
    middle,
    nearer,
    window,
)

ROOM = 16


def run(count: int, first: int = 100) -> tuple[int, ...]:
    return tuple(range(first, first + count))


def of(length: int) -> Hole:
    return Hole(least=length, most=length)


def test_a_template_that_fits_stands_in_one_canvas() -> None:
    pieces: tuple[Piece, ...] = (run(4), of(3), run(2), of(1), run(1))
    assert fits(pieces, ROOM)
    assert leading_text(pieces, ROOM, 0) == ((), pieces)
    found = window(pieces, ROOM)
    assert (found.pieces, found.rest) == (pieces, ())
    made = arrange(found, (3, 1), ROOM, pad=0)
    assert made.slots == (*run(4), None, None, None, *run(2), None, *run(1), 0, 0, 0, 0, 0)
    assert made.length == 11
    assert made.spans == ((4, 7), (9, 10))
    assert made.free_spans == [(0, 3), (3, 4)]
    assert made.rest == ()


def test_text_before_a_canvas_is_only_read_up_to_where_the_model_would_have_begun_one() -> None:
    """35 tokens: two canvases and three tokens of the third, where the gap has room."""
    text, rest = leading_text((run(35), of(2), run(20)), ROOM, 0)
    assert (text, rest) == (run(32), (run(3, 132), of(2), run(20)))
    assert leading_text((run(35), of(2), run(20)), ROOM, 3)[0] == run(29)


def test_a_canvas_begins_at_the_gap_where_too_little_would_be_left_behind_it() -> None:
    assert leading_text((run(30), of(2), run(20)), ROOM, 0) == (run(30), (of(2), run(20)))
    assert leading_text((run(3), of(2), run(20)), ROOM, 5) == (run(3), (of(2), run(20)))


def test_text_without_a_gap_behind_it_is_only_read() -> None:
    assert leading_text((run(3),), ROOM, 0) == (run(3), ())
    assert leading_text((of(1),), ROOM, 0) == ((), (of(1),))
    assert leading_text((), ROOM, 0) == ((), ())


def test_what_does_not_fit_waits_and_is_seen() -> None:
    found = window((of(4), run(20), of(2), run(1)), ROOM)
    assert found.pieces == (of(4), run(12))
    assert found.rest == (run(8, 112), of(2), run(1))
    made = arrange(found, (4,), ROOM, pad=0)
    assert made.slots == (None, None, None, None, *run(12))
    assert made.rest == found.rest


def test_a_gap_that_does_not_fit_whole_waits() -> None:
    found = window((of(4), run(6), of(7), run(1)), ROOM)
    assert (found.pieces, found.rest) == ((of(4), run(6)), (of(7), run(1)))


def test_a_gap_that_is_too_long_is_cut() -> None:
    found = window((of(40), run(3)), ROOM)
    assert found.pieces == (of(16),)
    assert found.rest == (of(24), run(3))
    assert found.unfinished
    assert window(found.rest, ROOM).rest == (of(8), run(3))
    assert not window((of(8), run(3)), ROOM).unfinished


def test_an_open_gap_takes_what_is_left_and_goes_on() -> None:
    found = window((run(4), Hole(least=2, most=30, open=True)), ROOM)
    assert found.pieces == (run(4), Hole(least=2, most=12, open=True))
    assert found.rest == (Hole(least=0, most=18, open=True),)
    assert grids(found) == [[12]]
    assert arrange(found, (12,), ROOM, pad=0).slots == (*run(4), *[None] * 12)


def test_longer_fillings_see_less_of_the_text_behind() -> None:
    found = window((run(2), Hole(least=1, most=10), run(10)), ROOM)
    assert found.holes == [Hole(least=1, most=10)]
    short, long = arrange(found, (1,), ROOM, pad=0), arrange(found, (10,), ROOM, pad=0)
    assert short.slots == (*run(2), None, *run(10), 0, 0, 0)
    assert (short.length, short.rest) == (13, ())
    assert long.slots == (*run(2), *[None] * 10, *run(4))
    assert (long.length, long.rest) == (16, (run(6, 104),))


def test_gaps_of_unknown_length_share_what_is_left() -> None:
    found = window((run(4), Hole(), run(2), Hole(), run(2)), ROOM)
    assert [hole.most for hole in found.holes] == [4, 4]
    assert hole_budget(found.pieces, ROOM) == 10
    assert window((Hole(), run(40)), ROOM).holes[0].most == 10


def test_a_few_lengths_are_all_tried_and_many_by_their_ratio() -> None:
    assert grid(Hole(least=3, most=9)) == [3, 4, 5, 6, 7, 8, 9]
    many = grid(Hole(least=1, most=200))
    assert (many[0], many[-1], len(many)) == (1, 200, 16)
    assert many == sorted(set(many))
    assert nearer(range(1, 21), [1, 2, 3, 8, 20], 3) == [4, 5, 6, 7]
    assert nearer([4], [4], 4) == []
    assert len(nearer(range(10, 101), [10, 50, 100], 50)) <= 8


def test_the_first_lengths_keep_to_what_there_is() -> None:
    assert middle([[1, 2, 3], [5]], 99) == (2, 5)
    assert middle([[1, 2, 3], [1, 2, 3]], 3) == (1, 1)


def test_windows_one_after_another_lose_nothing() -> None:
    """Whatever the pieces: every token comes once, in order, and every hole is as long as it may be."""
    rng = random.Random(5)
    for _ in range(300):
        pieces: list[Piece] = []
        for n in range(rng.randint(1, 5)):
            least = rng.randint(1, 30)
            pieces += [
                run(rng.randint(1, 50), 1000 * n + 100),
                Hole(least=least, most=least + rng.choice((0, 0, 3, 40))),
            ]
        pieces.append(run(rng.randint(1, 40), 9000))
        rest, position, seen, free = tuple(pieces), 0, [], 0
        while rest:
            tokens, rest = leading_text(rest, ROOM, position)
            seen += tokens
            position += len(tokens)
            if not rest:
                break
            found = window(rest, ROOM)
            tried = grids(found)
            lengths = middle(tried, hole_budget(found.pieces, ROOM))
            made = arrange(found, lengths, ROOM, pad=0)
            assert len(made.slots) <= ROOM
            assert made.slots[: made.length].count(None) == sum(lengths) == made.slots.count(None)
            seen += [slot for slot in made.slots[: made.length] if slot is not None]
            free += sum(lengths)
            rest, position = made.rest, position + made.length
        assert seen == [token for piece in pieces if not isinstance(piece, Hole) for token in piece]
        holes = [piece for piece in pieces if isinstance(piece, Hole)]
        assert sum(hole.least for hole in holes) <= free <= sum(hole.most or 0 for hole in holes)
