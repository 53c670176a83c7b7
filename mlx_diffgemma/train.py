"""The program `mlx_diffgemma train`: a model is fine-tuned, or trained from random weights."""

from __future__ import annotations

import mlx_diffgemma.cli.quietly  # isort: skip # noqa: F401 # pyright: ignore[reportUnusedImport]

from mlx_diffgemma.cli.console import run_program
from mlx_diffgemma.cli.options import CommonOptions
from mlx_diffgemma.cli.program import add_command, make_app
from mlx_diffgemma.cli.training import AdapterOptions, RunOptions, SourceOptions, train_and_report, training_plan
from mlx_diffgemma.training.settings import TrainingSettings

app = make_app()


@add_command(
    app,
    "mlx_diffgemma train --model ./model-4bit --data ./data --steps 600",
    "mlx_diffgemma train --model ./model-4bit --data ./data --steps 900 --resume",
    "mlx_diffgemma train --model ./small --data user/dataset --full --out ./trained",
)
def train_model(
    *,
    source: SourceOptions,
    adapter: AdapterOptions,
    settings: TrainingSettings,
    running: RunOptions,
    common: CommonOptions,
) -> None:
    """Train a low-rank adapter (LoRA; QLoRA on a quantized model), or with --full the whole model.

    Ctrl-C finishes the step, saves, and ends; --resume continues with the same losses.
    """
    train_and_report(training_plan(source, adapter, settings, running), quiet=common.quiet)


def main() -> None:
    """Run the program on the command line's arguments."""
    run_program(app, "mlx_diffgemma.train")


if __name__ == "__main__":
    main()
