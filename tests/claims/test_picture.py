"""The animated picture: harmless XML that shows, frame by frame, what the terminal shows."""

from __future__ import annotations

import json
import os
import pty
import re
import shutil
import termios
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unicodedata import normalize
from xml.etree import ElementTree

import pytest
from picture import COLUMNS, LINES, command, frames, main, picture, typed_rows
from picture_svg import CELL, LINE, SHADES, Typed
from scripted import Scripted, figures
from terminal import plain_rows
from wcwidth import wcswidth

from mlx_diffgemma.display.cells import Ink, ScreenRow, graphemes
from mlx_diffgemma.display.terminal import END_FRAME, SHOW_CURSOR, drawn
from mlx_diffgemma.events import BlockCommitted, Denoised, Event, Finished, Prefilled

SVG = "{http://www.w3.org/2000/svg}"
GRID = "1234\n3412\n2143\n4321"
HOSTILE = '<script>alert("&amp;")</script>]]> \x1b[31m\x00\u202e 東京は晴れ 🚀 cafe\u0301s\n\tx\ufffe\udc80'
NEWLINE = "\n"
PROSE = f"""\
Diffusion language models write differently. Instead of one token after another, they start from a canvas of noise.

1. 東京は今日も晴れです。漢字はふたつのセル。
2. 🚀 rockets, \ttabs and cafe\u0301s.

And a last paragraph that is long enough to be wrapped in the middle of a block, whatever the width of it.
{"More.  " * 10}{NEWLINE * 9}The end of it"""


def scripted(text: str = GRID, *, thought: str = "", length: int = 64, steps: int = 5) -> list[Event]:
    script = Scripted(text=text, thought=thought, length=length, steps=steps)
    return list(script.stream("", script.defaults))


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg.encode())


def shown(svg: str) -> list[list[str]]:
    """The rows of every frame, read back from where their letters are drawn."""
    root = parsed(svg)
    defined = {group.attrib["id"]: row_of(group) for group in root.iter(f"{SVG}g") if "id" in group.attrib}
    drawn_frames = [group for group in root.iter(f"{SVG}g") if group.get("class") == "f"]
    assert [group.get("style") for group in drawn_frames] == [f"animation-name:f{n}" for n in range(len(drawn_frames))]
    for group in drawn_frames:
        heights = [int(use.attrib["y"]) for use in group]
        assert heights == [heights[0] + LINE * n for n in range(len(heights))]
    return [[defined[use.attrib["href"][1:]] for use in group] for group in drawn_frames]


