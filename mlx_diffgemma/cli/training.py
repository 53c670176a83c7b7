"""What the program `mlx_diffgemma train` does: options -> TrainingPlan -> events -> bar, lines and the closing note."""

from __future__ import annotations

import sys
from dataclasses import MISSING, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_diffgemma.cli.console import INTERRUPTED
from mlx_diffgemma.cli.options import MODEL, dtype_option, force_option, revision_option
from mlx_diffgemma.option import option
from mlx_diffgemma.training.settings import RECIPE, TrainingSettings

if TYPE_CHECKING:
    from mlx_diffgemma.training.run import TrainingPlan
    from mlx_diffgemma.training.state import State

_TRAINED, _PROGRESS = "What is trained", "Evaluation and saving"


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What a training starts from, and where its results go."""

    data: str = option(
        MISSING,
        "Folder with train.jsonl and valid.jsonl, or a Hub dataset: messages, prompt and completion, or text.",
        MODEL,
        metavar="NAME",
    )
    model: str = option(
        MISSING,
        "Folder or Hub repository of the model.",
        MODEL,
        flags=("-m",),
        metavar="NAME",
        envvar="MLX_DIFFGEMMA_MODEL",
        default_text="$MLX_DIFFGEMMA_MODEL",
    )
    out: Path = option(
        Path("adapters"),
        "Folder for the adapter, the log, its picture, and what --resume needs.",
        MODEL,
        flags=("--adapter-path", "--out"),
        metavar="DIR",
    )
    revision: str | None = revision_option()
    dtype: str | None = dtype_option()
    force: bool = force_option()


@dataclass(frozen=True, kw_only=True)
class AdapterOptions:
    """Which parameters are trained."""

    full: bool = option(False, "Train all parameters instead of an adapter.", _TRAINED)
    rank: int = option(16, "Rank of the adapter.", _TRAINED)
    alpha: float = option(32.0, "The adapter's change is multiplied by alpha / rank.", _TRAINED)
    num_layers: int | None = option(None, "Layers to adapt, counted from the last.", _TRAINED, default_text="all")
    experts: bool = option(False, "Adapt the experts too.", _TRAINED)
    router: bool = option(False, "Train the routers too.", _TRAINED)
    start_from: Path | None = option(
        None, "Folder of an adapter to begin with, in the format of mlx-lm or PEFT.", _TRAINED, metavar="DIR"
    )


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a training is run; these options leave its result as it is."""

    grad_checkpoint: bool = option(False, "Compute layers twice to save memory.", RECIPE)
    workers: int = option(1, "Batches of a step that are computed at the same time, on the CPU.", RECIPE)
    evaluate_every: int = option(
        200, "Steps between evaluations; 0: at the end only.", _PROGRESS, flags=("--evaluate-every", "--steps-per-eval")
    )
    answers: int = option(8, "Held-out questions answered at each evaluation.", _PROGRESS)
    save_every: int = option(200, "Steps between saves; 0: at the end only.", _PROGRESS)
    resume: bool = option(False, "Continue the training in the folder of --adapter-path.", _PROGRESS)


def training_plan(
    source: SourceOptions, adapter: AdapterOptions, settings: TrainingSettings, running: RunOptions
) -> TrainingPlan:
    """Return the training that the options describe. Raises OptionError."""
    from mlx_diffgemma.checkpoint.adapters import ATTENTION, DENSE, EXPERTS, LoRA
    from mlx_diffgemma.training.loop import Pace
    from mlx_diffgemma.training.run import TrainingPlan

    keys = ATTENTION + DENSE + (EXPERTS if adapter.experts else ())
    lora = LoRA(rank=adapter.rank, alpha=adapter.alpha, layers=adapter.num_layers, keys=keys)
    return TrainingPlan(
        model=source.model,
        revision=source.revision,
        dtype=source.dtype,
        force=source.force,
        data=source.data,
        out=source.out,
        settings=settings,
        lora=None if adapter.full else lora,
        router=adapter.router,
        start_from=_adapter_folder(adapter.start_from),
        pace=Pace(evaluate=running.evaluate_every, save=running.save_every),
        answers=running.answers,
        checkpoint=running.grad_checkpoint,
        workers=running.workers,
        resume=running.resume,
    )


def _adapter_folder(path: Path | None) -> Path | None:
    """Return the folder of an adapter; mlx-lm names the file of its weights."""
    return path.parent if path is not None and path.suffix == ".safetensors" else path


def train_and_report(plan: TrainingPlan, *, quiet: bool) -> None:
    """Prepare, train, report. Raises DiffGemmaError; SystemExit after Ctrl-C."""
    from mlx_diffgemma.cli.interrupt import Interrupt
    from mlx_diffgemma.display.bar import Bar
    from mlx_diffgemma.training.run import prepare_training, result_files, run_training
    from mlx_diffgemma.training.screen import screen

    with Bar(f"loading {plan.model}", 0, sys.stderr, shown=not quiet) as bar:
        ready = prepare_training(plan, bar.passing)
    events, done = run_training(ready), ready.start.step if ready.start else 0
    with Interrupt() as interrupt, screen(sys.stderr, plan.settings.steps, done=done, quiet=quiet) as shown:
        shown.line(
            f"{ready.trainable:,} parameters trained, {len(ready.train.examples):,} examples, "
            f"{len(ready.held_out.batches.examples) if ready.held_out else 0:,} held out, "
            f"{plan.settings.steps:,} steps of {plan.settings.batch_size * plan.settings.accumulate}"
        )
        if ready.start is not None and (note := longer_note(ready.start, plan.settings)):
            shown.line(note)
        for event in events:
            shown.show(event)
            if interrupt.noted:
                events.close()
                shown.line(f"stopped; {plan.out} is saved, --resume goes on")
                raise SystemExit(INTERRUPTED)
        shown.line(f"{plan.out}: {result_files(plan)}")


def longer_note(start: State, settings: TrainingSettings) -> str | None:
    """Say what more steps than planned do to the learning rate; None if there are no more."""
    if start.planned in (None, settings.steps):
        return None
    old, new = (replace(settings, steps=steps).rate(start.step) for steps in (start.planned, settings.steps))
    return (
        f"{settings.steps:,} steps instead of {start.planned:,}: the learning rate is {new:.3g} in step "
        f"{start.step + 1:,}, by the old plan {old:.3g}"
    )
