"""`mlx_diffgemma.generate --batch FILE`: many prompts from a file, answered side by side, one JSON line each.

A line of the file is {"prompt": "..."} or {"messages": [...]}, and may set options of its own: {"prompt": "...",
"seed": 3, "max_tokens": 64}.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mlx_diffgemma.errors import DataError, OptionError
from mlx_diffgemma.events import Event, Finished
from mlx_diffgemma.files import json_lines
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.session import Prompt

PROMPTS = ("prompt", "messages")
OPTIONS = {field.name for field in dataclasses.fields(GenerationConfig)}


@dataclass(frozen=True, kw_only=True)
class Item:
    """One line of the file."""

    where: str
    prompt: Prompt
    options: Mapping[str, Any]

    def over(self, config: GenerationConfig) -> GenerationConfig:
        """`config` with the line's own options. Raises OptionError that names the line."""
        options = dict(self.options)
        for name in ("stop_tokens", "choices"):
            if isinstance(options.get(name), list):
                options[name] = tuple(options[name])
        try:
            return dataclasses.replace(config, **options)
        except OptionError as error:
            raise OptionError(f"{self.where}: {error}") from None


def read_items(file: Path) -> list[Item]:
    """The lines of a JSONL file, blank ones left out. Raises DataError that names file and line."""
    items = [_item(line.where, line.value) for line in json_lines(file)]
    if not items:
        raise DataError(f"{file}: no prompts in it")
    return items


def _item(where: str, row: object) -> Item:
    if not isinstance(row, dict):
        raise DataError(f"{where}: must be an object with a prompt, not {row!r:.60}")
    entries = cast("dict[str, Any]", row)
    given = [name for name in PROMPTS if name in entries]
    if len(given) != 1:
        raise DataError(f"{where}: give either prompt or messages")
    if unknown := [name for name in entries if name not in OPTIONS and name not in PROMPTS]:
        raise DataError(f"{where}: {unknown[0]!r} is no option: choose from {', '.join(sorted(OPTIONS))}")
    prompt = entries[given[0]]
    if not isinstance(prompt, str if given[0] == "prompt" else list):
        raise DataError(f"{where}: {given[0]} must be {'text' if given[0] == 'prompt' else 'a list'}")
    return Item(where=where, prompt=prompt, options={name: entries[name] for name in entries if name not in PROMPTS})


def answered(events: Iterable[tuple[int, Event]], done: Callable[[int], None]) -> Iterator[tuple[int, list[Event]]]:
    """Number and events of each finished answer, in order as far as it goes; `done` is told how many are finished.

    Where `events` end early, the answers that were finished out of order come last.
    """
    happened: dict[int, list[Event]] = {}
    finished: set[int] = set()
    following = 0
    for number, event in events:
        happened.setdefault(number, []).append(event)
        if isinstance(event, Finished):
            finished.add(number)
            done(following + len(finished))
        while following in finished:
            finished.remove(following)
            yield following, happened.pop(following)
            following += 1
    for number in sorted(finished):
        yield number, happened[number]
