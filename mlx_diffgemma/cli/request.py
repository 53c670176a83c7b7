"""What the programs that ask a model share: which one is asked, and how a request that cannot be meant ends."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, Protocol

from mlx_diffgemma.checkpoint.hub import DEMO
from mlx_diffgemma.cli.console import complain
from mlx_diffgemma.constraint.spec import Matching
from mlx_diffgemma.generation_config import GenerationConfig

if TYPE_CHECKING:
    from mlx_diffgemma.session import Session

MISUSED = 2
"""Exit code of usage errors, typer's too."""
NO_MODEL = "no --model is named: this is the demo, which knows sudokus, sums, JSON, counting, sorting and functions"
UNBOUNDED = GenerationConfig(t_min=0.0, t_max=sys.float_info.max)
"""Allows every option that some checkpoint's defaults allow."""


class Asked(Protocol):
    """Which model a command line asks for."""

    @property
    def model(self) -> str | None: ...
    @property
    def adapter(self) -> Path | None: ...
    @property
    def revision(self) -> str | None: ...
    @property
    def dtype(self) -> str | None: ...
    @property
    def quiet(self) -> bool: ...


def loaded(request: Asked) -> Session:
    """The session with the model that was asked for, or the demo."""
    from mlx_diffgemma.display.terminal import passing_note

    if request.model is None and not request.quiet:
        print(NO_MODEL, file=sys.stderr)  # noqa: T201
    model = request.model or DEMO
    with nullcontext() if request.quiet else passing_note(f"loading {model}", sys.stderr):
        from mlx_diffgemma.loading import load

        return load(model, revision=request.revision, dtype=request.dtype, adapter=request.adapter)


def require_usable(source: Matching) -> None:
    """Raise ConstraintError for a pattern or a schema that cannot be used with any model."""
    from mlx_diffgemma.constraint.spec import pattern_of

    pattern = pattern_of(source)
    if pattern is not None:
        from mlx_diffgemma.constraint.byte_automaton import compiled

        compiled(pattern)


def refuse(message: str) -> NoReturn:
    """End with a usage error."""
    complain(f"{message} (--help lists all options)")
    raise SystemExit(MISUSED)
