"""The program mlx_diffgemma.fuse: settings -> FusionOptions, then a progress bar and the closing table.

The array library is imported inside functions, so that `--help` and usage errors answer at once.
"""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from mlx_diffgemma.cli.console import run_program
from mlx_diffgemma.cli.options import CommonOptions
from mlx_diffgemma.cli.program import add_command, make_app
from mlx_diffgemma.option import option
from mlx_diffgemma_convert.command_line import (
    DTYPES,
    RESULT,
    Destination,
    ResultOptions,
    absolute_path,
    run_work,
    source_name,
)

app = make_app()

Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="The model that the adapter was trained on: a folder or Hub repository.")
]


@dataclass(frozen=True, kw_only=True)
class FuseSettings:
    """The adapter, and the form of the result."""

    adapter: Path = option(MISSING, "Folder of the adapter, in the format of mlx-lm or PEFT.", "Model", metavar="DIR")
    dequantize: bool = option(
        False, "Dequantize a quantized MODEL: the result has Google's layout, in bfloat16.", RESULT
    )
    dtype: Literal["bfloat16", "float32"] | None = option(
        None, "Dtype of a result that is not quantized.", RESULT, default_text="the dtypes of MODEL"
    )


@add_command(
    app,
    "mlx_diffgemma fuse google/diffusiongemma-26B-A4B-it fused --adapter adapter",
    "mlx_diffgemma fuse model-4bit fused --adapter adapter --dequantize",
    no_args_is_help=True,
)
def run_fuse(
    model: Model,
    destination: Destination,
    *,
    settings: FuseSettings,
    result: ResultOptions,
    common: CommonOptions,
) -> None:
    """Add the changes of an adapter into the weights of MODEL.

    A quantized MODEL gives a model that is quantized in the same way, any other gives one in Google's layout. If the
    program is interrupted, the same command resumes where it stopped.
    """
    max_shard_bytes = result.max_shard_bytes

    from mlx_diffgemma.checkpoint.hub import model_folder
    from mlx_diffgemma_convert.fusion import FusionOptions, fuse

    folder = model_folder(model, result.revision)
    name, is_repository = source_name(model, folder)
    options = FusionOptions(
        source=folder,
        destination=absolute_path(destination),
        adapter=absolute_path(settings.adapter),
        name=name,
        repository=is_repository,
        dequantize=settings.dequantize,
        dtype=settings.dtype and DTYPES[settings.dtype],
        max_shard_bytes=max_shard_bytes,
        overwrite=result.overwrite,
    )
    run_work(fuse(options), quiet=common.quiet)


def main() -> None:
    """Run the program with the arguments of the command line."""
    run_program(app, "mlx_diffgemma.fuse")
