"""mlx_diffgemma.train: fine-tune a model, or train one from random weights."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from mlx_diffgemma.cli import options
from mlx_diffgemma.cli import train_options as given
from mlx_diffgemma.cli.console import INTERRUPTED, open_streams, reported
from mlx_diffgemma.training.settings import TrainingSettings

if TYPE_CHECKING:
    from mlx_diffgemma.training.run import TrainingPlan

DEFAULTS = TrainingSettings()
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def train(  # noqa: PLR0917 - its parameters are the options
    data: given.Data,
    model: given.Model,
    out: given.Out = Path("adapters"),
    revision: options.Revision = None,
    dtype: options.Dtype = None,
    full: given.Full = False,
    rank: given.Rank = 16,
    alpha: given.Alpha = 32.0,
    num_layers: given.NumLayers = None,
    experts: given.Experts = False,
    router: given.Router = False,
    steps: given.Steps = DEFAULTS.steps,
    batch_size: given.BatchSize = DEFAULTS.batch_size,
    accumulate: given.Accumulate = DEFAULTS.accumulate,
    learning_rate: given.LearningRate = DEFAULTS.learning_rate,
    warmup: given.Warmup = DEFAULTS.warmup,
    final_rate: given.FinalRate = DEFAULTS.final_rate,
    decay_steps: given.DecaySteps = DEFAULTS.decay_steps,
    beta1: given.Beta1 = DEFAULTS.beta1,
    beta2: given.Beta2 = DEFAULTS.beta2,
    weight_decay: given.WeightDecay = DEFAULTS.weight_decay,
    clip: given.Clip = DEFAULTS.clip,
    causal_weight: given.CausalWeight = DEFAULTS.causal_weight,
    mask_prompt: given.MaskPrompt = DEFAULTS.mask_prompt,
    noise_power: given.NoisePower = DEFAULTS.noise_power,
    max_seq_length: given.MaxSeqLength = DEFAULTS.max_seq_length,
    grad_checkpoint: given.GradCheckpoint = False,
    workers: given.Workers = 1,
    seed: given.Seed = DEFAULTS.seed,
    evaluate_every: given.EvaluateEvery = 200,
    answers: given.Answers = 8,
    save_every: given.SaveEvery = 200,
    resume: given.Resume = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    version: options.Version = False,  # noqa: ARG001 - its callback has answered it
) -> None:
    """Train a low-rank adapter (LoRA; QLoRA on a quantized model), or with --full the whole model.

    Ctrl-C finishes the step, saves, and ends; --resume goes on with the same losses.
    """
    with reported(debug=debug, quiet=quiet):
        from mlx_diffgemma.checkpoint.adapters import ATTENTION, DENSE, EXPERTS, LoRA
        from mlx_diffgemma.training.loop import Pace
        from mlx_diffgemma.training.run import TrainingPlan

        keys = ATTENTION + DENSE + (EXPERTS if experts else ())
        lora = None if full else LoRA(rank=rank, alpha=alpha, layers=num_layers, keys=keys)
        settings = TrainingSettings(
            steps=steps,
            batch_size=batch_size,
            accumulate=accumulate,
            learning_rate=learning_rate,
            warmup=warmup,
            final_rate=final_rate,
            decay_steps=decay_steps,
            beta1=beta1,
            beta2=beta2,
            weight_decay=weight_decay,
            clip=clip,
            causal_weight=causal_weight,
            mask_prompt=mask_prompt,
            noise_power=noise_power,
            max_seq_length=max_seq_length,
            seed=seed,
        )
        plan = TrainingPlan(
            model=model,
            revision=revision,
            dtype=dtype,
            data=data,
            out=out,
            settings=settings,
            lora=lora,
            router=router,
            pace=Pace(evaluate=evaluate_every, save=save_every),
            answers=answers,
            checkpoint=grad_checkpoint,
            workers=workers,
            resume=resume,
        )
        carry_out(plan, quiet=quiet)


def carry_out(plan: TrainingPlan, *, quiet: bool) -> None:
    """Prepare, train, report. Raises DiffGemmaError; SystemExit after Ctrl-C."""
    from rich.console import Console

    from mlx_diffgemma.cli.interrupt import Interrupt
    from mlx_diffgemma.training.run import prepare_training, result_files, run_training
    from mlx_diffgemma.training.screen import counted, screen

    console = Console(stderr=True, quiet=quiet, soft_wrap=True)
    ready = prepare_training(plan, lambda items, total: counted(items, total, console=console, quiet=quiet))
    console.print(
        f"{ready.trainable:,} parameters trained, {len(ready.train.examples):,} examples, "
        f"{len(ready.held_out.batches.examples) if ready.held_out else 0:,} held out, {plan.settings.steps:,} steps of "
        f"{plan.settings.batch_size * plan.settings.accumulate}",
        highlight=False,
    )
    events, done = run_training(ready), ready.start.step if ready.start else 0
    with Interrupt() as interrupt, screen(console, plan.settings.steps, done=done, quiet=quiet) as shown:
        for event in events:
            shown.show(event)
            if interrupt.noted:
                events.close()
                console.print(f"stopped; {plan.out} is saved, --resume goes on", highlight=False)
                raise SystemExit(INTERRUPTED)
    console.print(f"{plan.out}: {result_files(plan)}", highlight=False)


def main() -> None:
    """Entry point of the program."""
    open_streams()
    try:
        app(prog_name="mlx_diffgemma.train")
    finally:
        # A second Ctrl-C must not cut short the interpreter's own leaving.
        signal.signal(signal.SIGINT, signal.SIG_IGN)


if __name__ == "__main__":
    sys.exit(main())
