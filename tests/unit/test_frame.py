"""The live canvas as exact text."""

from __future__ import annotations

import pytest

from mlx_diffgemma.display.frame import (
    Ink,
    InkedText,
    ScreenRow,
    View,
    advance,
    clusters,
    full_rows,
    printable,
    rows,
    wrap,
)
from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event, Prefilled

FAMILY = "👨\u200d👩\u200d👧"


def texts(frame: list[ScreenRow]) -> list[str]:
    return [row.text for row in frame]


def wrapped(text: str, width: int) -> list[str]:
    return texts(wrap([InkedText(text, Ink.SETTLED)], width))


def canvas(
    *pieces: str,
    noise: tuple[int, ...] = (),
    changed: tuple[int, ...] = (),
    end: int | None = None,
    thought: int = 0,
    step: int = 2,
) -> Denoised:
    return Denoised(
        block=0,
        step=step,
        max_steps=48,
        best=tuple(range(len(pieces))),
        accepted=tuple(n not in noise for n in range(len(pieces))),
        changed=tuple(n in changed for n in range(len(pieces))),
        mean_entropy=0.25,
        end=end,
        pieces=pieces,
        thought=thought,
    )


def view(*events: Event, tail: str = "") -> View:
    state = View(tail=InkedText(tail, Ink.SETTLED))
    for event in events:
        state = advance(state, event)
    return state


def test_rows_break_by_cells_where_a_terminal_breaks_them():
    assert wrapped("denoise the canvas", 10) == ["denoise th", "e canvas"]


def test_a_full_row_waits_for_what_follows():
    assert wrapped("0123456789", 10) == ["0123456789"]
    assert wrapped("0123456789\nnext", 10) == ["0123456789", "next"]


def test_a_wide_character_is_never_split():
    assert wrapped("東京は今日晴れ", 5) == ["東京", "は今", "日晴", "れ"]
    assert wrapped("a東京", 4) == ["a東", "京"]
    assert [row.cells for row in wrap([InkedText("a東京", Ink.SETTLED)], 4)] == [3, 2]


def test_a_joined_emoji_is_one_character_of_two_cells():
    assert wrapped(f"abcd{FAMILY}{FAMILY}", 6) == [f"abcd{FAMILY}", FAMILY]
    assert [row.cells for row in wrap([InkedText(FAMILY, Ink.SETTLED)], 6)] == [2]


def test_skin_tones_variation_selectors_and_combining_marks_stay_with_their_character():
    text = "👍🏽❤\ufe0fe\u0301x"
    assert [text[start:end] for start, end in clusters(text)] == ["👍🏽", "❤\ufe0f", "e\u0301", "x"]


def test_newlines_make_rows_and_empty_rows():
    assert wrapped("a\n\nb\n", 10) == ["a", "", "b", ""]


def test_tabs_reach_the_next_stop_and_never_wrap():
    assert wrapped("\tx\nab\ty", 20) == ["        x", "ab      y"]
    assert wrapped("abcdefgh\tx", 10) == ["abcdefgh x"]


def test_inks_survive_wrapping():
    frame = wrap([InkedText("abc", Ink.SETTLED), InkedText("def", Ink.CHANGED)], 4)
    assert frame == [
        ScreenRow((InkedText("abc", Ink.SETTLED), InkedText("d", Ink.CHANGED)), 4),
        ScreenRow((InkedText("ef", Ink.CHANGED),), 2),
    ]


def test_a_terminal_one_cell_wide_ends_too():
    assert wrapped("a東b", 1) == ["a", "東", "b"]


def test_full_rows_leave_the_row_that_goes_on():
    assert full_rows("0123456789ab", 5) == ("0123456789", "ab")
    assert full_rows("ab\ncd\n", 5) == ("ab\ncd\n", "")
    assert full_rows("01234", 5) == ("", "01234")
    assert full_rows("", 5) == ("", "")


def test_control_characters_and_direction_overrides_are_replaced():
    assert printable("a\x1b[2Jb\x9bc\u202ed\x07\r\n\te") == "a�[2Jb�c�d�\n\te"
    assert printable(f"{FAMILY} עברית") == f"{FAMILY} עברית"


def test_settled_text_changed_text_and_noise_have_their_inks():
    first = canvas("The", " cat", " sat", noise=(2,))
    second = canvas("The", " dog", " sat", noise=(), changed=(1,))
    assert view(first, second).canvas == (
        InkedText("The", Ink.SETTLED),
        InkedText(" dog", Ink.CHANGED),
        InkedText(" sat", Ink.CHANGED),
    )


