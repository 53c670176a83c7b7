"""What `infill` and `edit` share: a document is read, its text revised while that is drawn, and the result delivered.

read_document -> Document -> session.stream_... -> events -> watched -> Infilled
Infilled -> stdout (text, diff, JSON) or the file; stderr (statistics); exit code
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from mlx_diffgemma.cli.console import interrupted, stdout_line
from mlx_diffgemma.cli.document import STDIN, Document, differences, read_document, write_document
from mlx_diffgemma.cli.encoding import encoding_option
from mlx_diffgemma.cli.interrupt import Interrupt
from mlx_diffgemma.cli.options import OUTPUT, Chosen
from mlx_diffgemma.cli.replacement import require_replaceable
from mlx_diffgemma.cli.request import Request, load_session, refuse
from mlx_diffgemma.errors import EmptyAnswerError
from mlx_diffgemma.events import BlockCommitted, Event
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.generation_options import PERMISSIVE
from mlx_diffgemma.infilling.template import Gap, Part
from mlx_diffgemma.option import option

if TYPE_CHECKING:
    from mlx_diffgemma.infilling.result import Infilled
    from mlx_diffgemma.session import Session

_ANSWERS_ONLY = (
    "thinking",
    "raw",
    "stop_tokens",
    "stop",
    "regex",
    "json_schema",
    "choices",
    "until_end",
    "first_canvas",
    "trim",
    "verify",
    "mode",
    "top_p",
)
"""Options that a text with gaps has no use for, or has for each gap."""

InfillChoices: TypeAlias = Annotated[dict[str, Any], Chosen(GenerationConfig, without=_ANSWERS_ONLY)]
EditChoices: TypeAlias = Annotated[dict[str, Any], Chosen(GenerationConfig, without=(*_ANSWERS_ONLY, "max_tokens"))]
"""The generation options that were given; how long an edit may be is said by --gap-tokens alone."""


@dataclass(frozen=True, kw_only=True)
class RevisionOptions:
    """Where the result goes."""

    in_place: bool = option(False, "Write the result into the file.", OUTPUT)
    diff: bool = option(False, "Print what changes, as a unified diff.", OUTPUT)
    live: bool = option(True, "Draw the canvas while it is denoised, on a terminal.", OUTPUT)
    json: bool = option(False, "Print one JSON object with text, gaps and statistics.", OUTPUT)
    encoding: str | None = encoding_option()

    @property
    def leaves_text_out(self) -> bool:
        """Whether something other than the text goes to stdout."""
        return self.in_place or self.diff or self.json


@dataclass(frozen=True, kw_only=True)
class Revision:
    """What a command line asks for: the file, what of which model, and where the result goes."""

    file: str
    request: Request
    output: RevisionOptions


def open_document(revision: Revision) -> Document:
    """Read the document, if the request can be met. Raises DiffGemmaError; SystemExit for usage errors."""
    output = revision.output
    if sum((output.in_place, output.diff, output.json)) > 1:
        refuse("--in-place, --diff and --json exclude each other: give one of them")
    if revision.file == STDIN and output.in_place:
        refuse("--in-place needs a file: stdin cannot be written to")
    if revision.file == STDIN and sys.stdin is not None and sys.stdin.isatty():
        refuse("no text: name a file or pipe it in")
    revision.request.over(PERMISSIVE)
    if output.in_place:
        require_replaceable(revision.file)
    return read_document(revision.file, output.encoding)


def start(revision: Revision) -> tuple[Session, GenerationConfig]:
    """Load the model, and return its session with the options."""
    request = revision.request
    session = load_session(request.model, quiet=request.quiet)
    return session, request.over(session.defaults)


def deliver(
    revision: Revision, document: Document, parts: Sequence[Part], events: Iterator[Event], config: GenerationConfig
) -> None:
    """Drain `events`, and print or write the result. Raises DiffGemmaError; SystemExit after Ctrl-C."""
    from mlx_diffgemma.display.terminal import report
    from mlx_diffgemma.infilling.result import gather_filled

    output, quiet = revision.output, revision.request.quiet
    with Interrupt() as interrupt:
        result = gather_filled(parts, _watched(interrupt.until(events), revision), seed=config.seed)
    if result.finish_reason == "interrupted":
        gaps = sum(isinstance(part, Gap) for part in parts)
        interrupted(f"{len(result.gaps)} of {gaps} gap{'s' * (gaps != 1)}: nothing is written", quiet=quiet)
    empty = result.finish_reason == "empty" and not config.allow_empty
    if not (empty and output.in_place):
        _put_out(revision, document, result)
    if empty:
        left = f", {document.name} is left as it is" if output.in_place else ""
        raise EmptyAnswerError(f"the model wrote nothing{left}: ask in other words (--allow-empty accepts that)")
    if not quiet and not output.json:
        report(result.stats, sys.stderr)


def _put_out(revision: Revision, document: Document, result: Infilled) -> None:
    """Print the result on stdout, or write it into the file. Raises DocumentError."""
    output = revision.output
    if output.in_place:
        write_document(document, result.text)
    elif output.diff:
        write_text(differences(document, result.text))
    elif output.json:
        stdout_line(result.to_json())
    elif not _draws(revision):
        write_text(result.text)


def _draws(revision: Revision) -> bool:
    """Whether the canvas is drawn; the text is drawn with it if the text goes to stdout."""
    from mlx_diffgemma.display.terminal import can_draw

    output = revision.output
    stdout = sys.stderr if output.leaves_text_out else sys.stdout
    return output.live and not revision.request.quiet and not output.json and can_draw(stdout, sys.stderr)


def _watched(events: Iterator[Event], revision: Revision) -> Iterator[Event]:
    """Return `events`, drawn if the canvas is drawn; of a text that does not go to stdout only the canvas is drawn."""
    from mlx_diffgemma.display.terminal import drawn

    if not _draws(revision):
        return events
    if revision.output.leaves_text_out:
        return drawn(_without_text(events), sys.stderr, sys.stderr)
    return drawn(events, sys.stdout, sys.stderr)


def _without_text(events: Iterator[Event]) -> Iterator[Event]:
    """Yield `events` with blocks that add no text, so that the drawing leaves nothing on the screen."""
    for event in events:
        yield dataclasses.replace(event, text="", thought="") if isinstance(event, BlockCommitted) else event


def write_text(text: str) -> None:
    """Write `text` to stdout: byte for byte into a pipe, printable and with a final newline on a terminal."""
    if not sys.stdout.isatty():
        # A diff has the name of the file, which may have bytes that are no text.
        sys.stdout.buffer.write(text.encode(errors="surrogateescape"))
        sys.stdout.buffer.flush()
    elif text:
        from mlx_diffgemma.display.cells import printable

        sys.stdout.write(printable(text) + "\n" * (not text.endswith("\n")))
        sys.stdout.flush()
