"""Train the next demo model: questions, first weights, training in stages.

    python examples/demo_next/make.py FOLDER

FOLDER keeps the intermediate results: after an interruption the script resumes from the last saved step. It begins with
`weights/model.safetensors` beside this script, where an earlier training stopped, or with random weights if there is no
such file or with --anew. A stage takes hours on two cores, and minutes on a GPU. On two cores it needs a fast BLAS (on
Debian: libopenblas0-pthread, by LD_PRELOAD, with OPENBLAS_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from demo_model.make import HELD_OUT, Stage, program
from demo_next.architecture import write_untrained
from demo_next.data import write_data
from demo_next.questions import MIX

WEIGHTS = Path(__file__).parent / "weights" / "model.safetensors"


COMMON = "--full --router --mask-prompt --accumulate 2 --workers 2 --beta1 0.9 --beta2 0.99 --answers 24"
STAGES = (
    # All kinds, in small batches: many steps teach copying, spelling and the form of answers soonest.
    Stage(
        mix=MIX,
        questions=200_000,
        seed=0,
        options="--batch-size 16 --steps 8000 --learning-rate 1.6e-3 --warmup 200 --final-rate 0.1 "
        "--evaluate-every 1000 --save-every 100",
    ),
)


def make(folder: Path, *, anew: bool, stages: Sequence[Stage] = STAGES) -> None:
    """Train stage after stage in `folder`, resuming from the results there; the last model is in `folder`/learned."""
    model = folder / "start"
    if not model.exists():
        write_untrained(model)
        if WEIGHTS.exists() and not anew:
            shutil.copy(WEIGHTS, model / "model.safetensors")
    for number, stage in enumerate(stages, start=1):
        data, trained = folder / f"stage-{number}" / "data", folder / f"stage-{number}" / "trained"
        resume = ["--resume"] if (trained / "state").exists() else []
        if not resume:
            write_data(data, train=stage.questions, valid=HELD_OUT, seed=stage.seed, mix=stage.mix)
        options = [*COMMON.split(), *stage.options.split(), "--seed", stage.seed, *resume]
        program("train", "--model", model, "--data", data, "--out", trained, *options)
        learned = folder / ("learned" if number == len(stages) else f"stage-{number}/learned")
        program("fuse", model, learned, "--adapter", trained, "--dtype", "float32", "--overwrite")
        model = learned


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--anew", action="store_true", help="begin with random weights")
    arguments = parser.parse_args()
    make(arguments.folder, anew=arguments.anew)