def test_noise_has_the_shape_of_its_text_and_none_of_its_letters():
    frame = rows(view(canvas("The", " cat", ".\n", "", "東", noise=(0, 1, 2, 3, 4))), 40, 10, 0)
    assert texts(frame)[:2] == ["▒░░ ░░░░", "▒░░"]


def test_noise_whose_token_still_changes_is_denser():
    calm, wild = (view(canvas("abcdef", noise=(0,), changed=changed)).canvas[0].text for changed in ((), (0,)))
    assert set(calm) == {"▒", "░"}
    assert set(wild) == {"▓", "▒"}


def test_noise_of_a_long_token_is_bounded():
    assert len(view(canvas("=" * 64, noise=(0,))).canvas[0].text) == 12


def test_nothing_is_drawn_after_an_accepted_end():
    assert texts(rows(view(canvas("Yes", ".", "", " junk", end=2)), 40, 10, 0))[0] == "Yes."
    assert texts(rows(view(canvas("Yes", ".", "", " junk", noise=(2,), end=2)), 40, 10, 0))[0] == "Yes.░ junk"


def test_the_models_thinking_has_its_own_ink():
    state = view(canvas("hm", " so", "Yes", thought=2), canvas("hm", " so", "Yes", thought=2))
    assert [span.ink for span in state.canvas] == [Ink.THOUGHT, Ink.THOUGHT, Ink.SETTLED]


def test_the_canvas_goes_on_right_after_the_finished_text():
    frame = rows(view(canvas(" world", "!"), tail="Hello"), 10, 10, 2.0)
    assert texts(frame) == ["Hello worl", "d!", "block 1"]


def test_status_line_in_full_and_as_far_as_it_fits():
    state = view(canvas("a", "b", "c", "d", noise=(3,), step=14))
    full = "block 1 · step 14/48 · entropy 0.250 · settled 75% · 1.5 tok/s"
    assert rows(state, 80, 24, 2.0)[-1].text == full
    assert rows(state, len(full) + 1, 24, 2.0)[-1].text == full
    assert rows(state, len(full), 24, 2.0)[-1].text == "block 1 · step 14/48 · entropy 0.250 · settled 75%"
    assert rows(state, 30, 24, 2.0)[-1].text == "block 1 · step 14/48"
    assert rows(state, 5, 24, 2.0)[-1].text == "bloc"


def test_status_while_the_prompt_is_read():
    assert texts(rows(View(), 40, 10, 0.0)) == ["reading the prompt"]
    assert texts(rows(view(Prefilled(done=512, total=2048)), 40, 10, 1.0)) == ["reading the prompt 512/2048"]


def test_a_new_canvas_is_noise():
    frame = rows(view(CanvasStarted(block=1, canvas=(3, 0, 2))), 40, 10, 0.0)
    assert texts(frame) == [" ▓▓▒ ▓", "block 2"]


def test_a_finished_block_leaves_the_frame_and_counts():
    state = view(canvas("a", "b"), BlockCommitted(block=0, steps=2, tokens=(1, 2), last=False))
    assert state.canvas == ()
    assert state.tokens == 2


@pytest.mark.parametrize(
    ("unsettled", "window"),
    [
        (0, ["▒", "1", "2", "3"]),
        (10, ["9", "░", "11", "12"]),
        (19, ["16", "17", "18", "░"]),
        (None, ["16", "17", "18", "19"]),
    ],
)
def test_a_canvas_taller_than_the_terminal_is_seen_around_its_first_noise(unsettled: int | None, window: list[str]):
    pieces = [piece for n in range(20) for piece in (str(n), "\n")][:-1]
    noise = () if unsettled is None else (2 * unsettled,)
    for n in noise:
        pieces[n] = "?"
    frame = rows(view(canvas(*pieces, noise=noise)), 40, 6, 0.0)
    assert texts(frame) == [*window, "block 1 · step 2/48 · entropy 0.250"]


@pytest.mark.parametrize("height", [1, 2, 3])
def test_the_shortest_terminals_show_the_status_line(height: int):
    frame = rows(view(canvas("a\n", "b\n", "c\n", "d")), 20, height, 0.0)
    assert len(frame) == max(1, height - 1)
    assert frame[-1].text == "block 1 · step 2/48"
