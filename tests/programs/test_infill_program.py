"""The programs mlx_diffgemma.infill and mlx_diffgemma.edit as their user meets them, on the demo model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from in_process import call
from scripted import figures
from terminal import environment, run_in_terminal

from mlx_diffgemma import GenerationConfig, Session, edit, infill, loading
from mlx_diffgemma.events import BlockCommitted, Event, Finished, GapFilled, Prefilled

INFILL, EDIT = ((sys.executable, "-m", f"mlx_diffgemma.{name}") for name in ("infill", "edit"))
MAIN = {INFILL: infill.main, EDIT: edit.main}
RECORD = '{"name": "Ada", "age": <gap:2>, "city": "<gap:1>"}'
FILLED = '{"name": "Ada", "age": 33, "city": "Oslo"}'
ASKED = ("--instruction", "Give JSON: Ada is 33 and lives in Oslo.")
MODEL = ("--model", "demo", "--quiet")
QUICKLY = (*MODEL, "--max-steps", "4")


def run(program: tuple[str, ...], *arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return call(MAIN[program], *arguments, stdin=stdin, env=environment())


def start(program: tuple[str, ...], *arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the program in a process of its own."""
    command = [*program, *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, env=environment(), timeout=300, check=False)


def test_the_result_alone_is_on_stdout_byte_for_byte(tmp_path: Path) -> None:
    done = start(INFILL, "-", *ASKED, "--model", "demo", stdin=RECORD.encode())
    assert (done.returncode, done.stdout.decode()) == (0, FILLED)
    assert done.stderr.decode().startswith("3 tokens in 1 block")
    file = tmp_path / "crlf.json"
    file.write_bytes(f"{RECORD}\r\n\r\n".encode())
    assert run(INFILL, file, *ASKED, *MODEL).stdout.startswith(b'{"name": "Ada", "age": ')
    assert run(INFILL, file, *ASKED, *MODEL).stdout.endswith(b'"}\r\n\r\n')


def test_in_place_writes_the_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "ada.json"
    file.write_text(RECORD)
    done = run(INFILL, file, *ASKED, *MODEL, "--in-place")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert file.read_text() == FILLED


def test_diff_and_json_leave_the_file_alone(tmp_path: Path) -> None:
    file = tmp_path / "ada.json"
    file.write_text(RECORD)
    assert f"+{FILLED}\n\\ No newline" in run(INFILL, file, *ASKED, *MODEL, "--diff").stdout.decode()
    answer = json.loads(run(INFILL, file, *ASKED, *MODEL, "--json").stdout)
    assert (answer["text"], answer["gaps"], answer["finish_reason"]) == (FILLED, ["33", "Oslo"], "stop")
    assert file.read_text() == RECORD


def test_gaps_match_what_they_must(tmp_path: Path) -> None:
    file = tmp_path / "sum"
    file.write_text("The year <gap:4> it was")
    found = json.loads(run(INFILL, file, "--regex", "[0-9]+", *QUICKLY, "--json").stdout)
    assert re.fullmatch("[0-9]+", found["gaps"][0])
    found = json.loads(run(INFILL, file, "--marker", "<gap:4>", "--choices", "one, two", *QUICKLY, "--json").stdout)
    assert found["gaps"][0] in {"one", "two"}
    schema = tmp_path / "schema.json"
    schema.write_text('{"enum": [1, "two"]}')
    found = json.loads(run(INFILL, file, "--marker", "<gap:4>", "--json-schema", schema, *QUICKLY, "--json").stdout)
    assert json.loads(found["gaps"][0]) in [1, "two"]


def test_gaps_match_a_schema_that_is_said_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "sum"
    file.write_text("Say <gap:4-30>.")
    asked = ("--max-steps", "2", "--model", "demo", "--json")
    done = run(INFILL, file, "--json-schema", "name? a|b, ok? bool", *asked)
    assert json.loads(json.loads(done.stdout)["gaps"][0]).keys() <= {"name", "ok"}
    assert b"note:" not in done.stderr
    done = run(INFILL, file, "--json-schema", '{"enum": [1], "x-unit": "cm"}', "--debug", *asked)
    assert b"note: json_schema: the keyword 'x-unit' is none of JSON schema's: it is ignored\n" in done.stderr


def test_an_edit_changes_its_lines_only(tmp_path: Path) -> None:
    file = tmp_path / "text"
    file.write_bytes("eins\r\nzwei\r\n漢字".encode())
    arguments = ("--lines", "2", "--gap-tokens", "2", "--max-steps", "3", *MODEL)
    assert start(EDIT, file, "Anders.", *arguments, "--in-place").returncode == 0
    written = file.read_bytes()
    assert written.startswith(b"eins\r\n")
    assert written.endswith("\r\n漢字".encode())


