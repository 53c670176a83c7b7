"""The whole way on real parts: a checkpoint in Google's layout, converted, asked in a real terminal and in a pipe."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from convert_helpers import options as conversion
from convert_helpers import run as convert
from demo_checkpoint import write_demo
from in_process import call_for_text
from terminal import environment, plain_rows, run_in_terminal

from mlx_diffgemma import Completion, generate, load

OPTIONS = {"max_tokens": 60, "max_steps": 4}
SIZE = (50, 20)


@pytest.fixture(scope="module")
def converted(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("end-to-end") / "4bit"
    convert(conversion(demo, folder))
    return folder


@pytest.fixture(scope="module")
def expected(converted: Path) -> tuple[int, Completion]:
    """A seed whose (random) text a terminal can show as it is, and the answer to it."""
    session = load(converted)
    for seed in range(200):
        completion = session.generate("Hello", replace(session.defaults, **OPTIONS, seed=seed))
        if completion.text.isprintable() and completion.text.isascii():
            return seed, completion
    raise AssertionError("no seed gives printable text")


def command(folder: Path, seed: int, *options: str) -> list[str]:
    program = [sys.executable, "-m", "mlx_diffgemma.generate", "--model", str(folder), "--seed", str(seed)]
    return [*program, "--max-tokens", "60", "--max-steps", "4", *options, "Hello"]


def call(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the program in this process, without a terminal and with nothing on stdin."""
    return call_for_text(generate.main, *arguments[3:])


def test_watching_ignoring_and_piping_give_the_same_tokens(converted: Path, expected: tuple[int, Completion]) -> None:
    seed, completion = expected
    watched = run_in_terminal(command(converted, seed), SIZE, environment(), timeout=120)
    ignored = run_in_terminal(command(converted, seed, "--no-live", "--quiet"), SIZE, environment(), timeout=120)
    piped = subprocess.run(
        command(converted, seed, "--json", "--quiet"), check=True, capture_output=True, text=True, timeout=120
    )
    shown = plain_rows(completion.text, SIZE)
    assert (watched.code, ignored.code) == (0, 0)
    assert watched.rows[: len(shown)] == shown
    assert ignored.rows == shown
    assert b"\x1b[?25l" in watched.raw, "nothing was drawn live"
    assert watched.cursor_visible
    answer = json.loads(piped.stdout)
    assert tuple(answer["tokens"]) == completion.tokens
    assert answer["text"] == completion.text


def test_ctrl_c_prints_what_is_settled_and_restores_the_terminal(tmp_path: Path) -> None:
    write_demo(tmp_path)
    program = [sys.executable, "-m", "mlx_diffgemma.generate", "--model", str(tmp_path), "--stop-token", "4"]
    program += ["--max-tokens", "2000", "--seed", "3", "Hello"]
    shown = run_in_terminal(program, (80, 24), environment(), keys=[("block 2", b"\x03")], timeout=120)
    assert shown.code == 130
    assert shown.cursor_visible
    assert shown.echo
    assert any(row.strip() for row in shown.rows)
    assert not any("block 2" in row or "Traceback" in row for row in shown.rows)


def test_a_prompt_from_a_pipe_is_the_same_prompt(converted: Path, expected: tuple[int, Completion]) -> None:
    seed, completion = expected
    arguments = command(converted, seed, "--quiet")[:-1]
    out = subprocess.run(arguments, input="Hello", check=True, capture_output=True, text=True, timeout=120)
    assert out.stdout == completion.text + "\n"
    assert out.stderr == ""


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--max-tokens", "0"], 1, "error: --max-tokens 0 must be at least 1"),
        (["--canvas-length", "99"], 1, "error: --canvas-length 99 is longer than the 16 positions"),
        (["--max-tokens", "300000"], 1, "prompt tokens and max_tokens=300000 in canvases of 16"),
        (["--dtype", "int3"], 1, "error: --dtype 'int3' must be one of"),
        (["--raw", "--thinking"], 1, "error: raw sends the prompt as it is"),
        (["--max-tokens", "many"], 2, "error: invalid value for '--max-tokens'"),
        (["--model", "/absent/model"], 1, "error: no such folder: /absent/model"),
        (["--revision", "main"], 1, "is a folder: a revision goes with a Hub repository only"),
    ],
)
def test_bad_input_is_one_line_and_an_exit_code(converted: Path, options: list[str], code: int, message: str) -> None:
    arguments = [*command(converted, 0)[:-1], *options, "Hello"]
    out = call(arguments)
    assert out.returncode == code
    assert out.stdout == ""
    assert message in out.stderr
    assert code == 2 or len(out.stderr.splitlines()) == 1


def test_a_prompt_of_bytes_that_are_no_text_is_one_line(converted: Path) -> None:
    arguments = [*command(converted, 0)[:-1], "\udcff"]
    out = call(arguments)
    assert (out.returncode, out.stdout) == (1, "")
    assert out.stderr.startswith("error: the prompt is not valid Unicode at character 0")


def test_a_model_of_nan_is_one_line(demo: Path, tmp_path: Path) -> None:
    for file in demo.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    shard = next(tmp_path.glob("*.safetensors"))
    weights = mx.load(str(shard))
    weights["model.decoder.norm.weight"] = weights["model.decoder.norm.weight"] * float("nan")
    mx.eval(weights)
    mx.save_safetensors(str(shard), weights)
    out = call(command(tmp_path, 0))
    assert (out.returncode, out.stdout) == (1, "")
    assert "its weights hold NaN or Inf" in out.stderr


def test_debug_shows_the_traceback(converted: Path) -> None:
    arguments = [*command(converted, 0)[:-1], "--max-tokens", "0", "--debug", "Hello"]
    out = call(arguments)
    assert out.returncode != 0
    assert "Traceback" in out.stderr
    assert "OptionError" in out.stderr


def test_a_damaged_model_is_one_line(converted: Path, tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (tmp_path / name).write_bytes((converted / name).read_bytes())
    shard = next(converted.glob("*.safetensors"))
    (tmp_path / shard.name).write_bytes(shard.read_bytes()[:-100])
    out = call(command(tmp_path, 0))
    assert (out.returncode, out.stdout) == (1, "")
    assert out.stderr.startswith("error: ")
    assert "is truncated" in out.stderr
