"""What the programs `convert` and `fuse` share: common options, reading option values, and running the work.

The array library is imported inside functions, so that `--help` and usage errors answer at once.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeAlias

import typer

from mlx_diffgemma.cli.options import revision_option
from mlx_diffgemma.errors import ConvertError
from mlx_diffgemma.files import home_expanded
from mlx_diffgemma.option import option
from mlx_diffgemma_convert.recipe import DTYPE_NAMES

if TYPE_CHECKING:
    from mlx_diffgemma_convert.output import WriteEvent

DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
"""The names of dtypes on the command line -> in safetensors files."""
SIZE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[kMG]B)", re.IGNORECASE)
UNITS = {"kb": 1_000, "mb": 1_000_000, "gb": 1_000_000_000}

RESULT = "Result"
Destination: TypeAlias = Annotated[Path, typer.Argument(metavar="DST", help="Folder to write.")]


@dataclass(frozen=True, kw_only=True)
class ResultOptions:
    """The options of both programs: which revision to read, and how to write the result."""

    revision: str | None = revision_option()
    max_shard_size: str = option("5GB", "Largest size of one weights file.", RESULT, metavar="SIZE")
    overwrite: bool = option(False, "Replace DST if it holds a DiffusionGemma.", RESULT)

    @property
    def max_shard_bytes(self) -> int:
        """The largest size of a file in bytes. Raises typer.BadParameter."""
        return parse_size(self.max_shard_size, "--max-shard-size", "500MB or 5GB")


def parse_size(text: str, flag: str, example: str) -> int:
    """Read the bytes of an option. Raises typer.BadParameter."""
    match = SIZE.fullmatch(text.strip())
    value = float(match["number"]) * UNITS[match["unit"].lower()] if match else 0
    if value < 1:
        raise typer.BadParameter(f"{text!r} is not a size: write it as {example}", param_hint=flag)
    return int(value)


def absolute_path(folder: Path) -> Path:
    """Return an absolute path, with ~ replaced. Raises ConvertError for a user that does not exist."""
    return home_expanded(folder, ConvertError).absolute()


def source_name(source: str, folder: Path) -> tuple[str, bool]:
    """Return what a model card calls a source, and whether that is a Hub repository; `folder` is where it was found."""
    is_repository = not Path(source).expanduser().is_dir()
    return source if is_repository else folder.resolve().name, is_repository


def run_work(events: Generator[WriteEvent], *, quiet: bool) -> None:
    """Run the work behind a progress bar, then print the table."""
    from rich.console import Console

    from mlx_diffgemma_convert.screen import show_progress, summary_table

    with _first_interrupt_only(), closing(events):
        finished = show_progress(events, sys.stderr, quiet=quiet)
    if not quiet:
        Console().print(summary_table(finished))


@contextmanager
def _first_interrupt_only() -> Generator[None]:
    """Stop the work at the first Ctrl-C and ignore later ones, which would disturb the threads ending their chunks."""

    def stop(*_: object) -> NoReturn:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted: run the same command again to resume", err=True)
        raise
    finally:
        signal.signal(signal.SIGINT, before)
