"""Make the demo model of the package: questions, random weights, training in stages, conversion to bfloat16.

    python examples/demo_model/make.py FOLDER OUTPUT

FOLDER keeps the intermediate results: after an interruption the script resumes from the last saved step. It takes hours
on two cores, and needs a fast BLAS (on Debian: libopenblas0-pthread, by LD_PRELOAD, with OPENBLAS_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from demo_model.architecture import write_untrained
from demo_model.data import write_data
from demo_model.questions import MIX

HELD_OUT = 1_600


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of the training: a mix of questions, and the options of the trainer."""

    mix: Mapping[str, int]
    """frequency of each kind in percent"""
    questions: int
    seed: int
    options: str


COMMON = (
    "--full --router --mask-prompt --batch-size 32 --accumulate 2 --workers 2 --beta1 0.9 --beta2 0.99 --answers 24"
)
ENDS = {
    "sudoku": 14,
    "sums": 13,
    "json": 2,
    "count": 6,
    "long count": 4,
    "two blocks": 52,
    "sort": 6,
    "function": 2,
    "chat": 1,
}
"""The mix for learning to end counts of two canvases: many ends, few tokens before them."""
STAGES = (
    # All kinds; at its end the model knows the easy ones.
    Stage(
        mix=MIX,
        questions=300_000,
        seed=0,
        options="--steps 4375 --learning-rate 2e-3 --warmup 300 --final-rate 0.03 --decay-steps 6000 "
        "--evaluate-every 1000 --save-every 250",
    ),
    # More of the hard kinds: sums and sorting.
    Stage(
        mix={"sudoku": 20, "sums": 34, "json": 4, "count": 8, "short count": 14, "sort": 14, "function": 4, "chat": 2},
        questions=200_000,
        seed=1,
        options="--steps 1676 --learning-rate 1.2e-3 --warmup 100 --final-rate 0.02 --decay-steps 3200 "
        "--evaluate-every 800 --save-every 200",
    ),
    # Learn where to end a count: first short counts, whose end the last digit tells ...
    Stage(
        mix={"sudoku": 12, "sums": 20, "json": 3, "count": 10, "short count": 38, "sort": 13, "function": 3, "chat": 1},
        questions=150_000,
        seed=2,
        options="--steps 2200 --learning-rate 1.2e-3 --warmup 60 --final-rate 0.01 "
        "--evaluate-every 1100 --save-every 200",
    ),
    # ... then longer counts, whose end depends on all digits ...
    Stage(
        mix={"sudoku": 12, "sums": 14, "json": 3, "count": 8, "long count": 48, "sort": 11, "function": 3, "chat": 1},
        questions=150_000,
        seed=3,
        options="--steps 1401 --learning-rate 1.2e-3 --warmup 60 --final-rate 0.01 --decay-steps 2400 "
        "--evaluate-every 1200 --save-every 100",
    ),
    # ... then counts of two or three canvases, of which every second or third canvas ends the count.
    Stage(
        mix=ENDS,
        questions=160_000,
        seed=4,
        options="--steps 800 --learning-rate 1.2e-3 --warmup 30 --final-rate 0.01 --decay-steps 2400 "
        "--evaluate-every 1200 --save-every 100",
    ),
    # The end of a count must be known in the first step, from a canvas of noise: high noise levels teach that.
    Stage(
        mix=ENDS,
        questions=140_000,
        seed=5,
        options="--steps 2100 --learning-rate 1e-3 --warmup 30 --final-rate 0.01 --noise-power 4 "
        "--evaluate-every 1050 --save-every 100",
    ),
    # Also more sudokus, and sudokus whose givens are only on the canvas.
    Stage(
        mix={
            "sudoku": 24,
            "blank sudoku": 12,
            "sums": 10,
            "json": 2,
            "count": 6,
            "long count": 4,
            "two blocks": 34,
            "sort": 5,
            "function": 2,
            "chat": 1,
        },
        questions=170_000,
        seed=6,
        options="--steps 2600 --learning-rate 1e-3 --warmup 30 --final-rate 0.01 --noise-power 4 "
        "--evaluate-every 1300 --save-every 100",
    ),
    # Counts of up to 120 numbers again: short counts taught where to end, but long counts ended too early.
    Stage(
        mix={
            "sudoku": 11,
            "blank sudoku": 8,
            "sums": 6,
            "json": 1,
            "count": 8,
            "two blocks": 20,
            "far count": 40,
            "sort": 4,
            "function": 1,
            "chat": 1,
        },
        questions=100_000,
        seed=7,
        options="--steps 1000 --learning-rate 1e-3 --warmup 30 --final-rate 0.01 --noise-power 4 "
        "--evaluate-every 500 --save-every 100",
    ),
    # Again counts of up to 120 numbers, and more sudokus whose givens are only on the canvas.
    Stage(
        mix={
            "sudoku": 10,
            "blank sudoku": 16,
            "sums": 7,
            "json": 1,
            "count": 6,
            "two blocks": 14,
            "far count": 40,
            "sort": 4,
            "function": 1,
            "chat": 1,
        },
        questions=80_000,
        seed=8,
        options="--steps 750 --learning-rate 1e-3 --warmup 20 --final-rate 0.01 --noise-power 4 "
        "--evaluate-every 750 --save-every 100",
    ),
)


CARD = """\
# The demo model of mlx-diffgemma

A DiffusionGemma of 2.8 million parameters, trained from random weights by `mlx_diffgemma train` on questions that the
project generates. It has every part of the released model: sliding and full layers (K = V), experts, self-conditioning.
Its canvases have 32 tokens. It solves 4x4 sudokus, adds and subtracts numbers up to 99, turns a sentence into JSON,
counts, sorts words and writes one-line Python functions. It knows nothing else.

    mlx_diffgemma generate --model demo "What is 47 + 38?"

The recipe is `examples/demo_model/make.py`; the figures are in `docs/measured.md`. License: Apache-2.0.
"""


def make(folder: Path, output: Path, stages: Sequence[Stage] = STAGES) -> None:
    """Write the trained model to `output`, resuming from the results in `folder`."""
    model = folder / "untrained"
    if not model.exists():
        write_untrained(model)
    for number, stage in enumerate(stages, start=1):
        data, trained = folder / f"stage-{number}" / "data", folder / f"stage-{number}" / "trained"
        resume = ["--resume"] if (trained / "state").exists() else []
        if not resume:
            write_data(data, train=stage.questions, valid=HELD_OUT, seed=stage.seed, mix=stage.mix)
        options = [*COMMON.split(), *stage.options.split(), "--seed", stage.seed, *resume]
        program("train", "--model", model, "--data", data, "--out", trained, *options)
        last = number == len(stages)
        learned = output if last else folder / f"stage-{number}" / "learned"
        dtype = "bfloat16" if last else "float32"
        program("fuse", model, learned, "--adapter", trained, "--dtype", dtype, "--overwrite")
        model = learned
    (output / "README.md").write_text(CARD, encoding="utf-8")


def program(name: str, *arguments: object) -> None:
    """Run one of the project's programs; exit with its status if it fails."""
    command = [sys.executable, "-m", f"mlx_diffgemma.{name}", *map(str, arguments)]
    if status := subprocess.run(command, check=False).returncode:
        raise SystemExit(status)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    make(arguments.folder, arguments.output)
