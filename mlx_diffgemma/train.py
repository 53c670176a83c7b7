"""mlx_diffgemma.train: fine-tune a model, or train one from random weights."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mlx_diffgemma import options
from mlx_diffgemma.console import INTERRUPTED, open_streams, reported

if TYPE_CHECKING:
    from mlx_diffgemma.training.run import Plan

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
MODEL, WHAT, HOW, LOOK = "Model and data", "What is trained", "How", "Looking up"


@app.command()
def train(  # noqa: PLR0917 - its parameters are the options
    data: Annotated[
        str,
        typer.Option(
            help="Folder with train.jsonl and valid.jsonl, or a Hub dataset; lines with messages, or with prompt and "
            "completion.",
            rich_help_panel=MODEL,
        ),
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="Folder or Hub repository.", rich_help_panel=MODEL)],
    out: Annotated[
        Path,
        typer.Option(
            "--adapter-path", "--out", help="Folder for the adapter, log, picture and state.", rich_help_panel=MODEL
        ),
    ] = Path("adapters"),
    revision: options.Revision = None,
    dtype: options.Dtype = None,
    full: Annotated[
        bool, typer.Option("--full", help="Train all parameters, not an adapter.", rich_help_panel=WHAT)
    ] = False,
    rank: Annotated[int, typer.Option(help="Rank of the adapter.", rich_help_panel=WHAT)] = 16,
    alpha: Annotated[
        float, typer.Option(help="The adapter's change is multiplied by alpha / rank.", rich_help_panel=WHAT)
    ] = 32.0,
    num_layers: Annotated[
        int | None, typer.Option(help="Layers to adapt, from the last; all unless given.", rich_help_panel=WHAT)
    ] = None,
    experts: Annotated[bool, typer.Option("--experts", help="Adapt the experts too.", rich_help_panel=WHAT)] = False,
    router: Annotated[bool, typer.Option("--router", help="Train the routers too.", rich_help_panel=WHAT)] = False,
    steps: Annotated[int, typer.Option("--steps", "--iters", help="Steps in all.", rich_help_panel=HOW)] = 1000,
    batch_size: Annotated[int, typer.Option(help="Examples per batch.", rich_help_panel=HOW)] = 4,
    accumulate: Annotated[
        int,
        typer.Option("--accumulate", "--grad-accumulation-steps", help="Batches per step.", rich_help_panel=HOW),
    ] = 1,
    learning_rate: Annotated[float, typer.Option(help="The highest.", rich_help_panel=HOW)] = 1.5e-4,
    warmup: Annotated[int, typer.Option(help="Steps up to it.", rich_help_panel=HOW)] = 0,
    final_rate: Annotated[
        float, typer.Option(help="Part of it that is left at the end of a cosine.", rich_help_panel=HOW)
    ] = 0.1,
    beta1: Annotated[float, typer.Option(help="Of AdamW.", rich_help_panel=HOW)] = 0.95,
    beta2: Annotated[float, typer.Option(help="Of AdamW.", rich_help_panel=HOW)] = 0.99,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.", rich_help_panel=HOW)] = 0.0,
    clip: Annotated[float, typer.Option(help="Largest norm of a gradient.", rich_help_panel=HOW)] = 1.0,
    causal_weight: Annotated[
        float, typer.Option(help="Weight of the encoder's causal loss.", rich_help_panel=HOW)
    ] = 1.0,
    mask_prompt: Annotated[
        bool, typer.Option("--mask-prompt", help="Causal loss on answers only.", rich_help_panel=HOW)
    ] = False,
    max_seq_length: Annotated[int, typer.Option(help="Tokens of an example at most.", rich_help_panel=HOW)] = 2048,
    grad_checkpoint: Annotated[
        bool,
        typer.Option("--grad-checkpoint", help="Compute layers twice to save memory.", rich_help_panel=HOW),
    ] = False,
    workers: Annotated[
        int, typer.Option(help="Batches of a step computed at once, on the CPU.", rich_help_panel=HOW)
    ] = 1,
    seed: Annotated[int, typer.Option(help="Of data order, noise and adapter.", rich_help_panel=HOW)] = 0,
    evaluate_every: Annotated[
        int, typer.Option("--evaluate-every", "--steps-per-eval", help="Steps; 0: at the end.", rich_help_panel=LOOK)
    ] = 200,
    answers: Annotated[
        int, typer.Option(help="Held-out questions answered at each evaluation.", rich_help_panel=LOOK)
    ] = 8,
    save_every: Annotated[int, typer.Option("--save-every", help="Steps; 0: at the end.", rich_help_panel=LOOK)] = 200,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training in --out.", rich_help_panel=LOOK)
    ] = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    version: options.Version = False,  # noqa: ARG001 - its callback has answered it
) -> None:
    """Train a low-rank adapter (LoRA; QLoRA on a quantized model), or with --full the whole model.

    Ctrl-C finishes the step, saves, and ends; --resume goes on with the same losses.
    """
    with reported(debug=debug, quiet=quiet):
        from mlx_diffgemma.adapters import ATTENTION, DENSE, EXPERTS, LoRA
        from mlx_diffgemma.training.loop import Pace
        from mlx_diffgemma.training.run import Plan
        from mlx_diffgemma.training.settings import Settings

        keys = ATTENTION + DENSE + (EXPERTS if experts else ())
        lora = None if full else LoRA(rank=rank, alpha=alpha, layers=num_layers, keys=keys)
        settings = Settings(
            steps=steps,
            batch_size=batch_size,
            accumulate=accumulate,
            learning_rate=learning_rate,
            warmup=warmup,
            final_rate=final_rate,
            beta1=beta1,
            beta2=beta2,
            weight_decay=weight_decay,
            clip=clip,
            causal_weight=causal_weight,
            mask_prompt=mask_prompt,
            max_seq_length=max_seq_length,
            seed=seed,
        )
        plan = Plan(
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


def carry_out(plan: Plan, *, quiet: bool) -> None:
    """Prepare, train, report. Raises DiffGemmaError; SystemExit after Ctrl-C."""
    from rich.console import Console

    from mlx_diffgemma.interrupt import Interrupt
    from mlx_diffgemma.training.run import prepare, run
    from mlx_diffgemma.training.screen import counted, screen

    console = Console(stderr=True, quiet=quiet, soft_wrap=True)
    ready = prepare(plan, lambda items, total: counted(items, total, console=console, quiet=quiet))
    console.print(
        f"{ready.trainable:,} parameters trained, {len(ready.train.examples):,} examples, "
        f"{len(ready.held_out.batches.examples) if ready.held_out else 0:,} held out, {plan.settings.steps:,} steps of "
        f"{plan.settings.batch_size * plan.settings.accumulate}",
        highlight=False,
    )
    events = run(ready)
    with Interrupt() as interrupt, screen(console, plan.settings.steps, quiet=quiet) as shown:
        for event in events:
            shown.show(event)
            if interrupt.noted:
                events.close()
                console.print(f"stopped; {plan.out} is saved, --resume goes on", highlight=False)
                raise SystemExit(INTERRUPTED)
    console.print(f"{plan.out}: adapter, log.jsonl and loss.png", highlight=False)


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
