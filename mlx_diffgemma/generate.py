"""The program `mlx_diffgemma generate`: a prompt is answered, or every prompt of a file."""

from __future__ import annotations

import mlx_diffgemma.cli.quietly  # isort: skip # noqa: F401 # pyright: ignore[reportUnusedImport]

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mlx_diffgemma.cli.batch import answer_file
from mlx_diffgemma.cli.console import run_program
from mlx_diffgemma.cli.encoding import encoding_option
from mlx_diffgemma.cli.options import OUTPUT, CommonOptions, GenerationChoices, ModelOptions
from mlx_diffgemma.cli.program import add_command, make_app
from mlx_diffgemma.cli.prompt import answer_prompt
from mlx_diffgemma.cli.request import Request, refuse
from mlx_diffgemma.option import option
from mlx_diffgemma.presets import PresetOptions

app = make_app()


@dataclass(frozen=True, kw_only=True)
class GenerateOptions:
    """How answers are printed, and where prompts come from."""

    live: bool = option(True, "Draw the canvas while it is denoised, on a terminal.", OUTPUT)
    json: bool = option(False, "Print one JSON object with text and statistics.", OUTPUT)
    batch: Path | None = option(
        None,
        'Answer every line, {"prompt": ".."} with options of its own, as one JSON line; - is stdin.',
        OUTPUT,
        metavar="FILE",
    )
    batch_size: int | None = option(
        None, "Prompts of a batch that are answered side by side.", OUTPUT, minimum=1, default_text="8"
    )
    encoding: str | None = encoding_option()


@add_command(
    app,
    "mlx_diffgemma generate --model ./model 'Why is the sky blue?'",
    "git diff | mlx_diffgemma generate --quiet 'Write a commit message for this:'",
    "mlx_diffgemma generate --choices 'yes,no' --json 'Is 91 a prime?'",
)
def generate(
    prompt: Annotated[
        str | None, typer.Argument(metavar="PROMPT", help="What to ask; piped text is added below it.")
    ] = None,
    *,
    model: ModelOptions,
    chosen: GenerationChoices,
    presets: PresetOptions,
    output: GenerateOptions,
    common: CommonOptions,
) -> None:
    """Answer PROMPT, drawing the canvas while it is denoised.

    The answer goes to stdout, everything else to stderr. An option that is not given is the checkpoint's own.
    """
    request = Request(model=model, chosen={**chosen, **presets.chosen}, quiet=common.quiet)
    if output.batch is None:
        if output.batch_size is not None:
            refuse("--batch-size belongs to --batch: leave it out, or name a file of prompts")
        answer_prompt(request, prompt, live=output.live, json=output.json, encoding=output.encoding)
    else:
        if prompt is not None:
            refuse("--batch takes its prompts from the file: leave PROMPT out")
        if output.encoding is not None:
            refuse("--encoding is that of piped text, and JSON lines are UTF-8: leave it out")
        answer_file(request, output.batch, output.batch_size)


def main() -> None:
    """Run the program on the command line's arguments."""
    run_program(app, "mlx_diffgemma.generate")


if __name__ == "__main__":
    main()
