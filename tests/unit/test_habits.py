"""The options of mlx-lm and mlx-vlm: each is one of ours, or answered with what takes its place."""

from __future__ import annotations

import pytest
import typer

from mlx_diffgemma.__main__ import PROGRAMS, load_program
from mlx_diffgemma.cli.habits import _INSTEAD, _WORDS, Argument, in_our_words, instead_of


def flags_of(program: str) -> set[str]:
    """All options that a program has."""
    return {flag for parameter in typer.main.get_command(load_program(program)).params for flag in parameter.opts}


@pytest.mark.parametrize("program", _WORDS)
def test_what_an_option_becomes_is_an_option_of_the_program(program: str) -> None:
    ours = flags_of(program)
    assert {word for word in _WORDS[program].values() if isinstance(word, str) and word} <= ours
    # -q and --model mean something else to mlx-lm's converter and fuser, whose habits they are.
    assert ours & _WORDS[program].keys() <= {"-q", "--adapter-path"}


def test_what_has_an_answer_is_no_option_of_any_program() -> None:
    known = set[str]().union(*map(flags_of, PROGRAMS))
    assert known & _INSTEAD.keys() == {"--dequantize"}
    assert "--dequantize" in flags_of("fuse")


@pytest.mark.parametrize(
    ("program", "line", "ours"),
    [
        ("generate", "--temp 0.5 --prompt Hello -n 3", "--temperature 0.5 -n 3 -- Hello"),
        ("generate", "--temp=0.5 --prompt=-5", "--temperature=0.5 -- -5"),
        ("generate", "-p - --ignore-chat-template", "--raw -- -"),
        ("generate", "--system-prompt Brief. Hello", "--system Brief. Hello"),
        ("generate", "--max-denoising-steps 8 --block-length 32 Hi", "--max-steps 8 --canvas-length 32 Hi"),
        ("generate", "Hello -- --temp", "Hello -- --temp"),
        ("generate", "--prompt", "--prompt"),
        ("convert", "--mlx-path out --hf-path in -q --q-bits 8", "--bits 8 -- in out"),
        ("fuse", "--model in --save-path out --adapter-path a", "--adapter a -- in out"),
        ("train", "--train --model in --iters 5", "--model in --iters 5"),
        ("infill", "--temp 0.5", "--temp 0.5"),
    ],
)
def test_a_command_line_is_put_into_our_words(program: str, line: str, ours: str) -> None:
    assert in_our_words(program, line.split()) == ours.split()


def test_arguments_come_in_their_order() -> None:
    assert Argument(0) < Argument(1)


def test_other_options_have_no_answer() -> None:
    assert instead_of("--min-p") is not None
    assert "--mode speculative" in (instead_of("--draft-model") or "")
    assert instead_of("--nonsense") is None
