"""The program mlx_diffgemma.fuse: options -> Options, then a progress bar and the closing table.

Imports of the array library are inside the function: `--help` and usage errors answer at once.
"""

from __future__ import annotations

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
    absolute,
    parse_size,
    show,
)

NAME = "mlx_diffgemma.fuse"

app = typer.Typer(name=NAME, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


Model = Annotated[
    str, typer.Argument(metavar="MODEL", help="What the adapter was trained on: a folder or a Hub repository.")
]
AdapterFolder = Annotated[
    Path,
    typer.Option("--adapter", metavar="DIR", help="Folder with adapters.safetensors and adapter_config.json."),
]
Dequantize = Annotated[
    bool, typer.Option("--dequantize", help="Unpack a quantized model: the result is in bfloat16, in Google's layout.")
]
Dtype = Annotated[
    Literal["bfloat16", "float32"] | None,
    typer.Option(help="Of a result that is not quantized [default: the model's own]."),
]


# One parameter per option is how typer reads them.
@app.command(no_args_is_help=True)
def fuse(  # noqa: PLR0917
    model: Model,
    destination: Destination,
    adapter: AdapterFolder,
    dequantize: Dequantize = False,
    dtype: Dtype = None,
    max_shard_size: ShardSize = "5GB",
    revision: Revision = None,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Write MODEL with the changes of an adapter added into its weights, a piece at a time.

    A quantized model is quantized again as it was, any other keeps Google's layout. An interrupted run goes on where it
    stopped when the same command is run again.
    """
    max_shard_bytes = parse_size(max_shard_size)
    with reported(debug=debug, quiet=quiet):
        from mlx_diffgemma.checkpoint.hub import model_folder
        from mlx_diffgemma_convert import fusion

        folder = model_folder(model, revision)
        repository = not Path(model).expanduser().is_dir()
        options = fusion.Options(
            source=folder,
            destination=absolute(destination),
            adapter=absolute(adapter),
            name=model if repository else folder.resolve().name,
            repository=repository,
            dequantize=dequantize,
            dtype=dtype and DTYPES[dtype],
            max_shard_bytes=max_shard_bytes,
            overwrite=overwrite,
        )
        show(fusion.fuse(options), quiet=quiet)


def main() -> None:
    """Run the program on the command line's arguments."""
    open_streams()
    app(prog_name=NAME)
