"""The row of progress as exact text, and what a terminal gets of it."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from mlx_diffgemma.display.bar import Bar, bar_row, no_progress


def test_the_row_is_label_count_bar_and_time_as_far_as_they_fit() -> None:
    whole = "answers  3/12  " + "━" * 5 + "─" * 15 + "  1:05 left"
    assert bar_row("answers", 3, 12, width=80, left=65.0) == whole
    assert bar_row("answers", 3, 12, width=len(whole), left=65.0) == whole
    assert bar_row("answers", 3, 12, width=len(whole) - 1, left=65.0) == whole.removesuffix("  1:05 left")
    assert bar_row("answers", 3, 12, width=20) == "answers  3/12"
    # The count is worth more than the end of a label.
    assert bar_row("a label that is long", 3, 12, width=12) == "a labe  3/12"
    assert bar_row("writing", 1500, 2000, width=80, unit=" MB").startswith("writing  1,500/2,000 MB  ━━━")
    assert bar_row("steps", 1, 2, width=80, left=3725).endswith("  1:02:05 left")
    assert bar_row("loading", 0, 0, width=80) == "loading"


def test_control_characters_of_a_label_reach_no_terminal() -> None:
    assert bar_row("a\x1b[2Jb", 0, 0, width=80) == "a\ufffd[2Jb"


class Terminal(io.StringIO):
    """A stream that says it is a terminal, with the descriptor of none."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    import os

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("os.get_terminal_size", lambda _: os.terminal_size((80, 24)))
    monkeypatch.setattr(Terminal, "fileno", lambda _: 2)
    return Terminal()


def seconds() -> Iterator[float]:
    """A clock on which every look takes a second."""
    yield from map(float, range(1000))


def test_a_bar_is_erased_however_the_work_ends(terminal: Terminal) -> None:
    with pytest.raises(ValueError, match="over"), Bar("work", 4, terminal, clock=seconds().__next__) as bar:
        bar.show(2)
        raise ValueError("over")
    assert "work  2/4" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")


def test_what_is_printed_meanwhile_is_above_the_bar(terminal: Terminal) -> None:
    with Bar("work", 4, terminal, clock=seconds().__next__) as bar:
        before = len(terminal.getvalue())
        with bar.hidden():
            terminal.write("a line\n")
        drawn = terminal.getvalue()[before:]
    assert drawn.startswith("\r\x1b[Ka line\n\x1b[2mwork  0/4")


def test_items_are_passed_on_and_counted(terminal: Terminal) -> None:
    with Bar("work", 0, terminal, clock=seconds().__next__) as bar:
        assert list(bar.passing("reading", "abc", 3)) == ["a", "b", "c"]
    assert "reading  3/3" in terminal.getvalue()
    assert no_progress("reading", "abc", 3) == "abc"


def test_without_a_terminal_or_when_quiet_nothing_is_drawn(terminal: Terminal) -> None:
    pipe = io.StringIO()
    for stream, shown in ((pipe, True), (terminal, False)):
        with Bar("work", 4, stream, shown=shown) as bar:
            bar.show(2)
        assert stream.getvalue() == ""
