"""The program `mlx_diffgemma.edit`: a part of a file, written anew.

FILE, lines -> span -> session.stream_edit -> events -> revising.deliver
"""

from __future__ import annotations

from typing import Annotated

import typer

from mlx_diffgemma.cli import options
from mlx_diffgemma.cli.console import reported, run_program
from mlx_diffgemma.cli.document import Document, characters_span, lines_span
from mlx_diffgemma.cli.request import refuse
from mlx_diffgemma.cli.revision import Revision, deliver, opened, started
from mlx_diffgemma.infilling.prompts import check_span, edit_prompt
from mlx_diffgemma.infilling.template import Gap

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def edit(  # noqa: PLR0917 - its parameters are the options
    file: Annotated[str, typer.Argument(metavar="FILE", help="The text; - is stdin.")],
    instruction: Annotated[str, typer.Argument(metavar="INSTRUCTION", help="What to change.")],
    lines: options.Lines = None,
    characters: options.Characters = None,
    gap_tokens: options.GapTokens = None,
    model: options.Model = None,
    adapter: options.Adapter = None,
    revision: options.Revision = None,
    dtype: options.Dtype = None,
    system: options.System = None,
    seed: options.Seed = None,
    canvas_length: options.CanvasLength = None,
    max_steps: options.MaxSteps = None,
    t_min: options.TMin = None,
    t_max: options.TMax = None,
    entropy_bound: options.EntropyBound = None,
    stability: options.Stability = None,
    confidence: options.Confidence = None,
    greedy: options.Greedy = None,
    conditioning_top_k: options.ConditioningTopK = None,
    mean_entropy: options.MeanEntropy = None,
    min_steps: options.MinSteps = None,
    in_place: options.InPlace = False,
    diff: options.Diff = False,
    live: options.Live = True,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
    version: options.Version = False,  # noqa: ARG001 - its callback has answered it
) -> None:
    """Write some lines of FILE anew, as INSTRUCTION says, and print the result.

    What stands around them stays as it is, byte for byte.
    """
    choices = {
        "system": system,
        "seed": seed,
        "canvas_length": canvas_length,
        "max_steps": max_steps,
        "t_min": t_min,
        "t_max": t_max,
        "entropy_bound": entropy_bound,
        "stability": stability,
        "confidence": confidence,
        "greedy": greedy,
        "conditioning_top_k": conditioning_top_k,
        "mean_entropy": mean_entropy,
        "min_steps": min_steps,
    }
    request = Revision(
        file=file,
        in_place=in_place,
        diff=diff,
        json=json,
        live=live,
        quiet=quiet,
        model=model,
        adapter=adapter,
        revision=revision,
        dtype=dtype,
        choices=choices,
    )
    with reported(debug=debug, quiet=quiet):
        rewrite(request, instruction, (lines, characters), gap_tokens)


def rewrite(request: Revision, instruction: str, wanted: tuple[str | None, str | None], gap_tokens: int | None) -> None:
    """Load the model, edit, deliver; wanted: lines or characters.

    Raises DiffGemmaError; SystemExit for usage errors and after Ctrl-C.
    """
    if sum(each is not None for each in wanted) != 1:
        refuse("say what to write anew: --lines, such as 10:20, or --characters")
    # Everything is checked first: gigabytes are not read for a request that cannot be met.
    document = opened(request)
    span = wanted_span(document, *wanted)
    edit_prompt(document.text, instruction, span)
    gap = None if gap_tokens is None else Gap(gap_tokens, gap_tokens)
    session, config = started(request)
    parts = session.edit_template(document.text, span, gap)
    deliver(request, document, parts, session.stream_edit(document.text, instruction, span, config, gap=gap))


def wanted_span(document: Document, lines: str | None, characters: str | None) -> tuple[int, int]:
    """Where the wanted part of a document begins and ends, in characters. Raises TemplateError."""
    if lines is not None:
        return lines_span(document.text, lines)
    span = characters_span(characters or "")
    check_span(document.text, span)
    return span


def main() -> None:
    """Entry point of the program."""
    run_program(app, "mlx_diffgemma.edit")


if __name__ == "__main__":
    main()
