"""The program `mlx_diffgemma edit`: a part of a text is rewritten."""

from __future__ import annotations

import mlx_diffgemma.cli.quietly  # isort: skip # noqa: F401 # pyright: ignore[reportUnusedImport]

from dataclasses import dataclass
from typing import Annotated

import typer

from mlx_diffgemma.cli.console import run_program
from mlx_diffgemma.cli.document import characters_span, lines_span
from mlx_diffgemma.cli.options import CommonOptions, ModelOptions
from mlx_diffgemma.cli.program import add_command, make_app
from mlx_diffgemma.cli.request import Request, refuse
from mlx_diffgemma.cli.revision import EditChoices, Revision, RevisionOptions, deliver, open_document, start
from mlx_diffgemma.infilling.prompts import check_span, edit_prompt
from mlx_diffgemma.infilling.template import Gap
from mlx_diffgemma.option import option

app = make_app()


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """Which part is rewritten."""

    lines: str | None = option(None, "The first and the last line to rewrite.", "Part", metavar="10:20")
    characters: str | None = option(
        None, "In place of --lines: the first character to rewrite, and the first after it.", "Part", metavar="120:180"
    )
    gap_tokens: int | None = option(
        None, "Tokens of the new text.", "Part", minimum=1, default_text="half to twice as many as the part has"
    )

    def span(self, text: str) -> tuple[int, int]:
        """Return where the part begins and ends, in characters. Raises TemplateError."""
        if self.lines is not None:
            return lines_span(text, self.lines)
        span = characters_span(self.characters or "")
        check_span(text, span)
        return span


@add_command(
    app,
    "mlx_diffgemma edit README.md 'Say it in one sentence.' --lines 3:7 --diff",
    "mlx_diffgemma edit area.py 'Use math.pi.' --lines 12 --in-place",
)
def edit(
    file: Annotated[str, typer.Argument(metavar="FILE", help="The text; - is stdin.")],
    instruction: Annotated[str, typer.Argument(metavar="INSTRUCTION", help="What to change.")],
    *,
    part: PartOptions,
    model: ModelOptions,
    chosen: EditChoices,
    output: RevisionOptions,
    common: CommonOptions,
) -> None:
    """Rewrite some lines of FILE as INSTRUCTION says, and print the result.

    The text around them stays as it is, byte for byte. An option that is not given is the checkpoint's own.
    """
    revision = Revision(file=file, request=Request(model=model, chosen=chosen, quiet=common.quiet), output=output)
    if (part.lines is None) == (part.characters is None):
        refuse("say what to rewrite: give either --lines, such as 10:20, or --characters")
    # Everything is checked first: gigabytes are not read for a request that cannot be met.
    document = open_document(revision)
    span = part.span(document.text)
    edit_prompt(document.text, instruction, span)
    gap = None if part.gap_tokens is None else Gap(part.gap_tokens, part.gap_tokens)
    session, config = start(revision)
    parts = session.edit_template(document.text, span, gap)
    events = session.stream_edit(document.text, instruction, span, config, gap=gap)
    deliver(revision, document, parts, events, config)


def main() -> None:
    """Run the program on the command line's arguments."""
    run_program(app, "mlx_diffgemma.edit")


if __name__ == "__main__":
    main()
