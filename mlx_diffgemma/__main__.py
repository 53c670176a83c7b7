"""The umbrella command `mlx_diffgemma NAME ...`, also as `python -m mlx_diffgemma`.

A program is imported when it is chosen: `mlx_diffgemma -h` and a mistyped name answer at once.
"""

from __future__ import annotations

import mlx_diffgemma.cli.quietly  # isort: skip # noqa: F401 # pyright: ignore[reportUnusedImport]

import sys
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from mlx_diffgemma.cli.console import run_program
from mlx_diffgemma.cli.options import print_version
from mlx_diffgemma.cli.program import make_app, write_examples, write_panels

PROGRAMS = {
    "generate": "Answer a prompt, or every prompt of a file.",
    "infill": "Fill the gaps of a text.",
    "edit": "Rewrite some lines of a file.",
    "train": "Fine-tune a model, or train all of it.",
    "convert": "Convert a checkpoint to MLX layout, quantized or in bfloat16.",
    "fuse": "Add an adapter into the weights of a model.",
    "bench": "Measure speed, and how often answers are right.",
    "models": "List the models on this disk.",
}
"""What each program does, in a line: importing them to ask would cost time."""

_COMPLETION_FLAGS = {"--install-completion", "--show-completion"}
"""Options of the umbrella, whatever program they are given to."""

_EXAMPLES = """\
mlx_diffgemma generate 'Why is the sky blue?'
mlx_diffgemma generate -h
mlx_diffgemma --install-completion  # the tab key completes names and options"""


def load_program(name: str) -> typer.Typer:
    """Import a program."""
    return import_module(f"mlx_diffgemma.{name}").app


class Programs(TyperGroup):
    """A group whose commands are imported when they are chosen."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return name, command and arguments; an unknown name is a usage error that suggests the nearest."""
        name, command, rest = super().resolve_command(ctx, args)
        if name is not None:
            command = typer.main.get_command(load_program(name))
        return name, command, rest

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the programs, then the options."""
        self.format_commands(ctx, formatter)
        write_panels(self.get_params(ctx), ctx, formatter)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, line by line."""
        del ctx
        write_examples(self.epilog, formatter)


app = make_app(cls=Programs, no_args_is_help=True, epilog=_EXAMPLES, subcommand_metavar="COMMAND ...")


@app.callback()
def umbrella(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Run DiffusionGemma, the open model that writes by denoising a canvas, on Apple Silicon."""
    del version


def _unloaded() -> None:
    """Stand in for a program until it is chosen."""


for _name, _help in PROGRAMS.items():
    app.command(_name, help=_help)(_unloaded)


def main() -> None:
    """Run the program that the command line's first argument names."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in PROGRAMS and _COMPLETION_FLAGS.isdisjoint(sys.argv):
        # Reading the group's own options first would cost a fifth of a second.
        del sys.argv[1]
        run_program(load_program(name), f"mlx_diffgemma {name}")
    else:
        run_program(app, "mlx_diffgemma")


if __name__ == "__main__":
    main()
