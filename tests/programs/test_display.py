"""The live display in a real pseudo-terminal: what is on the screen in the end, and what went to stdout."""

from __future__ import annotations

import io
import json

import pytest
from scripted import Scripted, figures
from terminal import SCRIPTED, Shown, environment, plain_rows, run_in_terminal

from mlx_diffgemma.display.frame import summary
from mlx_diffgemma.display.terminal import written
from mlx_diffgemma.generation_config import GenerationConfig

PROSE = """\
Diffusion language models write differently. Instead of one token after another, they start from a canvas of noise.

1. 東京は今日も晴れです。漢字はふたつのセル。
2. 🚀 rockets, \ttabs and cafe\u0301s.

\tdef f(x):
\t\treturn x

And a last paragraph that is long enough to be wrapped in the middle of a block, whatever the width of it."""


def script(text: str = PROSE, *, length: int = 24, steps: int = 4, delay: float = 0.0, **others: object) -> str:
    return json.dumps({"text": text, "length": length, "steps": steps, "delay": delay, **others})


def generate(*options: str, size: tuple[int, int] = (80, 24), env: dict[str, str] | None = None) -> Shown:
    return run_in_terminal([*SCRIPTED, "hi", *options], size, environment(**{"SCRIPT": script(), **(env or {})}))


@pytest.mark.parametrize("size", [(80, 24), (40, 10), (20, 8), (10, 5), (7, 3), (3, 2), (200, 60)])
def test_the_terminal_ends_up_as_if_the_text_had_simply_been_written(size: tuple[int, int]):
    shown = generate(size=size)
    stats = summary(figures(103, (4,) * 5), size[0])
    assert shown.rows == plain_rows(f"{PROSE}\n{stats}\n", size)
    assert (shown.code, shown.cursor_visible, shown.echo) == (0, True, True)
    assert b"\x1b[?25l" in shown.raw


@pytest.mark.parametrize("length", [1, 7, 200])
def test_blocks_of_any_length_leave_the_same_text(length: int):
    shown = generate(size=(50, 12), env={"SCRIPT": script(length=length)})
    text = plain_rows(PROSE, (50, 12))
    assert shown.rows[: len(text)] == text
    assert "".join(shown.rows[len(text) :]).startswith("103 tokens in")


def test_a_frame_shows_the_canvas_row_by_row_and_leaves_nothing_of_the_frame_before():
    env = environment(SCRIPT=script("0123456789abcdefghij\nshort\nfull rows!\n", steps=5, stop_at=5))
    shown = run_in_terminal([*SCRIPTED, "hi"], (10, 20), env, [("full rows!", b"\x03"), ("full rows!", b"\x03")])
    # The frame stays as high as the noise was: the status line does not move.
    assert shown.shots[-1] == ["0123456789", "abcdefghij", "short", "full rows!", "", "", "", "block 1"]
    # Real terminals, unlike pyte, would erase the last character of a full row.
    assert b"0123456789\x1b[K" not in shown.raw


def test_a_row_that_the_terminal_finds_wider_than_we_do_stays_one_row():
    family = "👨\u200d👩\u200d👧"
    env = environment(SCRIPT=script(f"{family * 4}\nab", steps=4, stop_at=4))
    shown = run_in_terminal([*SCRIPTED, "hi"], (10, 20), env, [("ab", b"\x03"), ("ab", b"\x03")])
    assert [row for row in shown.shots[-1][1:] if row] == ["ab", "block 1"]


def test_noise_is_drawn_on_the_way_in_colour():
    raw = generate().raw.decode()
    assert "▓" in raw
    assert "\x1b[2m" in raw
    assert "\x1b[1;32m" in raw


def test_no_color_keeps_the_noise_and_drops_the_colours():
    raw = generate(env={"NO_COLOR": "1"}).raw.decode()
    assert "▓" in raw
    assert "\x1b[1m" in raw
    assert "[1;32m" not in raw


@pytest.mark.parametrize(
    ("options", "env"),
    [(["--no-live"], {}), (["--quiet"], {}), ([], {"TERM": "dumb"}), ([], {"PYTHONIOENCODING": "latin-1"})],
)
def test_without_live_drawing_the_terminal_gets_the_answer_as_it_is(options: list[str], env: dict[str, str]):
    raw = generate(*options, env={"SCRIPT": script("Hello\nthere"), **env}).raw.decode("latin-1")
    loading = "\x1b[2mloading scripted\x1b[m\x1b[K\r\r\x1b[K"
    assert raw.removeprefix(loading).startswith("Hello\r\nthere\r\n")
    assert "\x1b[?" not in raw
    assert ("\x1b" in raw) == (env.get("TERM") != "dumb" and options != ["--quiet"])


