"""The program `mlx_diffgemma.infill`: a file with gaps, filled.

FILE -> template -> session.stream_infill -> events -> revising.deliver
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from mlx_diffgemma.cli import options
from mlx_diffgemma.cli.console import reported, run_program
from mlx_diffgemma.cli.document import Document
from mlx_diffgemma.cli.request import require_usable
from mlx_diffgemma.cli.revision import Revision, deliver, opened, started
from mlx_diffgemma.infilling.template import MARKER, Gap, Part, matched, parse, sized

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def infill(  # noqa: PLR0917 - its parameters are the options
    file: Annotated[str, typer.Argument(metavar="FILE", help="Text with gaps; - is stdin.")],
    instruction: options.Instruction = None,
    marker: options.Marker = MARKER,
    gap_tokens: options.GapTokens = None,
    max_tokens: options.MaxTokens = None,
    regex: options.Regex = None,
    json_schema: options.JsonSchema = None,
    choices: options.Choices = None,
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
    """Fill the gaps of FILE, drawing the canvas while it is denoised, and print the result.

    What stands around the gaps stays as it is, byte for byte.
    """
    chosen = {
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
        "max_tokens": max_tokens,
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
        choices=chosen,
    )
    with reported(debug=debug, quiet=quiet):
        # Everything is checked first: gigabytes are not read for a request that cannot be met.
        document = opened(request)
        parts = sized(parse(document.text, marker), gap_tokens)
        parts = matched(parts, regex, json_schema, options.listed(choices))
        for gap in parts:
            if isinstance(gap, Gap):
                require_usable(gap)
        fill(request, instruction, document, parts)


def fill(request: Revision, instruction: str | None, document: Document, parts: Sequence[Part]) -> None:
    """Load the model, fill, deliver. Raises DiffGemmaError; SystemExit for usage errors and after Ctrl-C."""
    session, config = started(request)
    deliver(request, document, parts, session.stream_infill(parts, instruction, config))


def main() -> None:
    """Entry point of the program."""
    run_program(app, "mlx_diffgemma.infill")


if __name__ == "__main__":
    main()