@pytest.mark.parametrize(
    ("program", "arguments", "data", "expected"),
    [
        (INFILL, ("FILE", "--regex", "a(", "--model", "nowhere"), b"a<gap>", (1, "error: regex 'a(': missing )")),
        (INFILL, ("FILE",), b"no gap", (1, "error: the template has no gap: mark one with <gap>")),
        (INFILL, ("FILE",), b"\x00<gap>", (1, "error: FILE is not text: it has a zero byte at 0")),
        (INFILL, ("FILE",), b"\xff<gap>", (1, "error: FILE is not UTF-8 text: invalid start byte at byte 0")),
        (INFILL, ("FILE.none",), b"", (1, "error: FILE.none: no such file")),
        (INFILL, ("FILE", "--max-steps", "0"), b"<gap>", (1, "error: --max-steps 0 must be at least 1")),
        (INFILL, ("-", "--in-place"), b"<gap>", (2, "error: --in-place needs a file")),
        (
            INFILL,
            ("FILE",),
            f"<gap:{'9' * 5000}>".encode(),
            (1, "error: a gap of more than 1000000000 tokens: no model"),
        ),
        (EDIT, ("/dev/null", "Do.", "--lines", "1", "--in-place"), b"", (1, "error: /dev/null is no regular file")),
        (INFILL, ("FILE", "--diff", "--in-place"), b"<gap>", (2, "error: --in-place, --diff and --json exclude")),
        (EDIT, ("FILE", "Do."), b"a", (2, "error: say what to rewrite: give either --lines")),
        (EDIT, ("FILE", "Do.", "--lines", "3"), b"a\n", (1, "error: there is no line 3: the text has 1 line")),
        (EDIT, ("FILE", "Do.", "--characters", "0:3"), b"a\n", (1, "error: the span 0:3 is outside the text")),
        (EDIT, ("FILE", " ", "--lines", "1"), b"a\n", (1, "error: the instruction is empty: say what to change")),
    ],
)
def test_what_cannot_be_done_is_one_line_and_the_file_untouched(
    tmp_path: Path, program: tuple[str, ...], arguments: tuple[str, ...], data: bytes, expected: tuple[int, str]
) -> None:
    code, message = expected
    file = tmp_path / "file"
    file.write_bytes(data)
    done = run(program, *(each.replace("FILE", str(file)) for each in arguments), stdin=data)
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (code, b"", 1)
    assert done.stderr.decode().startswith(message.replace("FILE", str(file)))
    assert file.read_bytes() == data


def test_a_file_that_changes_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is written to while the model loads: the program has read it before."""
    file = tmp_path / "ada.json"
    file.write_text(RECORD)
    load = loading.load

    def load_meanwhile(*arguments: Any, **options: Any) -> Session:
        file.write_text("theirs")
        return load(*arguments, **options)

    monkeypatch.setattr(loading, "load", load_meanwhile)
    done = run(INFILL, file, *ASKED, "--model", "demo", "--in-place", "--max-steps", "40")
    assert done.returncode == 1
    assert b"has changed since it was read" in done.stderr
    assert file.read_text() == "theirs"


def test_ctrl_c_leaves_the_file_alone(tmp_path: Path) -> None:
    """It is pressed once the canvas is on the screen."""
    file = tmp_path / "long"
    file.write_text("<gap:30> and <gap:1-20> or <gap:1-20>" * 4)
    command = [*INFILL, str(file), "--in-place", "--model", "demo"]
    keys = [("step ", b"\x03")]
    shown = run_in_terminal(command, (70, 24), environment(), keys, piped_stdout=True, timeout=300)
    assert (shown.code, shown.stdout, len(shown.shots)) == (130, b"", 1)
    assert "<gap:30>" in file.read_text()


def test_on_a_terminal_the_text_stands_and_the_gaps_snap_in(tmp_path: Path) -> None:
    file = tmp_path / "ada.json"
    file.write_text(RECORD)
    env = environment()
    shown = run_in_terminal([*INFILL, str(file), *ASKED, "--model", "demo"], (70, 12), env, timeout=200)
    assert shown.code == 0
    assert FILLED in shown.rows
    assert shown.cursor_visible
    assert shown.echo
    # Before the first step the text is there, the gaps are noise.
    assert any(mark in shown.raw.decode() for mark in ("▓", "▒", "░"))
    assert shown.raw.decode().count('{"name": "Ada", "age":') > 2
    quiet = run_in_terminal([*INFILL, str(file), *ASKED, "--model", "demo", "--diff"], (70, 12), env, timeout=200)
    assert quiet.code == 0
    assert quiet.rows.count(f"+{FILLED}") == 1
    assert FILLED not in quiet.rows


class Silent:
    """A session whose model fills every gap with nothing."""

    defaults = GenerationConfig()

    def stream_infill(self, parts: Any, instruction: str | None, config: GenerationConfig) -> Iterator[Event]:
        """Yield the events of an empty gap."""
        yield Prefilled(done=1, total=1)
        yield BlockCommitted(block=0, steps=1, tokens=(1,), last=True)
        yield GapFilled(gap=0, tokens=1, text="")
        yield Finished(reason="stop", stats=figures())


def test_gaps_of_nothing_are_no_success_and_leave_the_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "draft"
    file.write_text("a <gap>")
    monkeypatch.setattr(loading, "load", lambda *_, **__: Silent())
    done = run(INFILL, file, *MODEL, "--in-place")
    assert (done.returncode, file.read_text()) == (1, "a <gap>")
    assert done.stderr.decode() == (
        f"error: the model wrote nothing, {file} is left as it is: ask in other words (--allow-empty accepts that)\n"
    )
    printed = run(INFILL, file, *MODEL, "--json")
    assert (printed.returncode, json.loads(printed.stdout)["finish_reason"]) == (1, "empty")
    allowed = run(INFILL, file, *MODEL, "--in-place", "--allow-empty")
    assert (allowed.returncode, allowed.stderr, file.read_text()) == (0, b"", "a ")
