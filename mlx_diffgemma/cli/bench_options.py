"""The command line options of a benchmark, one alias per option."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from mlx_diffgemma.benchmark import SuiteName
from mlx_diffgemma.cli.options import GENERATION, MODEL, OUTPUT

WHAT = "What is measured"

Model: TypeAlias = Annotated[str, typer.Argument(help="Folder or Hub repository; demo is in the package.")]
Baseline: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Autoregressive model for mlx-lm, asked and measured alike.", rich_help_panel=MODEL),
]
BuiltIn: TypeAlias = Annotated[
    SuiteName | None,
    typer.Option(
        "--suite",
        help="Built-in prompts.",
        show_default="demo for canvases under 64, otherwise full",
        rich_help_panel=WHAT,
    ),
]
Prompts: TypeAlias = Annotated[
    Path | None,
    typer.Option(help="Your own: lines of JSON with prompt, check, and maybe name, max_tokens.", rich_help_panel=WHAT),
]
Only: TypeAlias = Annotated[
    str | None, typer.Option(help="Ask only prompts with this text in their name.", rich_help_panel=WHAT)
]
Speed: TypeAlias = Annotated[
    bool, typer.Option("--speed/--no-speed", help="Measure prefill and steps.", rich_help_panel=WHAT)
]
Answers: TypeAlias = Annotated[
    bool, typer.Option("--answers/--no-answers", help="Ask the prompts.", rich_help_panel=WHAT)
]
Lengths: TypeAlias = Annotated[str, typer.Option(help="Tokens of prefills.", rich_help_panel=WHAT)]
Prefixes: TypeAlias = Annotated[str, typer.Option(help="Tokens before the canvas of steps.", rich_help_panel=WHAT)]
Canvases: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="Tokens on the canvas of steps.",
        show_default="the model's, a half, a quarter and an eighth of it",
        rich_help_panel=WHAT,
    ),
]
Repeats: TypeAlias = Annotated[int, typer.Option(help="Answers to every prompt.", rich_help_panel=WHAT)]
Retries: TypeAlias = Annotated[
    int, typer.Option(help="Attempts at an answer until it is accepted, at most.", rich_help_panel=WHAT)
]
MaxTokens: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--max-tokens",
        "-n",
        help="Tokens of every answer at most.",
        show_default="the prompt's",
        rich_help_panel=GENERATION,
    ),
]
Seed: TypeAlias = Annotated[
    int, typer.Option(help="Of the first attempt at every prompt; the next has the next.", rich_help_panel=GENERATION)
]
Json: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--json", help="Print one JSON object with every measurement and every answer.", rich_help_panel=OUTPUT
    ),
]
Plot: TypeAlias = Annotated[Path | None, typer.Option(help="Draw the figures into a PNG file.", rich_help_panel=OUTPUT)]
Quiet: TypeAlias = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.", rich_help_panel=OUTPUT)]
