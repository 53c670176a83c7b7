"""Many prompts from a file, answered side by side, one JSON line each: `mlx_diffgemma generate --batch FILE`.

A line of the file is {"prompt": "..."} or {"messages": [...]}, and may set options of its own: {"prompt": "...",
"seed": 3, "max_tokens": 64}. An id or a custom_id comes back with its answer.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mlx_diffgemma.cli.console import interrupted, stdout_line
from mlx_diffgemma.cli.document import STDIN
from mlx_diffgemma.cli.interrupt import Interrupt
from mlx_diffgemma.cli.prompt import choice_probabilities
from mlx_diffgemma.cli.request import Request, check_constraints, load_session
from mlx_diffgemma.constraint.spec import Choices
from mlx_diffgemma.errors import ConstraintError, DataError, EmptyAnswerError, OptionError, PromptError
from mlx_diffgemma.events import BlockCommitted, Event, Finished
from mlx_diffgemma.files import json_lines, parsed_lines
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.generation_options import PERMISSIVE, configured, current_names, unknown_option
from mlx_diffgemma.text.messages import chat_messages

if TYPE_CHECKING:
    from mlx_diffgemma.display.bar import Bar
    from mlx_diffgemma.session import Prompt

_PROMPTS = ("prompt", "messages")
_IDS = ("id", "custom_id")
_NAMED = 5
"""Lines with empty answers that the closing message names; the others are counted."""


@dataclass(frozen=True, kw_only=True)
class BatchLine:
    """One line of the file: a prompt and its own options. `where` names file and line in messages."""

    where: str
    prompt: Prompt
    options: Mapping[str, Any]
    ids: Mapping[str, str | int] = field(default_factory=dict[str, str | int])
    """what the user calls the line"""

    def over(self, config: GenerationConfig) -> GenerationConfig:
        """Return `config` with the line's own options. Raises OptionError or ConstraintError that names the line."""
        try:
            return configured(config, self.options)
        except (OptionError, ConstraintError) as error:
            raise type(error)(f"{self.where}: {error}") from None


def read_batch(file: Path) -> list[BatchLine]:
    """Read the lines of a JSONL file, or of stdin for "-"; blank lines are skipped.

    Raises DataError that names file and line.
    """
    name = "stdin" if str(file) == STDIN else str(file)
    if name == str(file):
        read = json_lines(file)
    else:
        read = parsed_lines(b"" if sys.stdin is None else sys.stdin.buffer.read(), name)
    lines = [_line(line.where, line.value) for line in read]
    if not lines:
        raise DataError(f"{name} has no prompts: it needs one JSON object per line, with prompt or messages")
    return lines


def _line(where: str, row: object) -> BatchLine:
    if not isinstance(row, dict):
        raise DataError(f"{where}: must be an object with a prompt, not {row!r:.60}")
    entries = cast("dict[str, Any]", row)
    prompts = [name for name in _PROMPTS if name in entries]
    if len(prompts) != 1:
        raise DataError(f"{where}: give either prompt or messages")
    ids = {name: entries[name] for name in _IDS if entries.get(name) is not None}
    for name, value in ids.items():
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise DataError(f"{where}: {name} must be a text or a whole number, not {value!r:.60}")
    options = current_names({name: value for name, value in entries.items() if name not in (*_PROMPTS, *_IDS)})
    for name in options:
        if wrong := unknown_option(name):
            raise DataError(f"{where}: {wrong}")
    prompt = entries[prompts[0]]
    if not isinstance(prompt, str if prompts[0] == "prompt" else list):
        raise DataError(f"{where}: {prompts[0]} must be {'text' if prompts[0] == 'prompt' else 'a list'}")
    try:
        chat_messages(prompt, None)
    except PromptError as error:
        raise DataError(f"{where}: {error}") from None
    return BatchLine(where=where, prompt=prompt, options=options, ids=ids)


def answer_file(request: Request, file: Path, batch_size: int | None) -> None:
    """Answer the prompts of a file side by side, a JSON line each. Raises DiffGemmaError; SystemExit after Ctrl-C."""
    from mlx_diffgemma.completion import gather
    from mlx_diffgemma.display.bar import Bar
    from mlx_diffgemma.generation.prefixes import Prefixes
    from mlx_diffgemma.session import BATCH_SIZE

    # Everything is checked first: gigabytes are not read for a request that cannot be met.
    lines = read_batch(file)
    check_constraints(line.over(request.over(PERMISSIVE)).constraint for line in lines)
    session = load_session(request.model, quiet=request.quiet)
    configs = [line.over(request.over(session.defaults)) for line in lines]
    prompts = [line.prompt for line in lines]
    printed, empty = 0, list[str]()
    with Interrupt() as interrupt, Bar("answers", len(lines), sys.stderr, shown=not request.quiet) as bar:
        # What is read for the choices of a line is not read again for its answer.
        prefix = Prefixes() if any(isinstance(each.constraint, Choices) for each in configs) else None
        until_noted = takewhile(lambda _: not interrupt.noted, zip(prompts, configs, strict=True))
        choices = [choice_probabilities(session, *asked, prefix) for asked in until_noted]
        events = session.stream_many(prompts, configs, batch_size=batch_size or BATCH_SIZE, prefix=prefix)
        until_interrupt = takewhile(lambda _: not interrupt.noted, events)
        for index, answer in in_order(_counted(until_interrupt, bar)):
            completion = gather(answer, seed=configs[index].seed)
            if completion.is_empty and not configs[index].allow_empty:
                empty.append(lines[index].where)
            with bar.hidden():
                stdout_line(completion.to_json(index=index, choices=choices[index], ids=lines[index].ids))
            printed += 1
    if interrupt.noted:
        interrupted(f"{printed} of {len(lines)} answers", quiet=request.quiet)
    if empty:
        shown = "; ".join(empty[:_NAMED]) + (f" and {len(empty) - _NAMED} more" if len(empty) > _NAMED else "")
        verb = "is" if len(empty) == 1 else "are"
        raise EmptyAnswerError(
            f"{len(empty)} of {len(lines)} answers {verb} empty: {shown} (--allow-empty accepts empty answers)"
        )


def _counted(events: Iterable[tuple[int, Event]], bar: Bar) -> Iterator[tuple[int, Event]]:
    """Pass `events` on, and show how many answers are finished and how many tokens are written."""
    finished = tokens = 0
    for number, event in events:
        if isinstance(event, BlockCommitted):
            tokens += len(event.tokens)
        finished += isinstance(event, Finished)
        bar.show(finished, f"answers, {tokens:,} tokens" if tokens else None)
        yield number, event


def in_order(events: Iterable[tuple[int, Event]]) -> Iterator[tuple[int, list[Event]]]:
    """Yield number and events of each finished answer in the order of the prompts.

    If `events` end early, finished answers after a gap in the order come last.
    """
    events_of: dict[int, list[Event]] = {}
    waiting: set[int] = set()
    following = 0
    for number, event in events:
        events_of.setdefault(number, []).append(event)
        if isinstance(event, Finished):
            waiting.add(number)
        while following in waiting:
            waiting.remove(following)
            yield following, events_of.pop(following)
            following += 1
    for number in sorted(waiting):
        yield number, events_of[number]
