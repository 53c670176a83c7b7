"""The program mlx_diffgemma.convert: options -> Options, then a progress bar and the closing table.

Imports of the array library are inside the function: `--help` and usage errors answer at once.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn

import typer

from mlx_diffgemma.console import open_streams, reported
from mlx_diffgemma.errors import ConvertError, OptionError, QuantizationError
from mlx_diffgemma_convert.recipe import Kind, Recipe, choose, make_recipe, parse_setting

if TYPE_CHECKING:
    from mlx_diffgemma_convert.conversion import Options

NAME = "mlx_diffgemma.convert"
DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kMG]B)", re.IGNORECASE)
FACTORS = {"kb": 1_000, "mb": 1_000_000, "gb": 1_000_000_000}

app = typer.Typer(name=NAME, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


Source = Annotated[
    str, typer.Argument(metavar="SRC", help="A folder, or a Hub repository such as google/diffusiongemma-26B-A4B-it.")
]
Destination = Annotated[Path, typer.Argument(metavar="DST", help="The folder to write.")]
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
ShardSize = Annotated[str, typer.Option(metavar="SIZE", help="Of one weights file, as in 500MB.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the Hub repository.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace DST where it is a converted model.")]
UploadRepo = Annotated[str | None, typer.Option(metavar="USER/NAME", help="Send the result to this Hub repository.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table, no warnings.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


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
    max_shard_bytes = _bytes(max_shard_size)
    with reported(debug=debug, quiet=quiet):
        from mlx_diffgemma.hub import resolve
        from mlx_diffgemma_convert import conversion, upload

        if upload_repo is not None:
            upload.check_login(upload_repo)
        folder = resolve(source, revision)
        repository = not Path(source).expanduser().is_dir()
        options = conversion.Options(
            source=folder,
            destination=_absolute(destination),
            recipe=chosen,
            name=source if repository else folder.resolve().name,
            repository=repository,
            target=upload_repo,
            dtype=DTYPES[dtype],
            max_shard_bytes=max_shard_bytes,
            overwrite=overwrite,
        )
        _show(options, quiet=quiet)
        if upload_repo is not None:
            typer.echo(upload.upload(options.destination, upload_repo))


def _show(options: Options, *, quiet: bool) -> None:
    """Convert behind a progress bar, then print the table."""
    from rich.console import Console

    from mlx_diffgemma_convert import conversion, screen

    with _interrupted_once(), closing(conversion.convert(options)) as events:
        lines = screen.watch(events, console=Console(stderr=True), quiet=quiet)
    if not quiet:
        Console().print(screen.table(lines))


def _absolute(destination: Path) -> Path:
    try:
        return destination.expanduser().absolute()
    except RuntimeError as error:
        raise ConvertError(f"{destination} is no place for a folder: {error}") from None


@contextmanager
def _interrupted_once() -> Generator[None]:
    """Let the first Ctrl-C stop the work, and no further one disturb the stopping: threads have to end their pieces."""

    def stop(*_: object) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted: the same command goes on where it stopped", err=True)
        raise
    finally:
        signal.signal(signal.SIGINT, before)


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


def _bytes(text: str) -> int:
    match = SIZE.fullmatch(text.strip())
    value = float(match["number"]) * FACTORS[match["unit"].lower()] if match else 0
    if value < 1:
        raise typer.BadParameter(f"{text!r} is no size: write one as 500MB or 5GB", param_hint="--max-shard-size")
    return int(value)


def main() -> None:
    """Run the program on the command line's arguments."""
    open_streams()
    app(prog_name=NAME)