def test_a_models_escape_sequences_reach_no_terminal():
    for options in ([], ["--no-live"], ["--json"]):
        shown = generate(*options, env={"SCRIPT": script("a\x1b[31mb\x9b2Jc\x07\u202ed")})
        assert b"\x1b[31m" not in shown.raw
        assert not {"\x9b", "\x07", "\u202e"} & set(shown.raw.decode())


def test_thinking_is_shown_dim_above_the_answer():
    thought = "Is it so? Let me think about it for a while."
    shown = generate(env={"SCRIPT": script("Yes, of course.", thought=thought, length=8)})
    assert shown.rows[:3] == [thought, "", "Yes, of course."]
    assert f"\x1b[2m{thought}\x1b[m".encode() in shown.raw


def test_a_piped_stdout_gets_the_bytes_and_the_terminal_the_statistics():
    text = "東京\x1b[31m\t\r\nno newline at the end"
    env = environment(SCRIPT=script(text))
    shown = run_in_terminal([*SCRIPTED, "hi"], (40, 10), env, piped_stdout=True)
    assert shown.stdout == (text + "\n").encode()
    assert shown.rows[0].startswith("16 tokens in 1 block")


def test_ctrl_c_keeps_the_finished_text_and_restores_the_terminal():
    env = environment(SCRIPT=script(steps=8, wait_at=(1, 5)))
    shown = run_in_terminal([*SCRIPTED, "hi"], (60, 20), env, [("block 2 · step 5", b"\x03")])
    *rows, note = shown.rows
    text = "\n".join(rows)
    assert note == "interrupted after 39 tokens"
    assert (shown.code, shown.cursor_visible, shown.echo) == (130, True, True)
    assert text.startswith("Diffusion language models write differently.")
    assert "\n".join(plain_rows(PROSE, (60, 20))).startswith(text)
    assert shown.raw.endswith(b"\r\n\x1b[?25hinterrupted after 39 tokens\r\n")


def test_pressed_twice_ctrl_c_does_not_wait_for_a_slow_step():
    env = environment(SCRIPT=script("Hello world", stop_at=4))
    keys = [("step 4", b"\x03"), ("step 4", b"\x03")]
    shown = run_in_terminal([*SCRIPTED, "hi"], (60, 20), env, keys)
    assert (shown.code, shown.cursor_visible, shown.echo) == (130, True, True)
    assert shown.rows == ["Hello world", "interrupted after 3 tokens"]


def test_ctrl_c_while_the_model_loads_leaves_nothing():
    env = environment(SCRIPT=script(delay=20))
    shown = run_in_terminal([*SCRIPTED, "hi"], (60, 20), env, [("loading scripted", b"\x03")])
    assert (shown.code, shown.echo, shown.rows) == (130, True, [])


def test_ctrl_c_while_the_prompt_is_read_leaves_one_line():
    env = environment(SCRIPT=script(delay=1))
    shown = run_in_terminal([*SCRIPTED, "hi"], (60, 20), env, [("reading the prompt", b"\x03")])
    assert (shown.code, shown.cursor_visible, shown.echo, shown.rows) == (
        130,
        True,
        True,
        ["interrupted after 0 tokens"],
    )


def test_an_error_keeps_the_finished_text_and_restores_the_terminal():
    shown = generate(env={"SCRIPT": script("One two three four", length=2, fail_at=2)})
    assert shown.rows == ["One two", "error: out of memory while generating: shorten the prompt"]
    assert (shown.code, shown.cursor_visible, shown.echo) == (1, True, True)


def test_written_gives_a_pipe_each_block_as_it_is_committed():
    pipe = io.StringIO()
    events = written(Scripted(text="one two three", length=2).stream("", GenerationConfig()), pipe)
    seen = {pipe.getvalue() for _ in events}
    assert seen == {"", "one two", "one two three"}
    assert pipe.getvalue() == "one two three\n"


def test_summary_is_one_line_of_figures():
    assert summary(figures()) == (
        "40 tokens in 2 blocks · 7.0 steps/block · 2.9 tokens/forward · prefill 0.25 s · first block 1.25 s · "
        "0.125 s/step · 20.0 tok/s · peak 16.50 GB"
    )
