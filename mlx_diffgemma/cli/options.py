"""The command line options that the programs share, one alias per option; a default of None is the checkpoint's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

MODEL, GENERATION, CONSTRAINT, SAMPLER = "Model", "Generation", "Constraint", "Sampler"
SPEED, OUTPUT = "Speed", "Output"

Model: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        envvar="MLX_DIFFGEMMA_MODEL",
        help="Folder or Hub repository of the model.",
        show_default="the demo in the package",
        rich_help_panel=MODEL,
    ),
]
Adapter: TypeAlias = Annotated[
    Path | None,
    typer.Option("--adapter", "--adapter-path", help="Folder of an adapter to put on it.", rich_help_panel=MODEL),
]
Revision: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Branch, tag or commit of the Hub repository.", rich_help_panel=MODEL),
]
Dtype: TypeAlias = Annotated[
    str | None,
    typer.Option(help="Compute in bfloat16 or float32.", rich_help_panel=MODEL),
]

System: TypeAlias = Annotated[
    str | None,
    typer.Option("--system", "-s", help="System prompt.", rich_help_panel=GENERATION),
]
Thinking: TypeAlias = Annotated[
    bool | None,
    typer.Option("--thinking/--no-thinking", help="Let the model think first.", rich_help_panel=GENERATION),
]
Raw: TypeAlias = Annotated[
    bool | None,
    typer.Option("--raw", help="Send the prompt as it is, without chat template.", rich_help_panel=GENERATION),
]
MaxTokens: TypeAlias = Annotated[
    int | None,
    typer.Option("--max-tokens", "-n", help="Tokens of the answer at most.", rich_help_panel=GENERATION),
]
StopToken: TypeAlias = Annotated[
    list[int] | None,
    typer.Option(
        help="Id of a token that ends the answer, in place of the checkpoint's; can be repeated.",
        rich_help_panel=GENERATION,
    ),
]
Seed: TypeAlias = Annotated[
    int | None,
    typer.Option(help="The same seed gives the same answer.", rich_help_panel=GENERATION),
]

Regex: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="PATTERN", help="The whole answer, or every gap, matches this.", rich_help_panel=CONSTRAINT),
]
JsonSchema: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The answer, or every gap, is JSON that is valid for this schema.",
        rich_help_panel=CONSTRAINT,
    ),
]
Choices: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="A,B,C", help="The answer, or every gap, is one of these.", rich_help_panel=CONSTRAINT),
]

CanvasLength: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Tokens denoised at once.", rich_help_panel=SAMPLER),
]
MaxSteps: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Denoising steps per canvas at most.", rich_help_panel=SAMPLER),
]
TMin: TypeAlias = Annotated[
    float | None,
    typer.Option(help="Temperature at the last step.", rich_help_panel=SAMPLER),
]
TMax: TypeAlias = Annotated[
    float | None,
    typer.Option(help="Temperature at the first step.", rich_help_panel=SAMPLER),
]
EntropyBound: TypeAlias = Annotated[
    float | None,
    typer.Option(help="Nats that the positions accepted in one step may sum to.", rich_help_panel=SAMPLER),
]
Stability: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Steps without a change before a canvas is finished.", rich_help_panel=SAMPLER),
]
Confidence: TypeAlias = Annotated[
    float | None,
    typer.Option(help="Mean entropy, in nats, below which a canvas is finished.", rich_help_panel=SAMPLER),
]
Greedy: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--greedy/--no-greedy", help="Accept the most likely tokens, without a draw.", rich_help_panel=SAMPLER
    ),
]

Exact: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--exact", help="The reference's rule to the token: none of the options below.", rich_help_panel=SPEED
    ),
]
ConditioningTopK: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="Tokens per position that condition the next step; 0: all of them.",
        show_default="64",
        rich_help_panel=SPEED,
    ),
]
UntilEnd: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--until-end/--no-until-end",
        help="A canvas need not settle behind its end token.",
        show_default="until-end",
        rich_help_panel=SPEED,
    ),
]
AllowEmpty: TypeAlias = Annotated[
    bool | None,
    typer.Option("--allow-empty/--no-allow-empty", help="An answer may be empty.", rich_help_panel=SPEED),
]
MeanEntropy: TypeAlias = Annotated[
    float | None,
    typer.Option(help="Nats below which a canvas is finished though it still changes.", rich_help_panel=SPEED),
]
MinSteps: TypeAlias = Annotated[
    int | None,
    typer.Option(help="Steps before --mean-entropy finishes a canvas.", show_default="12", rich_help_panel=SPEED),
]
Trim: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        "--trim/--no-trim", help="Drop positions of the canvas that the answer cannot use.", rich_help_panel=SPEED
    ),
]
Verify: TypeAlias = Annotated[
    float | None,
    typer.Option(
        metavar="P",
        help="Denoise again from the first token that is less likely than P, given what stands before it.",
        rich_help_panel=SPEED,
    ),
]
ChosenMode: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--mode", help="canvas, or causal: one token after another.", show_default="canvas", rich_help_panel=SPEED
    ),
]
Temperature: TypeAlias = Annotated[
    float | None,
    typer.Option(help="Of the draws in causal mode.", show_default="1.0", rich_help_panel=SPEED),
]
TopP: TypeAlias = Annotated[
    float | None,
    typer.Option(
        help="Draw from the most likely tokens that reach this probability, in causal mode.",
        show_default="0.95",
        rich_help_panel=SPEED,
    ),
]

Instruction: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--instruction", "-i", help="What to write; without it the model is shown the text.", rich_help_panel=GENERATION
    ),
]
Marker: TypeAlias = Annotated[
    str,
    typer.Option(help="What marks a gap; <gap:40> has 40 tokens, <gap:5-40> 5 to 40.", rich_help_panel=GENERATION),
]
GapTokens: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Tokens of a gap whose marker does not say how many.",
        show_default="the most likely number",
        rich_help_panel=GENERATION,
    ),
]
Lines: TypeAlias = Annotated[
    str | None,
    typer.Option(metavar="10:20", help="The first and the last line to write anew.", rich_help_panel=GENERATION),
]
Characters: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="120:180", help="In place of --lines: from which character up to which.", rich_help_panel=GENERATION
    ),
]
InPlace: TypeAlias = Annotated[
    bool,
    typer.Option("--in-place", help="Write the result into the file.", rich_help_panel=OUTPUT),
]
Diff: TypeAlias = Annotated[
    bool,
    typer.Option("--diff", help="Print what changes, as a unified diff.", rich_help_panel=OUTPUT),
]

Live: TypeAlias = Annotated[
    bool,
    typer.Option("--live/--no-live", help="Draw the canvas, on a terminal.", rich_help_panel=OUTPUT),
]
Json: TypeAlias = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object with text and statistics.", rich_help_panel=OUTPUT),
]
Quiet: TypeAlias = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print the answer and errors only.", rich_help_panel=OUTPUT),
]
Batch: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.jsonl",
        help='Answer every line, {"prompt": ..} with options of its own, as one JSON line.',
        rich_help_panel=OUTPUT,
    ),
]
BatchSize: TypeAlias = Annotated[
    int | None,
    typer.Option(
        min=1, help="Prompts of a batch that are answered side by side.", show_default="8", rich_help_panel=OUTPUT
    ),
]
Debug: TypeAlias = Annotated[
    bool,
    typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=OUTPUT),
]


def given(choices: Mapping[str, Any]) -> dict[str, Any]:
    """The choices that were made, in a GenerationConfig's terms: there, "all tokens" is None and not 0."""
    made = {name: choice for name, choice in choices.items() if choice is not None}
    return {name: None if name == "conditioning_top_k" and choice == 0 else choice for name, choice in made.items()}


def listed(choices: str | None) -> tuple[str, ...] | None:
    """The choices of A,B,C."""
    return None if choices is None else tuple(choice.strip() for choice in choices.split(","))


def print_version(wanted: bool) -> None:
    """Callback of --version."""
    if wanted:
        # Imported here: no other option needs it, and it costs time that --help does not have.
        from importlib.metadata import version

        typer.echo(version("mlx-diffgemma"))
        raise typer.Exit


Version: TypeAlias = Annotated[
    bool,
    typer.Option("--version", callback=print_version, is_eager=True, help="Print the version.", rich_help_panel=OUTPUT),
]
