"""The program mlx_diffgemma.fuse: settings -> FusionOptions, then a progress bar and the closing table.

The array library is imported inside functions, so that `--help` and usage errors answer at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from mlx_diffgemma.cli.console import open_streams, reported
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

_PROGRAM = "mlx_diffgemma.fuse"
_EXAMPLES = """\
Examples:

\b
Fuse into the bf16 checkpoint, then quantize the result:
  mlx_diffgemma.fuse google/diffusiongemma-26B-A4B-it fused --adapter adapters
  mlx_diffgemma.convert fused fused-4bit

\b
Fuse into a quantized model; the result is in bfloat16:
  mlx_diffgemma.fuse diffusiongemma-4bit fused --adapter adapters --dequantize
"""
app = make_app(_PROGRAM)


@dataclass(frozen=True, kw_only=True)
class FuseSettings:
    """The command line of mlx_diffgemma.fuse."""

    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="The model that the adapter was trained on: a folder or a Hub repository."
        ),
    ]
    destination: Destination
    adapter: Annotated[
        Path,
        typer.Option("--adapter", metavar="DIR", help="Folder with adapters.safetensors and adapter_config.json."),
    ]
    dequantize: Annotated[
        bool,
        typer.Option("--dequantize", help="Dequantize a quantized MODEL: the result has Google's layout, in bfloat16."),
    ] = False
    dtype: Annotated[
        Literal["bfloat16", "float32"] | None,
        typer.Option(help="Dtype of a result that is not quantized [default: the dtypes of MODEL]."),
    ] = None
    max_shard_size: ShardSize = "5GB"
    revision: Revision = None
    overwrite: Overwrite = False
    quiet: Quiet = False
    debug: Debug = False


@app.command(no_args_is_help=True, epilog=_EXAMPLES)
@spread(FuseSettings)
def run_fuse(settings: FuseSettings) -> None:
    """Add the changes of an adapter into the weights of MODEL.

    A quantized MODEL gives a model that is quantized in the same way, any other gives one in Google's layout. If the
    program is interrupted, the same command resumes where it stopped.
    """
    max_shard_bytes = parse_size(settings.max_shard_size)
    with reported(debug=settings.debug, quiet=settings.quiet):
        from mlx_diffgemma.checkpoint.hub import model_folder
        from mlx_diffgemma_convert.fusion import FusionOptions, fuse

        folder = model_folder(settings.model, settings.revision)
        name, is_repository = source_name(settings.model, folder)
        options = FusionOptions(
            source=folder,
            destination=absolute_path(settings.destination),
            adapter=absolute_path(settings.adapter),
            name=name,
            repository=is_repository,
            dequantize=settings.dequantize,
            dtype=settings.dtype and DTYPES[settings.dtype],
            max_shard_bytes=max_shard_bytes,
            overwrite=settings.overwrite,
        )
        run_work(fuse(options), quiet=settings.quiet)


def main() -> None:
    """Run the program with the arguments of the command line."""
    open_streams()
    app(prog_name=_PROGRAM)
