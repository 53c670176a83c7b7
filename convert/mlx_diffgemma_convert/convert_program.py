"""The program mlx_diffgemma.convert: settings -> ConversionOptions, then a progress bar and the closing table.

The array library is imported inside functions, so that `--help` and usage errors answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass
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
    absolute_path,
    make_app,
    parse_size,
    run_work,
    source_name,
    spread,
)
from mlx_diffgemma_convert.recipe import Recipe, RecipeName, make_quantization, make_recipe, parse_setting

_PROGRAM = "mlx_diffgemma.convert"
_EXAMPLES = """\
Examples:

\b
4 bits, and 8 bits for the tensors that every token passes:
  mlx_diffgemma.convert google/diffusiongemma-26B-A4B-it diffusiongemma-4bit

\b
A fine-tuned model in a folder, in NVFP4:
  mlx_diffgemma.convert my-model my-model-nvfp4 --mode nvfp4

\b
4 bits for all tensors but the router, which stays in bfloat16:
  mlx_diffgemma.convert my-model small --recipe uniform --set router=bf16
"""
app = make_app(_PROGRAM)


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """The command line of mlx_diffgemma.convert; a setting of None has a default that depends on the others."""

    source: Annotated[
        str,
        typer.Argument(metavar="SRC", help="Folder or Hub repository, for example google/diffusiongemma-26B-A4B-it."),
    ]
    destination: Destination
    bits: Annotated[
        Literal["4", "5", "6", "8"] | None,
        typer.Option(help="Bits per value of --mode affine [default: 4]; the other modes have their own."),
    ] = None
    mode: Annotated[
        Literal["affine", "mxfp4", "mxfp8", "nvfp4"] | None,
        typer.Option(help="Number format of quantized values [default: affine]."),
    ] = None
    group_size: Annotated[
        int | None,
        typer.Option(
            metavar="32|64|128",
            help="Values that share one scale, with --mode affine [default: 64]; the other modes have their own.",
        ),
    ] = None
    recipe: Annotated[
        RecipeName | None,
        typer.Option(
            help="mixed: experts and self-conditioning as chosen, the other classes in 8 bits; uniform: all classes as "
            "chosen [default: mixed]."
        ),
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="CLASS=4|5|6|8|bf16",
            help="Bits of one class: embed, attention, mlp, router, experts or conditioning. Can be repeated.",
        ),
    ] = None
    no_quantize: Annotated[
        bool,
        typer.Option("--no-quantize", help="Quantize nothing: change only names and config.json to the MLX layout."),
    ] = False
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"],
        typer.Option(help="Dtype of scales and of weights that are not quantized; the vision tower stays bfloat16."),
    ] = "bfloat16"
    max_shard_size: ShardSize = "5GB"
    revision: Revision = None
    overwrite: Overwrite = False
    upload_repo: Annotated[
        str | None, typer.Option(metavar="USER/NAME", help="Upload the result to this Hub repository.")
    ] = None
    quiet: Quiet = False
    debug: Debug = False


@app.command(no_args_is_help=True, epilog=_EXAMPLES)
@spread(ConvertSettings)
def run_convert(settings: ConvertSettings) -> None:
    """Convert a DiffusionGemma checkpoint to the MLX layout, quantized or in bf16.

    Memory does not depend on the size of the checkpoint. If the program is interrupted, the same command resumes where
    it stopped.
    """
    recipe = _recipe(settings)
    max_shard_bytes = parse_size(settings.max_shard_size)
    with reported(debug=settings.debug, quiet=settings.quiet):
        from mlx_diffgemma.checkpoint.hub import model_folder
        from mlx_diffgemma_convert.conversion import ConversionOptions, convert
        from mlx_diffgemma_convert.upload import check_login, upload

        if settings.upload_repo is not None:
            check_login(settings.upload_repo)
        folder = model_folder(settings.source, settings.revision)
        name, is_repository = source_name(settings.source, folder)
        options = ConversionOptions(
            source=folder,
            destination=absolute_path(settings.destination),
            recipe=recipe,
            name=name,
            repository=is_repository,
            target=settings.upload_repo,
            dtype=DTYPES[settings.dtype],
            max_shard_bytes=max_shard_bytes,
            overwrite=settings.overwrite,
        )
        run_work(convert(options), quiet=settings.quiet)
        if settings.upload_repo is not None:
            typer.echo(upload(options.destination, settings.upload_repo))


def _recipe(settings: ConvertSettings) -> Recipe:
    """Return the recipe that the settings describe. Raises typer.BadParameter for a contradiction."""
    bits, mode, group_size, name = settings.bits, settings.mode, settings.group_size, settings.recipe
    if settings.no_quantize:
        if settings.settings or any(option is not None for option in (bits, mode, group_size, name)):
            raise typer.BadParameter(
                "leave out --bits, --mode, --group-size, --recipe and --set, which say how to quantize",
                param_hint="--no-quantize",
            )
        return Recipe()
    try:
        chosen = make_quantization(mode or "affine", int(bits) if bits else None, group_size)
        return make_recipe(name or "mixed", chosen, dict(map(parse_setting, settings.settings or [])))
    except (OptionError, QuantizationError) as error:
        raise typer.BadParameter(str(error)) from None


def main() -> None:
    """Run the program with the arguments of the command line."""
    open_streams()
    app(prog_name=_PROGRAM)
