"""What a model is asked: a user's own prompts, one JSON object per line.

    {"name": "capital", "prompt": "What is the capital of Peru?", "check": {"regex": "Lima"}, "max_tokens": 64}

`name` (the number of the line) and `max_tokens` (what the model's own options say) may be left out. The check is one of
those in `checks`. The built-in prompts are in `prompts`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mlx_diffgemma.benchmark.checks import Check, read_check
from mlx_diffgemma.errors import DataError, require_unicode
from mlx_diffgemma.files import json_lines

KEYS = {"name", "prompt", "check", "max_tokens"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One prompt and the check of its answers; `max_tokens` of None is left to the model's options."""

    name: str
    prompt: str
    check: Check
    max_tokens: int | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Suite:
    """Prompts that are asked one after the other."""

    name: str
    cases: tuple[Case, ...]


def read_suite(path: Path) -> Suite:
    """The prompts in a file. Raises DataError naming the file and the line."""
    cases: list[Case] = []
    for number, where, record in json_lines(path):
        case = read_case(where, record, str(number))
        if any(case.name == other.name for other in cases):
            raise DataError(f"{where}: a second prompt of the name {case.name!r}")
        cases.append(case)
    if not cases:
        raise DataError(f"{path} has no prompts: it needs one JSON object per line, with prompt and check")
    return Suite(name=path.name, cases=tuple(cases))


def read_case(where: str, record: object, name: str) -> Case:
    """The prompt that a record describes, `name` where it has none. Raises DataError beginning with `where`."""
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: a prompt is a JSON object, not a {type(record).__name__}")
    entries = cast("Mapping[str, Any]", record)
    if unknown := sorted(entries.keys() - KEYS):
        raise DataError(f"{where}: unknown: {', '.join(unknown)}; there are {', '.join(sorted(KEYS))}")
    for key, text in (("prompt", entries.get("prompt")), ("name", entries.get("name", name))):
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{where}: {key} must be text that says something, not {text!r}")
        require_unicode(text, f"{where}: {key}", DataError)
    if "check" not in entries:
        raise DataError(f'{where}: no check; {{"regex": "."}} accepts every answer that is not empty')
    longest = entries.get("max_tokens")
    if longest is not None and (isinstance(longest, bool) or not isinstance(longest, int) or longest < 1):
        raise DataError(f"{where}: max_tokens must be a whole number, at least 1, not {longest!r}")
    return Case(
        name=entries.get("name", name),
        prompt=entries["prompt"],
        check=read_check(where, entries["check"]),
        max_tokens=longest,
    )
