"""What the two programs share: options, where a result goes, and the work behind a progress bar.

Imports of the array library are inside the functions: `--help` and usage errors answer at once.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from mlx_diffgemma.errors import ConvertError

if TYPE_CHECKING:
    from mlx_diffgemma_convert.output import Event

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kMG]B)", re.IGNORECASE)
FACTORS = {"kb": 1_000, "mb": 1_000_000, "gb": 1_000_000_000}

Destination = Annotated[Path, typer.Argument(metavar="DST", help="The folder to write.")]
ShardSize = Annotated[str, typer.Option(metavar="SIZE", help="Of one weights file, as in 500MB.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of the Hub repository.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace DST where it is a DiffusionGemma.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table, no warnings.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def parse_size(text: str) -> int:
    """The bytes that --max-shard-size asks for. Raises typer.BadParameter."""
    match = SIZE.fullmatch(text.strip())
    value = float(match["number"]) * FACTORS[match["unit"].lower()] if match else 0
    if value < 1:
        raise typer.BadParameter(f"{text!r} is no size: write one as 500MB or 5GB", param_hint="--max-shard-size")
    return int(value)


def absolute(destination: Path) -> Path:
    """The path of a folder to write. Raises ConvertError for a home that does not exist."""
    try:
        return destination.expanduser().absolute()
    except RuntimeError as error:
        raise ConvertError(f"{destination} is no place for a folder: {error}") from None


def show(events: Generator[Event], *, quiet: bool) -> None:
    """Run the work behind a progress bar, then print the table."""
    from rich.console import Console

    from mlx_diffgemma_convert import screen

    with _interrupted_once(), closing(events):
        finished = screen.watch(events, console=Console(stderr=True), quiet=quiet)
    if not quiet:
        Console().print(screen.table(finished))


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