def row_of(group: ElementTree.Element) -> str:
    cells: dict[int, str] = {}
    glyphs = {name: shade for shade, name in SHADES.items()}
    for run in group:
        if run.tag == f"{SVG}path":
            cells |= {int(x) // CELL: glyphs[run.attrib["class"]] for x in re.findall(r"M(\d+)", run.attrib["d"])}
            continue
        text = run.text or ""
        parts = [part for part, _ in graphemes(text)]
        column, width = int(run.attrib["x"]) // CELL, int(run.attrib["textLength"]) // CELL
        assert width in (len(parts), 2 * len(parts))
        cells |= {column + n * (width // len(parts)): part for n, part in enumerate(parts)}
    row = ""
    for column, part in sorted(cells.items()):
        row += " " * (column - wcswidth(row)) + part
    return row


def texts(rows: tuple[ScreenRow, ...]) -> list[str]:
    return [row.text.rstrip() for row in rows]


def in_terminal(events: list[Event], size: tuple[int, int]) -> Iterator[list[str]]:
    """What the live display has on a terminal of `size` after each event, and after it has left."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (size[1], size[0]))
    raw = b""

    def rows(count: int, mark: str) -> list[str]:
        nonlocal raw
        deadline = time.monotonic() + 10
        while raw.count(mark.encode()) < count:
            assert time.monotonic() < deadline
            raw += os.read(master, 65536)
        return plain_rows(raw.decode(), size)

    with os.fdopen(slave, "w", encoding="utf-8") as terminal:
        for n, _ in enumerate(drawn(iter(events), terminal, terminal, clock=lambda: 0.0)):
            yield rows(n + 2, END_FRAME)
        yield rows(1, SHOW_CURSOR)
    os.close(master)


@pytest.mark.parametrize("text", [GRID, HOSTILE, PROSE])
def test_a_picture_is_xml_without_scripts_and_needs_nothing_from_outside(text: str):
    svg = picture(text.replace("\udc80", ""), scripted(text))
    root = parsed(svg)
    used = {element.tag.removeprefix(SVG) for element in root.iter()}
    assert used == {"svg", "title", "style", "defs", "g", "use", "rect", "path", "circle", "text"}
    assert svg.count("http") == svg.count('xmlns="http://www.w3.org/2000/svg"') == 1
    attributes = [pair for element in root.iter() for pair in element.attrib.items()]
    assert all(value.startswith("#r") for name, value in attributes if name.endswith("href"))
    assert not [name for name, _ in attributes if name.lower().startswith("on")]
    style = root.findtext(f"{SVG}style", "")
    assert "url(" not in style
    assert "@import" not in style
    assert len(svg.encode()) < 1_000_000


def test_a_sudoku_takes_little_room():
    assert len(picture("Solve this sudoku:\n" + GRID, scripted(steps=12)).encode()) < 50_000


@pytest.mark.parametrize("text", [GRID, PROSE])
def test_the_frames_are_those_of_the_terminal_one_for_each_event(text: str):
    events = scripted(text, thought="A thought\nthat ends here.", length=48, steps=3)
    # pyte composes a letter and its accent.
    made = [[normalize("NFC", row) for row in texts(frame.rows)] for frame in frames(events)]
    *live, left = in_terminal(events, (COLUMNS, LINES + 1))
    assert len(made) == len(live) == len(events)
    assert made[:-1] == [rows[-LINES:] for rows in live[:-1]]
    assert made[-1][:-1] == left[1 - LINES :]
    assert re.fullmatch(r"\d+ tokens in \d+ blocks?( · \d+\.\d \w+/\w+){2}", made[-1][-1])


@pytest.mark.parametrize("text", [GRID, PROSE])
def test_the_picture_draws_every_row_of_every_frame_where_it_belongs(text: str):
    events = scripted(text, length=48)
    assert shown(picture("hi", events)) == [texts(frame.rows) for frame in frames(events)]


def test_every_step_shows_its_own_pieces():
    events = scripted()
    steps = [(event, rows) for event, rows in zip(events, shown(picture("hi", events)), strict=True)]
    for event, rows in steps:
        if isinstance(event, Denoised):
            accepted = sum(event.accepted) / len(event.accepted)
            assert rows[-1].startswith(f"block 1 · step {event.step}/48 · entropy {event.mean_entropy:.3f}")
            assert rows[-1].endswith(f"accepted {accepted:.0%}")
            letters = re.sub(f"[{''.join(SHADES)}\\s]", "", "".join(rows[:-1]))
            pieces = zip(event.pieces, event.accepted, strict=True)
            assert letters == "".join(piece for piece, accepted in pieces if accepted).replace("\n", "")


def test_the_last_frame_holds_the_answer():
    assert shown(picture("hi", scripted()))[-1][:4] == GRID.split("\n")


def test_hostile_text_is_drawn_as_letters():
    events = [
        Prefilled(done=1, total=1),
        BlockCommitted(block=0, steps=1, tokens=(5, 6), last=True, text=HOSTILE),
        Finished(reason="stop", stats=figures()),
    ]
    first, second, _ = shown(picture("hi", events))[-1]
    assert first == '<script>alert("&amp;")</script>]]> �[31m�� 東京は晴れ 🚀 cafe\u0301s'
    assert second == "        x��"


def test_the_same_events_give_the_same_picture_however_long_they_took():
    events = scripted()
    slow = [
        replace(event, stats=replace(event.stats, seconds=99.0, seconds_per_step=9.0, peak_memory=1))
        if isinstance(event, Finished)
        else event
        for event in events
    ]
    assert picture("hi", events) == picture("hi", slow)


def test_frames_follow_each_other_without_a_gap_and_the_last_one_is_the_one_without_animation():
    svg = picture("hi", scripted())
    spans = re.findall(r"@keyframes f\d+\{0%\{visibility:hidden\}([\d.]+)%\S+visible\}([\d.]+)%", svg)
    assert len(spans) == len(scripted())
    assert [end for _, end in spans[:-1]] == [start for start, _ in spans[1:]]
    assert spans[-1][1] == "100.000"
    assert "prefers-reduced-motion" in svg
    assert svg.index(".f,.y{visibility:hidden}") < svg.index(".f:last-of-type{visibility:visible}")


def test_a_command_is_typed_as_in_a_shell():
    typed = list(typed_rows(command(f"Solve this sudoku:\n{GRID}")))
    assert [line.row.text for line in typed] == [
        '$ mlx_diffgemma.generate "Solve this sudoku:', "> 1234", "> 3412", "> 2143", '> 4321"',
    ]  # fmt: skip
    assert [line.given for line in typed] == [2] * 5
    assert typed[0].row.spans[0].ink is Ink.STATUS


def test_typing_begins_and_ends_at_a_place_of_its_own_because_browsers_disagree_about_omitted_ones():
    svg = picture(GRID, scripted())
    moves = re.findall(r"translateX\(0\);animation-timing-function:steps\((\d+)\)\}\S+?translateX\((\d+)px\)", svg)
    assert [int(steps) for steps, _ in moves] == [len('mlx_diffgemma.generate "1234'), 4, 4, len('4321"')]
    assert all(int(pixels) == CELL * int(steps) for steps, pixels in moves)


def test_a_long_command_goes_on_in_the_next_row():
    first, second = typed_rows("word " * 16)
    assert (first.row.cells, first.given, second.given) == (64, 2, 0)
    assert Typed(ScreenRow((), 2), 2).strokes == 1


def test_a_command_is_quoted_for_a_shell():
    assert command("Why?", seed=7) == 'mlx_diffgemma.generate --seed 7 "Why?"'
    assert command('Say "hi" for $5') == "mlx_diffgemma.generate 'Say \"hi\" for $5'"


def test_the_program_writes_the_picture_of_a_real_generation(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    model = shutil.copytree(demo, tmp_path / "model")
    options = {"max_denoising_steps": 3, "max_new_tokens": 20, "eos_token_id": [1, 106, 50]}
    (model / "generation_config.json").write_text(json.dumps(options))
    made = [tmp_path / "a.svg", tmp_path / "b.svg"]
    for path in made:
        monkeypatch.setattr("sys.argv", ["picture.py", "Hello", f"--model={model}", f"--output={path}", "--seed=3"])
        main()
    assert made[0].read_bytes() == made[1].read_bytes()
    rows = shown(made[0].read_text(encoding="utf-8"))
    assert [frame[-1].split(" · ")[1] for frame in rows if "step " in frame[-1]][:3] == [
        "step 1/3", "step 2/3", "step 3/3",
    ]  # fmt: skip
    assert "kB" in capsys.readouterr().err


def test_the_program_says_in_one_line_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["picture.py", "Hello", f"--model={tmp_path}", f"--output={tmp_path / 'a.svg'}"])
    with pytest.raises(SystemExit, match=r"^error: .*config\.json"):
        main()
