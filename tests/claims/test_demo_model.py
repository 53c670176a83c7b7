"""The trained model in the package: what it is, and that it does what it says of itself."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path
from statistics import fmean

import pytest
from demo_model.judge import judge
from demo_model.questions import draw
from peer import assert_same_logits

from mlx_diffgemma import Session, load
from mlx_diffgemma.checkpoint.hub import DEMO, model_folder

FOLDER = model_folder(DEMO)


@pytest.fixture(scope="module")
def session() -> Session:
    return load(DEMO)


def test_the_model_is_small() -> None:
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) < 6_000_000
    assert len(json.loads((FOLDER / "tokenizer.json").read_text())["model"]["vocab"]) <= 1024


def test_every_part_of_the_release_is_in_it(session: Session) -> None:
    config = session.model.config
    assert {layer.sliding for layer in config.layers} == {True, False}
    assert config.num_experts > config.top_k_experts > 1
    assert config.sliding_window < config.max_position_embeddings
    assert 32 <= config.canvas_length <= 64


@pytest.mark.parametrize("kind", ["json", "function", "chat", "sudoku", "sums", "sort", "count"])
def test_it_answers_questions_that_it_has_not_seen(session: Session, kind: str) -> None:
    """Nearly all of twenty: the benchmark asks hundreds."""
    questions = [draw(kind, random.Random(seed), held_out=kind != "chat") for seed in range(20)]
    answers = session.generate([question.prompt for question in questions])
    right = sum(judge(question, answer.text) for question, answer in zip(questions, answers, strict=True))
    assert right >= 17
    assert fmean(steps for answer in answers for steps in answer.stats.steps_per_block) < 14


def test_mlx_vlm_computes_the_same_from_it() -> None:
    assert_same_logits(FOLDER)


def test_it_converts_to_4_bits_and_still_answers(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "mlx_diffgemma.convert",
        DEMO,
        str(tmp_path / "demo-4bit"),
        "--bits",
        "4",
        "--quiet",
    ]
    subprocess.run(command, check=True)
    small = load(tmp_path / "demo-4bit")
    text = small.generate("Give JSON: Ana is 34 and lives in Rome.").text
    assert json.loads(text) == {"name": "Ana", "age": 34, "city": "Rome"}
