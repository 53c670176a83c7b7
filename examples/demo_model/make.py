"""Make the demo model that lies in the package: questions, random weights, training, bfloat16.

    python examples/demo_model/make.py FOLDER OUTPUT

FOLDER keeps what is in between. Stopped anywhere and run again, it goes on from the last saved step. On two cores it
takes hours; the pace comes from a fast BLAS (on Debian: libopenblas0-pthread, by LD_PRELOAD, OPENBLAS_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from demo_model.architecture import write_untrained
from demo_model.data import write_data

SEED = 0
QUESTIONS = 300_000
HELD_OUT = 1_600
STEPS = 6_000
TRAINING = f"""
--full --router --mask-prompt --seed {SEED}
--steps {STEPS} --batch-size 32 --accumulate 2 --workers 2
--learning-rate 2e-3 --warmup 300 --final-rate 0.03 --beta1 0.9 --beta2 0.99
--evaluate-every 1000 --save-every 250 --answers 24
""".split()


CARD = """\
# The demo model of mlx-diffgemma

A DiffusionGemma of 2.8 million parameters, trained from random weights by `mlx_diffgemma.train` on questions that the
project makes itself. It has every part of the release: sliding and full layers (K = V), experts, self-conditioning,
canvases of 32 tokens. It solves 4x4 sudokus, adds and subtracts numbers up to 99, turns a sentence into JSON, counts,
sorts words and writes one-line Python functions, and it knows nothing else.

    mlx_diffgemma.generate --model demo "What is 47 + 38?"

The recipe is `examples/demo_model/make.py`, the figures are in `benchmarks/NOTES.md`. License: Apache-2.0.
"""


def make(folder: Path, output: Path, *, steps: int = STEPS, questions: int = QUESTIONS) -> None:
    """Write the trained model to `output`, going on from what `folder` holds."""
    untrained, data, trained = folder / "untrained", folder / "data", folder / "trained"
    if not (trained / "state").exists():
        write_untrained(untrained, seed=SEED)
        write_data(data, train=questions, valid=HELD_OUT, seed=SEED)
    resume = ["--resume"] if (trained / "state").exists() else []
    program("train", "--model", untrained, "--data", data, "--out", trained, *TRAINING, "--steps", steps, *resume)
    program("fuse", untrained, output, "--adapter", trained, "--dtype", "bfloat16", "--overwrite")
    (output / "README.md").write_text(CARD, encoding="utf-8")


def program(name: str, *arguments: object) -> None:
    """Run one of the project's programs; what it says goes where ours does."""
    command = [sys.executable, "-m", f"mlx_diffgemma.{name}", *map(str, arguments)]
    if status := subprocess.run(command, check=False).returncode:
        raise SystemExit(status)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    make(arguments.folder, arguments.output)
