"""The live canvas as exact text."""

from __future__ import annotations

from dataclasses import replace

import pytest
from scripted import figures

from mlx_diffgemma.display.cells import Ink, InkedText, ScreenRow
from mlx_diffgemma.display.frame import View, advance, render, summary
from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event, Prefilled


def texts(frame: list[ScreenRow]) -> list[str]:
    return [row.text for row in frame]


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
    state = View(tail=InkedText(tail, Ink.FINISHED))
    for event in events:
        state = advance(state, event)
    return state


def test_finished_text_changed_text_and_noise_have_their_inks():
    first = canvas("The", " cat", " sat", noise=(2,))
    second = canvas("The", " dog", " sat", noise=(), changed=(1,))
    assert view(first, second).canvas == (
        InkedText("The", Ink.FINISHED),
        InkedText(" dog", Ink.CHANGED),
        InkedText(" sat", Ink.CHANGED),
    )


def test_noise_has_the_shape_of_its_text_and_none_of_its_letters():
    frame = render(view(canvas("The", " cat", ".\n", "", "東", noise=(0, 1, 2, 3, 4))), 40, 10)
    assert texts(frame)[:2] == ["▒░░ ░░░░", "▒░░"]


def test_noise_whose_token_still_changes_is_denser():
    calm, wild = (view(canvas("abcdef", noise=(0,), changed=changed)).canvas[0].text for changed in ((), (0,)))
    assert set(calm) == {"▒", "░"}
    assert set(wild) == {"▓", "▒"}


def test_noise_of_a_long_token_is_bounded():
    assert len(view(canvas("=" * 64, noise=(0,))).canvas[0].text) == 12


def test_nothing_is_drawn_after_an_accepted_end():
    assert texts(render(view(canvas("Yes", ".", "", " junk", end=2)), 40, 10))[0] == "Yes."
    assert texts(render(view(canvas("Yes", ".", "", " junk", noise=(2,), end=2)), 40, 10))[0] == "Yes.░ junk"


def test_the_models_thinking_has_its_own_ink():
    state = view(canvas("hm", " so", "Yes", thought=2), canvas("hm", " so", "Yes", thought=2))
    assert [span.ink for span in state.canvas] == [Ink.THOUGHT, Ink.THOUGHT, Ink.FINISHED]


def test_the_canvas_goes_on_right_after_the_finished_text():
    frame = render(view(canvas(" world", "!"), tail="Hello"), 10, 10)
    assert texts(frame) == ["Hello worl", "d!", "block 1"]


def test_status_line_in_full_and_as_far_as_it_fits():
    state = replace(view(canvas("a", "b", "c", "d", noise=(3,), step=14)), speed=1.5)
    full = "block 1 · step 14/48 · entropy 0.250 · accepted 75% · 1.5 tok/s"
    assert render(state, 80, 24)[-1].text == full
    assert render(state, len(full) + 1, 24)[-1].text == full
    assert render(state, len(full), 24)[-1].text == "block 1 · step 14/48 · entropy 0.250 · accepted 75%"
    assert render(state, 30, 24)[-1].text == "block 1 · step 14/48"
    assert render(state, 5, 24)[-1].text == "bloc"


def test_status_while_the_prompt_is_read():
    assert texts(render(View(), 40, 10)) == ["reading the prompt"]
    assert texts(render(view(Prefilled(done=512, total=2048)), 40, 10)) == ["reading the prompt 512/2048"]


def test_a_new_canvas_is_noise():
    frame = render(view(CanvasStarted(block=1, canvas=(3, 0, 2))), 40, 10)
    assert texts(frame) == [" ▓▓▒ ▓", "block 2"]


def test_a_finished_block_leaves_the_frame_and_counts():
    state = view(canvas("a", "b"), BlockCommitted(block=0, steps=2, tokens=(1, 2), last=False))
    assert state.canvas == ()
    assert state.committed == 2


def test_the_speed_is_that_of_finished_blocks_and_is_not_shown_in_the_first_second():
    block = BlockCommitted(block=0, steps=2, tokens=(1, 2, 3), last=False)
    early = advance(view(canvas("a", "b")), block, 0.1)
    assert (early.committed, early.speed) == (3, None)
    later = advance(advance(early, canvas("c", "d"), 1.9), block, 2.0)
    assert later.speed == 3.0
    # What is accepted in a canvas may still change: it counts when the block is finished.
    assert advance(later, canvas("e", "f"), 9.0).speed == 3.0
    assert texts(render(later, 80, 10))[-1].endswith(" · 3.0 tok/s")


def test_the_status_line_does_not_rise_when_newlines_of_a_draft_go():
    tall, low = canvas("a\n", "b\n", "c", noise=()), canvas("a", "b", "c", noise=())
    state = view(tall)
    assert texts(render(state, 40, 10)) == ["a", "b", "c", "block 1 · step 2/48 · entropy 0.250"]
    after = replace(advance(state, low), rows=3)
    assert texts(render(after, 40, 10))[:3] == ["abc", "", ""]
    assert len(render(after, 40, 10)) == 4
    # No more rows than the terminal has.
    assert len(render(after, 40, 3)) == 2
    assert advance(after, BlockCommitted(block=0, steps=2, tokens=(1,), last=True)).rows == 0


@pytest.mark.parametrize("width", [10, 22, 40, 60, 80, 100, 120, 200])
def test_the_statistics_line_drops_figures_until_it_fits(width: int):
    whole, line = summary(figures()), summary(figures(), width)
    assert len(line) <= width
    # The first figure stays, cut if it must be.
    assert line.startswith("40 tokens in 2 blocks"[:width])
    assert width < 21 or set(line.split(" · ")) <= set(whole.split(" · "))
    assert ("tok/s" in line) == (width >= 40)
    assert (line == whole) == (width >= len(whole))


@pytest.mark.parametrize(
    ("noisy", "window"),
    [
        (0, ["▒", "1", "2", "3"]),
        (10, ["9", "░", "11", "12"]),
        (19, ["16", "17", "18", "░"]),
        (None, ["16", "17", "18", "19"]),
    ],
)
def test_a_canvas_taller_than_the_terminal_is_seen_around_its_first_noise(noisy: int | None, window: list[str]):
    pieces = [piece for n in range(20) for piece in (str(n), "\n")][:-1]
    noise = () if noisy is None else (2 * noisy,)
    for n in noise:
        pieces[n] = "?"
    frame = render(view(canvas(*pieces, noise=noise)), 40, 6)
    assert texts(frame) == [*window, "block 1 · step 2/48 · entropy 0.250"]


@pytest.mark.parametrize("height", [1, 2, 3])
def test_the_shortest_terminals_show_the_status_line(height: int):
    frame = render(view(canvas("a\n", "b\n", "c\n", "d")), 20, height)
    assert len(frame) == max(1, height - 1)
    assert frame[-1].text == "block 1 · step 2/48"
