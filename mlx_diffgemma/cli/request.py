"""What the programs that ask a model share: the options that were chosen, the session, and usage errors."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mlx_diffgemma.checkpoint.hub import DEMO
from mlx_diffgemma.cli.console import MISUSED, refusal
from mlx_diffgemma.cli.options import ModelOptions
from mlx_diffgemma.constraint.spec import Constraint, JsonSchema
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.generation_options import configured, require_usable

if TYPE_CHECKING:
    from mlx_diffgemma.session import Session

_logger = logging.getLogger("mlx_diffgemma")

NO_MODEL = "no --model is named: this is the demo, which knows sudokus, sums, JSON, counting, sorting and functions"


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a command line asks of which model; options that were not given are the checkpoint's own."""

    model: ModelOptions
    chosen: Mapping[str, Any]
    quiet: bool = False

    def over(self, defaults: GenerationConfig) -> GenerationConfig:
        """Return `defaults` with the chosen options in their place. Raises OptionError, ConstraintError."""
        return configured(defaults, self.chosen)


def check_constraints(constraints: Iterable[Constraint | None]) -> None:
    """Raise ConstraintError for a constraint that cannot be used; say once on stderr what answers will not have.

    That is what a schema allows and no automaton can hold, and with --debug which keywords are taken for annotations.
    """
    notes: dict[str, int] = {}
    for constraint in constraints:
        require_usable(constraint)
        if isinstance(constraint, JsonSchema):
            notes |= dict.fromkeys(constraint.notes, logging.INFO)
            ignored = (f"the keyword {name!r} is none of JSON schema's: it is ignored" for name in constraint.unknown)
            notes |= dict.fromkeys(ignored, logging.DEBUG)
    for note, level in notes.items():
        _logger.log(level, "note: json_schema: %s", note)


def load_session(model: ModelOptions, *, quiet: bool) -> Session:
    """Return a session with the model that was asked for, or the demo. Raises DiffGemmaError."""
    from mlx_diffgemma.display.bar import Bar

    if (model.model or "").isdecimal() and not Path(str(model.model)).exists():
        refuse(f"--model {model.model} is a number: did you mean -n {model.model}, the maximum number of tokens?")
    # Also when quiet: answers of another model than one thinks are no results. `--model demo` says it is meant.
    if model.model is None:
        print(NO_MODEL, file=sys.stderr)  # noqa: T201
    name = model.model or DEMO
    with Bar(f"loading {name}", 0, sys.stderr, shown=not quiet) as bar:
        from mlx_diffgemma.loading import load

        return load(
            name,
            revision=model.revision,
            dtype=model.dtype,
            adapter=model.adapter,
            progress=bar.passing,
            force=model.force,
        )


def refuse(message: str) -> NoReturn:
    """End the program with a usage error."""
    refusal(message)
    raise SystemExit(MISUSED)
