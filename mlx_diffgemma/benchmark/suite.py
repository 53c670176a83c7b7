"""Read a suite: what a benchmark asks, one JSON object per line.

    {"name": "capital", "prompt": "What is the capital of Peru?", "check": {"regex": "Lima"}, "max_tokens": 64}
    {"prompt": "Give JSON: Ana is 34.", "max_steps": 8, "check": {"json": {"name": "Ana", "age": 34}}}
    {"messages": [{"role": "user", "content": "Hello"}], "check": {"regex": "(?i)hello"}}
    {"template": "12 13 <gap:4> 16", "prompt": "Count from 12 to 16", "check": {"exact": "12 13 14 15 16"}}

    check      whether an answer is accepted: see `checks`
    prompt     what the model is asked; beside a template the instruction, which may be left out
    messages   instead of prompt: a conversation that ends with what is asked
    template   a text whose gaps are filled: <gap> is a gap of any length, <gap:3> of 3 tokens, <gap:2-5> of 2 to 5
    name       the number of the line if it is left out
    group      prompts of one group share a row of the report
    seed       added to the seeds of the attempts at this prompt

Every other key is an option of the generation, named as in GenerationConfig: max_tokens, max_steps, regex, choices, ...
It replaces the checkpoint's option, and an option of the command line replaces both. In a template, regex, json_schema
and choices apply to the text of every gap. The built-in suites are in `prompts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from mlx_diffgemma.benchmark.checks import Check, read_check
from mlx_diffgemma.errors import ConstraintError, DataError, OptionError, PromptError, TemplateError, require_unicode
from mlx_diffgemma.files import json_lines
from mlx_diffgemma.generation_config import ConstraintOptions, GenerationConfig
from mlx_diffgemma.generation_options import PERMISSIVE, configured, require_usable
from mlx_diffgemma.infilling.template import Part, matched, parse
from mlx_diffgemma.option import option_fields
from mlx_diffgemma.text.messages import conversation

KEYS = ("name", "group", "prompt", "messages", "template", "check", "seed", "max_tokens")
"""The keys of a line that are no options of a generation or that have a meaning of their own."""
CONSTRAINTS = tuple(option_fields(ConstraintOptions))
_OPTIONS = set(option_fields(GenerationConfig))


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One prompt or template, and the check of its answers."""

    name: str
    prompt: str | None
    """None only beside a template or messages"""
    check: Check
    group: str | None = None
    messages: tuple[Mapping[str, str], ...] = ()
    """the conversation that takes the place of a prompt: role and content of each turn"""
    template: tuple[Part, ...] = ()
    max_tokens: int | None = None
    """None leaves it to the model's options."""
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """options of the generation besides max_tokens and seed"""

    @property
    def row(self) -> str:
        """The name of its row in the report."""
        return self.name if self.group is None else self.group

    @property
    def asked(self) -> str | Sequence[Mapping[str, str]]:
        """What is asked: a conversation, or a prompt."""
        return self.messages or self.prompt or ""

    @property
    def conversation(self) -> list[Mapping[str, str]]:
        """What is asked as messages."""
        return list(self.messages) or [{"role": "user", "content": self.prompt or ""}]


@dataclass(frozen=True, kw_only=True, eq=False)
class Suite:
    """Prompts that are asked one after the other."""

    name: str
    cases: tuple[Case, ...]


def read_suite(path: Path) -> Suite:
    """Read a suite from a file. Raises DataError that names the file and the line."""
    cases: dict[str, Case] = {}
    for number, where, record in json_lines(path):
        case = read_case(where, record, str(number))
        if case.name in cases:
            raise DataError(f"{where}: a second prompt of the name {case.name!r}")
        cases[case.name] = case
    if not cases:
        raise DataError(f"{path} has no prompts: it needs one JSON object per line, with prompt and check")
    return Suite(name=path.name, cases=tuple(cases.values()))


def read_case(where: str, record: object, name: str) -> Case:
    """Return the case that a record describes; `name` is its name if it has none. Raises DataError.

    where: the file and the line, for messages.
    """
    if not isinstance(record, Mapping):
        raise DataError(f"{where}: a prompt is a JSON object, not a {type(record).__name__}")
    entries = cast("Mapping[str, Any]", record)
    if unknown := sorted(entries.keys() - _OPTIONS - set(KEYS)):
        raise DataError(f"{where}: unknown: {', '.join(unknown)}; there are {', '.join(sorted(_OPTIONS | set(KEYS)))}")
    texts = {key: _text(where, key, entries[key]) for key in ("name", "group", "prompt", "template") if key in entries}
    messages = _messages(where, entries.get("messages"))
    if messages and texts.keys() & {"prompt", "template"}:
        raise DataError(f"{where}: give messages alone, or a prompt or a template without them")
    if not messages and "prompt" not in texts and "template" not in texts:
        _text(where, "prompt", None)
    if "check" not in entries:
        raise DataError(f'{where}: no check; {{"regex": "."}} accepts every answer that is not empty')
    options: dict[str, Any] = {key: _listed(value) for key, value in entries.items() if key in _OPTIONS}
    max_tokens, seed = options.pop("max_tokens", None), options.pop("seed", 0)
    if max_tokens is not None and (isinstance(max_tokens, bool) or not isinstance(max_tokens, int) or max_tokens < 1):
        raise DataError(f"{where}: max_tokens must be a whole number, at least 1, not {max_tokens!r}")
    try:
        constraint = configured(PERMISSIVE, {**options, "seed": seed}).constraint
        require_usable(constraint)
        template = matched(parse(texts["template"]), constraint) if "template" in texts else ()
    except (OptionError, TemplateError, ConstraintError) as error:
        raise DataError(f"{where}: {error}") from None
    return Case(
        name=texts.get("name", name),
        group=texts.get("group"),
        prompt=texts.get("prompt"),
        messages=messages,
        template=template,
        check=read_check(where, entries["check"]),
        max_tokens=max_tokens,
        seed=cast("int", seed),
        options={key: value for key, value in options.items() if not template or key not in CONSTRAINTS},
    )


def _text(where: str, key: str, value: object) -> str:
    """Return the value of a key that holds text. Raises DataError."""
    if not isinstance(value, str) or not value.strip():
        raise DataError(f"{where}: {key} must be text that says something, not {value!r}")
    require_unicode(value, f"{where}: {key}", DataError)
    return value


def _messages(where: str, value: object) -> tuple[Mapping[str, str], ...]:
    """Return the messages of a line, none if it has none. Raises DataError."""
    if value is None:
        return ()
    try:
        return tuple({"role": turn.role, "content": turn.text} for turn in conversation(value))
    except PromptError as error:
        raise DataError(f"{where}: {error}") from None


def _listed(value: object) -> object:
    """Return a list as the tuple that GenerationConfig wants, any other value as it is."""
    return tuple(cast("list[object]", value)) if isinstance(value, list) else value
