"""The examples, run as a reader would run them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from finetune.data import write_data
from in_process import call

from mlx_diffgemma import train

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*command: object) -> str:
    out = subprocess.run([sys.executable, *map(str, command)], check=False, capture_output=True, text=True, timeout=600)
    assert out.returncode == 0, out.stderr
    return out.stdout


def test_the_quickstart_answers_and_shows_its_steps() -> None:
    printed = run(EXAMPLES / "quickstart.py")
    assert '{"name": "Ana", "age": 34, "city": "Rome"}' in printed
    # Of 42 tokens: two canvases.
    assert printed.count(" steps\n") == 2
    assert "stop: " in printed


def test_the_sudoku_is_solved_step_by_step() -> None:
    printed = run(EXAMPLES / "sudoku.py").split("\n\n")
    assert len(printed) > 2
    assert printed[0].startswith("step 1\n")
    assert "[" in printed[0]
    assert printed[-1] == "solved\n"


def test_a_sudoku_that_is_none_is_refused() -> None:
    out = subprocess.run(
        [sys.executable, str(EXAMPLES / "sudoku.py"), "12345"], check=False, capture_output=True, text=True
    )
    assert out.returncode == 2
    assert "'12345' is no sudoku: four rows of 1 to 4 and dots" in out.stderr


def test_gaps_are_filled_around_what_stands_there() -> None:
    assert run(EXAMPLES / "infill.py").splitlines() == [
        '{"name": "Ada", "age": 33, "city": "Oslo"}',
        "12 13 14 15 16 17 18",
        "gap 1: width * height",
    ]


def test_six_steps_of_fine_tuning_halve_the_loss_on_new_questions(tmp_path: Path) -> None:
    """The small sibling of the next test: same questions, model and objective, a tenth of the steps."""
    write_data(tmp_path / "data", train=40, valid=4)
    folders = ("--data", tmp_path / "data", "--adapter-path", tmp_path / "adapter")
    sizes = "--steps 6 --batch-size 3 --learning-rate 1e-2 --warmup 1 --evaluate-every 0 --answers 0 --quiet".split()
    assert call(train.main, "--model", "demo", *folders, *sizes).returncode == 0
    records = [json.loads(line) for line in (tmp_path / "adapter" / "log.jsonl").read_text().splitlines()]
    assert [record["event"] for record in records] == ["step"] * 6 + ["evaluation"]
    assert records[-1]["canvas"] + records[-1]["causal"] < records[0]["loss"] / 2


@pytest.mark.slow
def test_fine_tuning_teaches_the_demo_model_a_new_kind_of_question(tmp_path: Path) -> None:
    printed = run(EXAMPLES / "finetune" / "run.py", tmp_path)
    counts = [int(line.split()[1]) for line in printed.splitlines() if line.startswith(("before: ", "after: "))]
    before, after = counts
    assert before < 10
    assert after >= 30
    assert len(json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["lora_parameters"]["keys"]) == 7
    assert (tmp_path / "adapter" / "loss.png").stat().st_size > 10_000
