"""Templates: markers, gaps, and what is neither."""

from __future__ import annotations

from typing import Any

import pytest

from mlx_diffgemma.errors import TemplateError
from mlx_diffgemma.infilling.prompts import check_span, edit_gap, edit_parts, edit_prompt, infill_prompt
from mlx_diffgemma.infilling.template import Gap, filled, parse, sized


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("a <gap> b", ("a ", Gap(), " b")),
        ("<gap>", (Gap(),)),
        (f"<gap:{'0' * 5000}4>x", (Gap(4, 4), "x")),
        ("<gap:40>x", (Gap(40, 40), "x")),
        ("x<gap:5-40>", ("x", Gap(5, 40))),
        ("<gap><gap:2>", (Gap(), Gap(2, 2))),
        ("<gap:>a<gap>", ("<gap:>a", Gap())),
        ("a\r\n<gap>\r\nb\r\n", ("a\r\n", Gap(), "\r\nb\r\n")),
    ],
)
def test_a_marker_is_a_gap(text: str, parts: tuple[object, ...]) -> None:
    assert parse(text) == parts


@pytest.mark.parametrize(
    ("marker", "text", "parts"),
    [
        ("___", "a ___ b ___:4", ("a ", Gap(), " b ", Gap(), ":4")),
        ("[?]", "a [?] [?:3]", ("a ", Gap(), " ", Gap(3, 3))),
        ("{{it}}", "{{it}}{{it:1-2}}<gap>", (Gap(), Gap(1, 2), "<gap>")),
        ("?", "a.?", ("a.", Gap())),
    ],
)
def test_any_marker_will_do(marker: str, text: str, parts: tuple[object, ...]) -> None:
    assert parse(text, marker) == parts


def test_a_list_of_texts_and_gaps_is_a_template_too() -> None:
    assert parse(["a", "", "b", Gap(3), "", Gap(1, 2), "c"]) == ("ab", Gap(3), Gap(1, 2), "c")
    assert parse(["<gap>", Gap(3)]) == ("<gap>", Gap(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: parse("no gap"), "the template has no gap: mark one with <gap>"),
        (lambda: parse(["a", "b"]), "the template has no gap"),
        (lambda: parse(""), "the template has no gap"),
        (lambda: parse("a", " "), "marker=' ' must be something that can be seen"),
        (lambda: parse(["a", 5, Gap()]), "a template holds texts and gaps, not 5"),  # type: ignore[list-item]
        (lambda: parse(b"\xff<gap>"), "a template holds texts and gaps, not 255"),  # type: ignore[arg-type]
        (lambda: parse("\udcff <gap>"), "the text is not valid Unicode at character 0"),
        (lambda: parse("<gap:0>"), "a gap of 0 tokens: it must have at least one"),
        (lambda: parse(f"<gap:{'9' * 5000}>"), "a gap of more than 1000000000 tokens: no model can fill it"),
        (lambda: parse(f"<gap:2-{'9' * 5000}>"), "a gap of more than 1000000000 tokens"),
        (lambda: Gap(10**5000), "a gap of more than 1000000000 tokens"),
        (lambda: Gap("3"), "a gap of '3' tokens: give a whole number"),  # type: ignore[arg-type]
        (lambda: Gap(1, 2.0), "a gap of 2.0 tokens: give a whole number"),  # type: ignore[arg-type]
        (lambda: Gap(True), "a gap of True tokens: give a whole number"),
        (lambda: Gap(constraint="a+"), "a gap: constraint='a\\+' must be a Regex"),  # type: ignore[arg-type]
        (lambda: parse("<gap:5-2>"), "a gap of 5 to 2 tokens"),
        (lambda: check_span("abc", (1, 4)), "the span 1:4 is outside the text of 3 characters"),
        (lambda: check_span("abc", (-1, 2)), "the span -1:2 is outside"),
        (lambda: check_span("abc", (2, 1)), "the span 2:1 is outside"),
        (lambda: edit_prompt("abc", " ", (0, 1)), "the instruction is empty"),
    ],
)
def test_what_is_no_template_is_refused(make: Any, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        make()


def test_gaps_without_a_length_can_get_one() -> None:
    parts = parse("a<gap>b<gap:3>c")
    assert sized(parts, 7) == ("a", Gap(7, 7), "b", Gap(3, 3), "c")
    assert sized(parts, None) == parts


def test_fillings_go_into_the_gaps_in_order() -> None:
    assert filled(parse("a<gap>b<gap>"), ["1", "2"]) == "a1b2"


def test_the_prompt_shows_the_text_if_the_canvas_cannot_or_there_is_no_instruction() -> None:
    parts = parse("a [x] b", "[x]")
    assert infill_prompt(parts, "Say.", shown=False) == "Say."
    assert infill_prompt(parts, "Say.", shown=True) == "Say.\n\na <gap> b"
    assert infill_prompt(parts, None, shown=False).endswith("\n\na <gap> b")


def test_an_edited_span_is_a_gap_of_about_its_length() -> None:
    assert edit_parts("a日b", (1, 2), Gap(2)) == ["a", Gap(2), "b"]
    assert edit_parts("ab", (0, 2), Gap()) == [Gap()]
    assert edit_gap(10) == Gap(5, 28)
    assert edit_gap(0) == Gap()
    assert edit_prompt("one two", "Louder.", (4, 7)).startswith("Louder.\n\n")
