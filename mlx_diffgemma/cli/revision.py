"""What `infill` and `edit` share: a document is read, its text revised while that is drawn, and the result delivered.

read_document -> Document -> session.stream_... -> events -> watched -> Infilled
Infilled -> stdout (text, diff, JSON) or the file; stderr (statistics); exit code
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlx_diffgemma.cli import options
from mlx_diffgemma.cli.console import INTERRUPTED, stdout_line
from mlx_diffgemma.cli.document import STDIN, Document, differences, read_document, write_document
from mlx_diffgemma.cli.interrupt import Interrupt
from mlx_diffgemma.cli.request import UNBOUNDED, loaded, refuse
from mlx_diffgemma.events import BlockCommitted, Event
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.infilling.template import Part

if TYPE_CHECKING:
    from mlx_diffgemma.infilling.result import Infilled
    from mlx_diffgemma.session import Session


@dataclass(frozen=True, kw_only=True)
class Revision:
    """What the command line asks for; a choice of None is left to the checkpoint."""

    file: str
    in_place: bool
    diff: bool
    json: bool
    live: bool
    quiet: bool
    model: str | None
    adapter: Path | None
    revision: str | None
    dtype: str | None
    choices: Mapping[str, Any]

    @property
    def is_silent(self) -> bool:
        """Whether the text itself is not what goes to stdout."""
        return self.in_place or self.diff or self.json

    def over(self, defaults: GenerationConfig) -> GenerationConfig:
        """`defaults` with what was chosen in their place. Raises OptionError."""
        return dataclasses.replace(defaults, **options.given(self.choices))


def opened(request: Revision) -> Document:
    """The document, once it is clear that the request can be met. Raises DiffGemmaError; SystemExit for misuse."""
    if sum((request.in_place, request.diff, request.json)) > 1:
        refuse("--in-place, --diff and --json exclude each other: give one of them")
    if request.file == STDIN and request.in_place:
        refuse("--in-place needs a file: what comes from stdin has no place")
    if request.file == STDIN and sys.stdin is not None and sys.stdin.isatty():
        refuse("no text: name a file or pipe it in")
    request.over(UNBOUNDED)
    return read_document(request.file)


def started(request: Revision) -> tuple[Session, GenerationConfig]:
    """The session that is asked for, and its options."""
    session = loaded(request)
    return session, request.over(session.defaults)


def deliver(request: Revision, document: Document, parts: Sequence[Part], events: Iterator[Event]) -> None:
    """Drain `events`, and print or write what comes of them. Raises DiffGemmaError; SystemExit after Ctrl-C."""
    from mlx_diffgemma.display.terminal import report
    from mlx_diffgemma.infilling.result import collected

    with Interrupt() as interrupt:
        result = collected(parts, watched(interrupt.until(events), request))
    if result is None:
        raise SystemExit(INTERRUPTED)
    if request.in_place:
        write_document(document, result.text)
    elif request.diff:
        write_text(differences(document, result.text))
    elif request.json:
        stdout_line(as_json(result))
    elif not draws(request):
        write_text(result.text)
    if not request.quiet and not request.json:
        report(result.stats, sys.stderr)


def draws(request: Revision) -> bool:
    """Whether the canvas is drawn; and with it the text, if it is the text that goes to stdout."""
    from mlx_diffgemma.display.terminal import can_draw

    stdout = sys.stderr if request.is_silent else sys.stdout
    return request.live and not request.quiet and not request.json and can_draw(stdout, sys.stderr)


def watched(events: Iterator[Event], request: Revision) -> Iterator[Event]:
    """`events`, drawn where they are; only the canvas, if stdout gets something else or nothing."""
    from mlx_diffgemma.display.terminal import drawn

    if not draws(request):
        return events
    if request.is_silent:
        return drawn(_untold(events), sys.stderr, sys.stderr)
    return drawn(events, sys.stdout, sys.stderr)


def _untold(events: Iterator[Event]) -> Iterator[Event]:
    """`events` whose blocks add no text, so that what is drawn leaves nothing behind."""
    for event in events:
        yield dataclasses.replace(event, text="", thought="") if isinstance(event, BlockCommitted) else event


def write_text(text: str) -> None:
    """Write `text` to stdout: byte for byte into a pipe, harmless and with a line of its own on a terminal."""
    if not sys.stdout.isatty():
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    elif text:
        from mlx_diffgemma.display.frame import printable

        sys.stdout.write(printable(text) + "\n" * (not text.endswith("\n")))
        sys.stdout.flush()


def as_json(result: Infilled) -> str:
    """One line: text, gaps, finish_reason, stats."""
    record = {
        "text": result.text,
        "gaps": result.gaps,
        "finish_reason": result.finish_reason,
        "stats": dataclasses.asdict(result.stats),
    }
    return json.dumps(record, ensure_ascii=False)
