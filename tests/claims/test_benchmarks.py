"""The benchmarks of development: what they conclude from their measurements, and that they run."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import fmean

import batch
import conditioning
import endurance
import pytest
import run
from demo_prompts import demo_prompts
from endurance import Ten

from mlx_diffgemma import Session, load


@pytest.fixture(scope="module")
def trained() -> Session:
    """The model in the package."""
    return load("demo")


def test_the_last_tens_are_held_against_the_first_without_the_very_first() -> None:
    seconds = [9.0, 2.0, 2.2, 2.1, 5.0, 5.0, 5.0, 3.3, 3.0, 3.1, 3.2, 3.0, 3.0, 3.0, 3.0]
    tens = [Ten(seconds=taken, resident=100 + number) for number, taken in enumerate(seconds)]
    slower, larger = endurance.ratios(tens)
    assert slower == pytest.approx(3.0 / 2.1)
    assert larger == pytest.approx(114 / 103)


def test_too_few_generations_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["endurance", "--generations", "29"])
    assert "--generations 29: give 30 or more" in capsys.readouterr().err


@pytest.mark.parametrize("command", run.COMMANDS)
def test_every_command_has_a_help_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        run.main([command, "--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"usage: run.py {command} ")
    assert f"python benchmarks/run.py {command}" in printed


@pytest.mark.parametrize(("options", "packed"), [((), False), (("--bits", "4"), True)])
def test_a_checkpoint_is_written_in_bf16_or_packed(tmp_path: Path, options: tuple[str, ...], packed: bool) -> None:
    run.main(["checkpoint", str(tmp_path / "made"), "--layers", "2", *options])
    config = json.loads((tmp_path / "made" / "config.json").read_text())
    assert config["text_config"]["num_hidden_layers"] == 2
    assert ("quantization" in config) is packed


def test_packed_weights_have_no_vision_tower(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run.main(["checkpoint", str(tmp_path / "made"), "--bits", "4", "--vision"])
    assert "--vocab-size and --vision are for bf16 weights: leave out --bits" in capsys.readouterr().err


def test_the_exact_signal_has_no_error_and_fewer_tokens_have_more(trained: Session) -> None:
    (processed, *_) = conditioning.steps(trained, "What is 47 + 38?", 0)
    alone, some, most, everything = (conditioning.errors(trained, processed, count) for count in (1, 8, 64, 1024))
    assert max(everything) == 0
    assert max(alone) > max(some) > max(most)
    # A signal of 64 tokens leaves out less than float32 rounds to in most positions: 1e-6 of it is asked for.
    assert fmean(most) < 1e-6


def test_answers_side_by_side_are_timed_against_the_same_answers_one_by_one(trained: Session) -> None:
    prompts = ["What is 47 + 38?", "Sort: pear, fig", "Hello"]
    (turn,) = batch.turns(trained, prompts, 3, 1)
    assert turn.ratio == pytest.approx(turn.alone / turn.together)
    assert turn.together > 0


def test_prompts_of_benchmarks_are_of_every_kind() -> None:
    prompts = demo_prompts(3)
    assert list(prompts) == ["sudoku", "sums", "json", "count", "sort", "function"]
    assert all(len(each) == 3 for each in prompts.values())
