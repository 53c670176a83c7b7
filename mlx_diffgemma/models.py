"""The program `mlx_diffgemma models`: which models are on this disk, and which of them fit this machine."""

from __future__ import annotations

import mlx_diffgemma.cli.quietly  # isort: skip # noqa: F401 # pyright: ignore[reportUnusedImport]

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mlx_diffgemma.cli.console import run_program
from mlx_diffgemma.cli.listing import list_models
from mlx_diffgemma.cli.options import OUTPUT, CommonOptions
from mlx_diffgemma.cli.program import add_command, make_app
from mlx_diffgemma.option import option

app = make_app()


@dataclass(frozen=True, kw_only=True)
class ListingOptions:
    """How the list is printed."""

    json: bool = option(False, "Print one JSON object per model.", OUTPUT)


@add_command(app, "mlx_diffgemma models", "mlx_diffgemma models ~/models --json")
def models(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Where models lie, besides the cache of the Hub.")
    ] = Path(),
    *,
    output: ListingOptions,
    common: CommonOptions,
) -> None:
    """List the models in FOLDER (default: this one), in the Hub's cache and in the package.

    The table says how many bits a value has, how large the files are, and whether a conversation fits the memory.
    """
    del common
    list_models(folder, as_json=output.json)


def main() -> None:
    """Run the program on the command line's arguments."""
    run_program(app, "mlx_diffgemma.models")


if __name__ == "__main__":
    main()
