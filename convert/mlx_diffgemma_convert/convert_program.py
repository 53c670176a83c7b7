"""The program mlx_diffgemma.convert: settings -> ConversionOptions, then a progress bar and the closing table.

The array library is imported inside functions, so that `--help` and usage errors answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from mlx_diffgemma.cli.console import run_program
from mlx_diffgemma.cli.options import CommonOptions
from mlx_diffgemma.cli.program import add_command, make_app
from mlx_diffgemma.errors import OptionError, QuantizationError
from mlx_diffgemma.option import option
from mlx_diffgemma_convert.command_line import (
    DTYPES,
    RESULT,
    Destination,
    ResultOptions,
    absolute_path,
    parse_size,
    run_work,
    source_name,
)
from mlx_diffgemma_convert.recipe import Recipe, RecipeName, make_quantization, make_recipe, parse_setting

QUANTIZATION = "Quantization"
app = make_app()

Source = Annotated[
    str, typer.Argument(metavar="SRC", help="Folder or Hub repository, for example google/diffusiongemma-26B-A4B-it.")
]


@dataclass(frozen=True, kw_only=True)
class ConvertSettings:
    """How to quantize, and where to upload the result; a setting of None has a default that depends on the others."""

    bits: Literal["4", "5", "6", "8"] | None = option(
        None, "Bits per value.", QUANTIZATION, default_text="4, or those of the mode"
    )
    mode: Literal["affine", "mxfp4", "mxfp8", "nvfp4"] | None = option(
        None, "Number format of quantized values.", QUANTIZATION, default_text="affine"
    )
    group_size: int | None = option(
        None,
        "Values that share one scale.",
        QUANTIZATION,
        metavar="<16|32|64|128>",
        default_text="64, or that of the mode",
    )
    recipe: RecipeName | None = option(
        None,
        "mixed: experts and self-conditioning as chosen, the other classes in 8 bits; uniform: all classes as chosen; "
        "small: experts in 3 bits, the other classes as chosen.",
        QUANTIZATION,
        default_text="mixed",
    )
    fit: str | None = option(
        None,
        "Choose the recipe: the best whose result fits a Mac with this memory, of uniform in 8 bits, mixed, small.",
        QUANTIZATION,
        metavar="<16GB|24GB|..>",
    )
    settings: list[str] | None = option(
        None,
        "Bits of one class: embed, attention, mlp, router, experts or conditioning. Can be repeated.",
        QUANTIZATION,
        flags=("--set",),
        metavar="CLASS=<3|4|5|6|8|bf16>",
    )
    no_quantize: bool = option(
        False, "Quantize nothing: change only names and config.json to the MLX layout.", QUANTIZATION
    )
    dtype: Literal["bfloat16", "float16", "float32"] = option(
        "bfloat16",
        "Dtype of scales and of weights that are not quantized; the vision tower stays bfloat16.",
        QUANTIZATION,
    )
    upload_repo: str | None = option(None, "Upload the result to this Hub repository.", RESULT, metavar="USER/NAME")


@add_command(
    app,
    "mlx_diffgemma convert google/diffusiongemma-26B-A4B-it model-4bit",
    "mlx_diffgemma convert ./my-model ./my-model-24 --fit 24GB",
    "mlx_diffgemma convert ./my-model ./small --recipe uniform --set router=8",
    no_args_is_help=True,
)
def run_convert(
    source: Source,
    destination: Destination,
    *,
    settings: ConvertSettings,
    result: ResultOptions,
    common: CommonOptions,
) -> None:
    """Convert a DiffusionGemma checkpoint to the MLX layout, quantized or in bf16.

    Memory does not depend on the size of the checkpoint. If the program is interrupted, the same command resumes where
    it stopped.
    """
    memory, recipe = _fit_bytes(settings), _recipe(settings)
    max_shard_bytes = result.max_shard_bytes

    from mlx_diffgemma.checkpoint.hub import model_folder
    from mlx_diffgemma_convert.best_recipe import choose_for_folder
    from mlx_diffgemma_convert.conversion import ConversionOptions, convert
    from mlx_diffgemma_convert.upload import check_login, upload

    if settings.upload_repo is not None:
        check_login(settings.upload_repo)
    folder = model_folder(source, result.revision)
    name, is_repository = source_name(source, folder)
    options = ConversionOptions(
        source=folder,
        destination=absolute_path(destination),
        recipe=recipe if memory is None else choose_for_folder(folder, memory, DTYPES[settings.dtype]),
        name=name,
        repository=is_repository,
        target=settings.upload_repo,
        dtype=DTYPES[settings.dtype],
        max_shard_bytes=max_shard_bytes,
        overwrite=result.overwrite,
    )
    run_work(convert(options), quiet=common.quiet)
    if settings.upload_repo is not None:
        typer.echo(upload(options.destination, settings.upload_repo))


def _fit_bytes(settings: ConvertSettings) -> int | None:
    """Return the memory that --fit names, in bytes. Raises typer.BadParameter for a contradiction."""
    if settings.fit is None:
        return None
    given = {
        "--bits": settings.bits,
        "--mode": settings.mode,
        "--group-size": settings.group_size,
        "--recipe": settings.recipe,
        "--set": settings.settings,
        "--no-quantize": settings.no_quantize,
    }
    if others := [flag for flag, value in given.items() if value]:
        raise typer.BadParameter(
            f"leave out {' and '.join(others)}, because --fit chooses the recipe", param_hint="--fit"
        )
    # A Mac's gigabytes are powers of 1024.
    return parse_size(settings.fit, "--fit", "24GB") * 2**30 // 10**9


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
    run_program(app, "mlx_diffgemma.convert")
