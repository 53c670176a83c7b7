"""Schemas with instances, read from a file."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A value, and whether its author says that it is valid for the schema."""

    description: str
    valid: bool
    data: Any


@dataclass(frozen=True, kw_only=True)
class Case:
    """A schema, and instances of it."""

    name: str
    group: str
    schema: Any
    instances: tuple[Instance, ...]


def read_cases(file: Path) -> list[Case]:
    """Read a schema a line: name, group, schema, tests [{description, valid, data}]; anything else ends the program."""
    cases: list[Case] = []
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"{file} cannot be read: {error}")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            cases.append(_case(json.loads(line)))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            wanted = "give one object a line, with name, group, schema, and tests of description, valid, data"
            sys.exit(f"{file}, line {number} is no case ({type(error).__name__}: {error}): {wanted}")
    if not cases:
        sys.exit(f"{file} is empty: give a file of schemas, one a line")
    return cases


def _case(fields: Mapping[str, Any]) -> Case:
    instances = [
        Instance(description=test["description"], valid=test["valid"], data=test["data"]) for test in fields["tests"]
    ]
    return Case(name=fields["name"], group=fields["group"], schema=fields["schema"], instances=tuple(instances))
