"""The program `mlx_diffgemma infill`: the gaps of a text are filled."""

from __future__ import annotations

import mlx_diffgemma.cli.quietly  # isort: skip # noqa: F401 # pyright: ignore[reportUnusedImport]

from dataclasses import dataclass
from typing import Annotated

import typer

from mlx_diffgemma.cli.console import run_program
from mlx_diffgemma.cli.options import CommonOptions, ModelOptions
from mlx_diffgemma.cli.program import add_command, make_app
from mlx_diffgemma.cli.request import Request, check_constraints
from mlx_diffgemma.cli.revision import InfillChoices, Revision, RevisionOptions, deliver, open_document, start
from mlx_diffgemma.constraint.spec import constraint_of
from mlx_diffgemma.infilling.template import MARKER, matched, parse, sized
from mlx_diffgemma.option import option

app = make_app()


@dataclass(frozen=True, kw_only=True)
class GapOptions:
    """What is written into the gaps."""

    instruction: str | None = option(
        None, "What to write; without it the model is shown the text.", "Gaps", flags=("-i",)
    )
    marker: str = option(MARKER, "What marks a gap; <gap:40> has 40 tokens, <gap:5-40> has 5 to 40.", "Gaps")
    gap_tokens: int | None = option(
        None,
        "Tokens of a gap whose marker does not say how many.",
        "Gaps",
        minimum=1,
        default_text="the most likely number",
    )
    regex: str | None = option(None, "Every gap matches this pattern.", "Gaps", metavar="PATTERN")
    json_schema: str | None = option(
        None,
        "Every gap is JSON valid for a schema: a file, JSON, or 'name, age int'.",
        "Gaps",
        metavar="SCHEMA",
    )
    choices: tuple[str, ...] | None = option(None, "Every gap is one of these texts.", "Gaps", metavar="A,B,C")


@add_command(
    app,
    "mlx_diffgemma infill draft.txt --instruction 'A friendly letter.'",
    "mlx_diffgemma infill area.py --marker '<?>' --gap-tokens 12 --diff",
    "echo 'The capital of Peru is <gap:1-3>.' | mlx_diffgemma infill -",
)
def infill(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Text with gaps; - is stdin.")],
    *,
    gaps: GapOptions,
    model: ModelOptions,
    chosen: InfillChoices,
    output: RevisionOptions,
    common: CommonOptions,
) -> None:
    """Fill the gaps of FILE, drawing the canvas while it is denoised, and print the result.

    The text around the gaps stays as it is, byte for byte. An option that is not given is the checkpoint's own.
    """
    revision = Revision(file=file, request=Request(model=model, chosen=chosen, quiet=common.quiet), output=output)
    # Everything is checked first: gigabytes are not read for a request that cannot be met.
    document = open_document(revision)
    parts = sized(parse(document.text, gaps.marker), gaps.gap_tokens)
    constraint = constraint_of(gaps.regex, gaps.json_schema, gaps.choices)
    check_constraints([constraint])
    parts = matched(parts, constraint)
    session, config = start(revision)
    events = session.stream_infill(parts, gaps.instruction, config)
    deliver(revision, document, parts, events, config)


def main() -> None:
    """Run the program on the command line's arguments."""
    run_program(app, "mlx_diffgemma.infill")


if __name__ == "__main__":
    main()
