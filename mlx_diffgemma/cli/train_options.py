"""The command line options of a training, one alias per option."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

MODEL, WHAT, HOW, LOOK = "Model and data", "What is trained", "How", "Looking up"

Data: TypeAlias = Annotated[
    str,
    typer.Option(
        help="Folder with train.jsonl and valid.jsonl, or a Hub dataset: messages, or prompt and completion.",
        rich_help_panel=MODEL,
    ),
]
Model: TypeAlias = Annotated[
    str, typer.Option("--model", "-m", help="Folder or Hub repository.", rich_help_panel=MODEL)
]
Out: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--adapter-path", "--out", help="Folder for the adapter, log, picture and state.", rich_help_panel=MODEL
    ),
]
Full: TypeAlias = Annotated[
    bool, typer.Option("--full", help="Train all parameters, not an adapter.", rich_help_panel=WHAT)
]
Rank: TypeAlias = Annotated[int, typer.Option(help="Rank of the adapter.", rich_help_panel=WHAT)]
Alpha: TypeAlias = Annotated[
    float, typer.Option(help="The adapter's change is multiplied by alpha / rank.", rich_help_panel=WHAT)
]
NumLayers: TypeAlias = Annotated[
    int | None, typer.Option(help="Layers to adapt, from the last; all unless given.", rich_help_panel=WHAT)
]
Experts: TypeAlias = Annotated[bool, typer.Option("--experts", help="Adapt the experts too.", rich_help_panel=WHAT)]
Router: TypeAlias = Annotated[bool, typer.Option("--router", help="Train the routers too.", rich_help_panel=WHAT)]
Steps: TypeAlias = Annotated[int, typer.Option("--steps", "--iters", help="Steps in all.", rich_help_panel=HOW)]
BatchSize: TypeAlias = Annotated[int, typer.Option(help="Examples per batch.", rich_help_panel=HOW)]
Accumulate: TypeAlias = Annotated[
    int, typer.Option("--accumulate", "--grad-accumulation-steps", help="Batches per step.", rich_help_panel=HOW)
]
LearningRate: TypeAlias = Annotated[float, typer.Option(help="The highest.", rich_help_panel=HOW)]
Warmup: TypeAlias = Annotated[int, typer.Option(help="Steps up to it.", rich_help_panel=HOW)]
FinalRate: TypeAlias = Annotated[
    float, typer.Option(help="Part of it that is left at the end of a cosine.", rich_help_panel=HOW)
]
DecaySteps: TypeAlias = Annotated[
    int | None, typer.Option(help="Step at which the cosine ends; the last unless given.", rich_help_panel=HOW)
]
Beta1: TypeAlias = Annotated[float, typer.Option(help="Of AdamW.", rich_help_panel=HOW)]
Beta2: TypeAlias = Annotated[float, typer.Option(help="Of AdamW.", rich_help_panel=HOW)]
WeightDecay: TypeAlias = Annotated[float, typer.Option(help="Of AdamW.", rich_help_panel=HOW)]
Clip: TypeAlias = Annotated[float, typer.Option(help="Largest norm of a gradient.", rich_help_panel=HOW)]
CausalWeight: TypeAlias = Annotated[
    float, typer.Option(help="Weight of the encoder's causal loss.", rich_help_panel=HOW)
]
MaskPrompt: TypeAlias = Annotated[
    bool, typer.Option("--mask-prompt", help="Causal loss on answers only.", rich_help_panel=HOW)
]
NoisePower: TypeAlias = Annotated[
    float, typer.Option(help="Above 1: noisier canvases than the recipe's 1.", rich_help_panel=HOW)
]
MaxSeqLength: TypeAlias = Annotated[int, typer.Option(help="Tokens of an example at most.", rich_help_panel=HOW)]
GradCheckpoint: TypeAlias = Annotated[
    bool, typer.Option("--grad-checkpoint", help="Compute layers twice to save memory.", rich_help_panel=HOW)
]
Workers: TypeAlias = Annotated[
    int, typer.Option(help="Batches of a step computed at once, on the CPU.", rich_help_panel=HOW)
]
Seed: TypeAlias = Annotated[int, typer.Option(help="Of data order, noise and adapter.", rich_help_panel=HOW)]
EvaluateEvery: TypeAlias = Annotated[
    int, typer.Option("--evaluate-every", "--steps-per-eval", help="Steps; 0: at the end.", rich_help_panel=LOOK)
]
Answers: TypeAlias = Annotated[
    int, typer.Option(help="Held-out questions answered at each evaluation.", rich_help_panel=LOOK)
]
SaveEvery: TypeAlias = Annotated[int, typer.Option("--save-every", help="Steps; 0: at the end.", rich_help_panel=LOOK)]
Resume: TypeAlias = Annotated[
    bool, typer.Option("--resume", help="Go on with the training in --out.", rich_help_panel=LOOK)
]
