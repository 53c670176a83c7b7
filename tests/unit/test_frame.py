"""The live canvas as exact text."""

from __future__ import annotations

import pytest

from mlx_diffgemma.display.cells import Ink, InkedText, ScreenRow
from mlx_diffgemma.display.frame import View, advance, render
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
    frame = render(view(canvas("The", " cat", ".\n", "", "東", noise=(0, 1, 2, 3, 4))), 40, 10, 0)
    assert texts(frame)[:2] == ["▒░░ ░░░░", "▒░░"]


def test_noise_whose_token_still_changes_is_denser():
    calm, wild = (view(canvas("abcdef", noise=(0,), changed=changed)).canvas[0].text for changed in ((), (0,)))
    assert set(calm) == {"▒", "░"}
    assert set(wild) == {"▓", "▒"}


def test_noise_of_a_long_token_is_bounded():
    assert len(view(canvas("=" * 64, noise=(0,))).canvas[0].text) == 12


def test_nothing_is_drawn_after_an_accepted_end():
    assert texts(render(view(canvas("Yes", ".", "", " junk", end=2)), 40, 10, 0))[0] == "Yes."
    assert texts(render(view(canvas("Yes", ".", "", " junk", noise=(2,), end=2)), 40, 10, 0))[0] == "Yes.░ junk"


def test_the_models_thinking_has_its_own_ink():
    state = view(canvas("hm", " so", "Yes", thought=2), canvas("hm", " so", "Yes", thought=2))
    assert [span.ink for span in state.canvas] == [Ink.THOUGHT, Ink.THOUGHT, Ink.FINISHED]


def test_the_canvas_goes_on_right_after_the_finished_text():
    frame = render(view(canvas(" world", "!"), tail="Hello"), 10, 10, 2.0)
    assert texts(frame) == ["Hello worl", "d!", "block 1"]


def test_status_line_in_full_and_as_far_as_it_fits():
    state = view(canvas("a", "b", "c", "d", noise=(3,), step=14))
    full = "block 1 · step 14/48 · entropy 0.250 · accepted 75% · 1.5 tok/s"
    assert render(state, 80, 24, 2.0)[-1].text == full
    assert render(state, len(full) + 1, 24, 2.0)[-1].text == full
    assert render(state, len(full), 24, 2.0)[-1].text == "block 1 · step 14/48 · entropy 0.250 · accepted 75%"
    assert render(state, 30, 24, 2.0)[-1].text == "block 1 · step 14/48"
    assert render(state, 5, 24, 2.0)[-1].text == "bloc"


def test_status_while_the_prompt_is_read():
    assert texts(render(View(), 40, 10, 0.0)) == ["reading the prompt"]
    assert texts(render(view(Prefilled(done=512, total=2048)), 40, 10, 1.0)) == ["reading the prompt 512/2048"]


def test_a_new_canvas_is_noise():
    frame = render(view(CanvasStarted(block=1, canvas=(3, 0, 2))), 40, 10, 0.0)
    assert texts(frame) == [" ▓▓▒ ▓", "block 2"]


def test_a_finished_block_leaves_the_frame_and_counts():
    state = view(canvas("a", "b"), BlockCommitted(block=0, steps=2, tokens=(1, 2), last=False))
    assert state.canvas == ()
    assert state.tokens == 2


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
    frame = render(view(canvas(*pieces, noise=noise)), 40, 6, 0.0)
    assert texts(frame) == [*window, "block 1 · step 2/48 · entropy 0.250"]


@pytest.mark.parametrize("height", [1, 2, 3])
def test_the_shortest_terminals_show_the_status_line(height: int):
    frame = render(view(canvas("a\n", "b\n", "c\n", "d")), 20, height, 0.0)
    assert len(frame) == max(1, height - 1)
    assert frame[-1].text == "block 1 · step 2/48"
