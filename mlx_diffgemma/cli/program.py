"""What makes a typer program of a command: one style of help pages, examples, shell completion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import typer
from typer.core import TyperCommand

from mlx_diffgemma.cli.options import spread_options

_HIDDEN = ("install_completion", "show_completion")
"""Options that work, but are named by `mlx_diffgemma -h` only."""

_Command: TypeAlias = Callable[..., None]


def make_app(**settings: Any) -> typer.Typer:
    """Return a typer program in the style of this project."""
    return typer.Typer(
        context_settings={"help_option_names": ["-h", "--help"]},
        # Plain text: rich's panels cut long names at 80 columns, and cost half a second.
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        **settings,
    )


def add_command(app: typer.Typer, *examples: str, **settings: Any) -> Callable[[_Command], _Command]:
    """Register a function as the command of `app`, its parameters spread by `options.spread_options`.

    examples: command lines for the end of the help page.
    """

    def register(function: _Command) -> _Command:
        app.command(cls=HelpCommand, epilog="\n".join(examples), **settings)(spread_options(function))
        return function

    return register


class HelpCommand(TyperCommand):
    """A command whose help page lists options under the headings of their panels, and ends with examples."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the words of the usage line, required arguments without braces."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, panel after panel."""
        write_panels(self.get_params(ctx), ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, line by line."""
        del ctx
        write_examples(self.epilog, formatter)


def write_panels(parameters: list[Any], ctx: Any, formatter: Any) -> None:
    """Write arguments and options into a help page under the headings of their panels."""
    panels: dict[str, list[tuple[str, str]]] = {}
    for parameter in parameters:
        record = None if parameter.name in _HIDDEN else parameter.get_help_record(ctx)
        if record is not None:
            heading = "Arguments" if parameter.param_type_name == "argument" else "Other"
            panel = getattr(parameter, "rich_help_panel", None) or heading
            name = record[0].partition(" <")[0] if heading == "Arguments" else record[0]
            # What typer adds to the help is there already, in the words of `options`.
            panels.setdefault(panel, []).append((name, parameter.help))
    for heading, records in panels.items():
        with formatter.section(heading):
            formatter.write_dl(records)


def write_examples(examples: str | None, formatter: Any) -> None:
    """Write example command lines at the end of a help page."""
    if examples:
        with formatter.section("Examples"):
            formatter.write("".join(f"  {line}\n" for line in examples.splitlines()))
