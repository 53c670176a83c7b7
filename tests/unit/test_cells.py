"""Text as the rows and cells of a terminal."""

from __future__ import annotations

import pytest

from mlx_diffgemma.display.cells import Ink, InkedText, ScreenRow, graphemes, printable, split_last_row, wrap

FAMILY = "👨\u200d👩\u200d👧"


def wrapped(text: str, width: int) -> list[str]:
    return [row.text for row in wrap([InkedText(text, Ink.FINISHED)], width)]


def test_rows_break_by_cells_where_a_terminal_breaks_them():
    assert wrapped("denoise the canvas", 10) == ["denoise th", "e canvas"]


def test_a_full_row_waits_for_what_follows():
    assert wrapped("0123456789", 10) == ["0123456789"]
    assert wrapped("0123456789\nnext", 10) == ["0123456789", "next"]


def test_a_wide_character_is_never_split():
    assert wrapped("東京は今日晴れ", 5) == ["東京", "は今", "日晴", "れ"]
    assert wrapped("a東京", 4) == ["a東", "京"]
    assert [row.cells for row in wrap([InkedText("a東京", Ink.FINISHED)], 4)] == [3, 2]


def test_a_joined_emoji_is_one_character_of_two_cells():
    assert wrapped(f"abcd{FAMILY}{FAMILY}", 6) == [f"abcd{FAMILY}", FAMILY]
    assert [row.cells for row in wrap([InkedText(FAMILY, Ink.FINISHED)], 6)] == [2]


def test_skin_tones_variation_selectors_and_combining_marks_stay_with_their_character():
    text = "👍🏽❤\ufe0fe\u0301x"
    assert [grapheme for grapheme, _ in graphemes(text)] == ["👍🏽", "❤\ufe0f", "e\u0301", "x"]


def test_newlines_make_rows_and_empty_rows():
    assert wrapped("a\n\nb\n", 10) == ["a", "", "b", ""]


def test_tabs_reach_the_next_stop_and_never_wrap():
    assert wrapped("\tx\nab\ty", 20) == ["        x", "ab      y"]
    assert wrapped("abcdefgh\tx", 10) == ["abcdefgh x"]


def test_inks_survive_wrapping():
    frame = wrap([InkedText("abc", Ink.FINISHED), InkedText("def", Ink.CHANGED)], 4)
    assert frame == [
        ScreenRow((InkedText("abc", Ink.FINISHED), InkedText("d", Ink.CHANGED)), 4),
        ScreenRow((InkedText("ef", Ink.CHANGED),), 2),
    ]


def test_a_terminal_one_cell_wide_ends_too():
    assert wrapped("a東b", 1) == ["a", "東", "b"]


def test_full_rows_leave_the_row_that_goes_on():
    assert split_last_row("0123456789ab", 5) == ("0123456789", "ab")
    assert split_last_row("ab\ncd\n", 5) == ("ab\ncd\n", "")
    assert split_last_row("01234", 5) == ("", "01234")
    assert split_last_row("", 5) == ("", "")


def test_control_characters_and_direction_overrides_are_replaced():
    assert printable("a\x1b[2Jb\x9bc\u202ed\x07\r\n\te") == "a�[2Jb�c�d�\n\te"
    assert printable(f"{FAMILY} עברית") == f"{FAMILY} עברית"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("🇩🇪🇫🇷", [("🇩🇪", 2), ("🇫🇷", 2)]),
        ("1\ufe0f\u20e3", [("1\ufe0f\u20e3", 2)]),
        ("\u1112\u1161\u11ab", [("\u1112\u1161\u11ab", 2)]),
        ("\u0995\u09bf", [("\u0995\u09bf", 2)]),
        ("a\u200bb", [("a", 1), ("\u200b", 0), ("b", 1)]),
        ("\u0301a", [("\u0301", 0), ("a", 1)]),
        ("a\t\nb", [("a", 1), ("\t", 0), ("\n", 0), ("b", 1)]),
        ("", []),
    ],
    ids=["flags", "keycap", "jamo", "bengali", "zero width space", "mark without a letter", "controls", "empty"],
)
def test_widths_of_characters(text: str, expected: list[tuple[str, int]]):
    assert list(graphemes(text)) == expected


def test_what_has_no_width_ends_a_full_row():
    assert wrapped("abcd\u200be", 4) == ["abcd\u200b", "e"]


def test_no_printable_character_but_newline_and_tab_is_a_control_character():
    everything = printable("".join(map(chr, range(0x110000))))
    assert [text for text in everything if text < " " or "\x7f" <= text < "\xa0"] == ["\t", "\n"]
    assert "".join(text for text, _ in graphemes(everything)) == everything
