"""The program mlx_diffgemma.convert: options -> Options, then a progress bar and the closing table.

Imports of the array library are inside the function: `--help` and usage errors answer at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from mlx_diffgemma.cli.console import open_streams, reported
from mlx_diffgemma.errors import OptionError, QuantizationError
from mlx_diffgemma_convert.command_line import (
    DTYPES,
    Debug,
    Destination,
    Overwrite,
    Quiet,
    Revision,
    ShardSize,
    absolute,
    parse_size,
    show,
)
from mlx_diffgemma_convert.recipe import Kind, Recipe, choose, make_recipe, parse_setting

NAME = "mlx_diffgemma.convert"
app = typer.Typer(name=NAME, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


Source = Annotated[
    str, typer.Argument(metavar="SRC", help="A folder, or a Hub repository such as google/diffusiongemma-26B-A4B-it.")
]
Bits = Annotated[
    Literal["4", "5", "6", "8"] | None, typer.Option(help="Bits per value [default: 4, or the mode's own].")
]
Mode = Annotated[
    Literal["affine", "mxfp4", "mxfp8", "nvfp4"] | None,
    typer.Option(help="Number format of packed values [default: affine]."),
]
GroupSize = Annotated[int | None, typer.Option(help="Values that share a scale [default: 64, or the mode's own].")]
RecipeName = Annotated[
    Literal["mixed", "uniform"] | None,
    typer.Option(help="mixed: 8 bits but for experts and self-conditioning; uniform: all alike [default: mixed]."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="CLASS=BITS|bf16",
        help="Bits of one class: embed, attention, mlp, router, experts, conditioning. Repeatable.",
    ),
]
NoQuantize = Annotated[
    bool, typer.Option("--no-quantize", help="Pack nothing: only bring names and configuration into MLX layout.")
]
Dtype = Annotated[
    Literal["bfloat16", "float16", "float32"],
    typer.Option(help="Of what is not packed, and of scales; the vision tower stays bfloat16."),
]
UploadRepo = Annotated[str | None, typer.Option(metavar="USER/NAME", help="Send the result to this Hub repository.")]


# One parameter per option is how typer reads them: the one place with more than eight.
@app.command(no_args_is_help=True)
def convert(  # noqa: PLR0917
    source: Source,
    destination: Destination,
    bits: Bits = None,
    mode: Mode = None,
    group_size: GroupSize = None,
    recipe: RecipeName = None,
    settings: Settings = None,
    no_quantize: NoQuantize = False,
    dtype: Dtype = "bfloat16",
    max_shard_size: ShardSize = "5GB",
    revision: Revision = None,
    overwrite: Overwrite = False,
    upload_repo: UploadRepo = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Convert a DiffusionGemma checkpoint to MLX layout, packed or in bf16, a piece at a time.

    An interrupted conversion goes on where it stopped when the same command is run again.
    """
    chosen = _recipe(bits, mode, group_size, recipe, settings or [], no_quantize=no_quantize)
    max_shard_bytes = parse_size(max_shard_size)
    with reported(debug=debug, quiet=quiet):
        from mlx_diffgemma.checkpoint.hub import model_folder
        from mlx_diffgemma_convert import conversion, upload

        if upload_repo is not None:
            upload.check_login(upload_repo)
        folder = model_folder(source, revision)
        repository = not Path(source).expanduser().is_dir()
        options = conversion.Options(
            source=folder,
            destination=absolute(destination),
            recipe=chosen,
            name=source if repository else folder.resolve().name,
            repository=repository,
            target=upload_repo,
            dtype=DTYPES[dtype],
            max_shard_bytes=max_shard_bytes,
            overwrite=overwrite,
        )
        show(conversion.convert(options), quiet=quiet)
        if upload_repo is not None:
            typer.echo(upload.upload(options.destination, upload_repo))


def _recipe(
    bits: str | None,
    mode: str | None,
    group_size: int | None,
    kind: Kind | None,
    settings: list[str],
    *,
    no_quantize: bool,
) -> Recipe:
    """The recipe that the options describe. Raises typer.BadParameter for options that contradict each other."""
    if no_quantize:
        if settings or any(option is not None for option in (bits, mode, group_size, kind)):
            raise typer.BadParameter(
                "leaves nothing for --bits, --mode, --group-size, --recipe or --set", param_hint="--no-quantize"
            )
        return Recipe()
    try:
        chosen = choose(mode or "affine", int(bits) if bits else None, group_size)
        return make_recipe(kind or "mixed", chosen, dict(map(parse_setting, settings)))
    except (OptionError, QuantizationError) as error:
        raise typer.BadParameter(str(error)) from None


def main() -> None:
    """Run the program on the command line's arguments."""
    open_streams()
    app(prog_name=NAME)
