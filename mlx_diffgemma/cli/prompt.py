"""One prompt, one answer: what `mlx_diffgemma generate` does without --batch.

argument and stdin -> prompt -> session.stream -> events, drawn or written -> Completion
Completion -> stdout (JSON), stderr (statistics), exit code
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from mlx_diffgemma.cli.console import INTERRUPTED, stdout_line
from mlx_diffgemma.cli.interrupt import Interrupt
from mlx_diffgemma.cli.request import Request, load_session, refuse
from mlx_diffgemma.errors import PromptError
from mlx_diffgemma.generation_options import PERMISSIVE, require_usable

if TYPE_CHECKING:
    from mlx_diffgemma.completion import Completion
    from mlx_diffgemma.events import Event
    from mlx_diffgemma.generation_config import GenerationConfig
    from mlx_diffgemma.session import Prompt, Session


def answer_prompt(request: Request, argument: str | None, *, live: bool, json: bool) -> None:
    """Load the model, generate, print. Raises DiffGemmaError; SystemExit for usage errors and after Ctrl-C."""
    from mlx_diffgemma.display.terminal import report

    # Everything is checked first: gigabytes are not read for a request that cannot be met.
    piped = read_stdin()
    if argument is None and piped is None:
        refuse("no prompt: pass it as an argument or pipe it in")
    prompt = compose(argument, piped)
    require_usable(request.over(PERMISSIVE))
    session = load_session(request.model, quiet=request.quiet)
    config = request.over(session.defaults)
    completion = _shown(session.stream(prompt, config), live=live and not request.quiet, json=json)
    interrupted = completion.finish_reason == "interrupted"
    if json:
        choices = None if interrupted else choice_probabilities(session, prompt, config)
        stdout_line(completion.to_json(choices=choices))
    elif not interrupted and not request.quiet:
        report(completion.stats, sys.stderr)
    if interrupted:
        raise SystemExit(INTERRUPTED)


def _shown(events: Iterator[Event], *, live: bool, json: bool) -> Completion:
    """Drain `events` into the Completion, drawing or writing their text on the way, unless stdout gets JSON."""
    from mlx_diffgemma.completion import gather
    from mlx_diffgemma.display.terminal import can_draw, drawn, written

    with Interrupt() as interrupt:
        until_interrupt = interrupt.until(events)
        if json:
            return gather(until_interrupt)
        if live and can_draw(sys.stdout, sys.stderr):
            return gather(drawn(until_interrupt, sys.stdout, sys.stderr))
        return gather(written(until_interrupt, sys.stdout))


def choice_probabilities(session: Session, prompt: Prompt, config: GenerationConfig) -> dict[str, float] | None:
    """Return the probability of each choice, None if there are no choices."""
    return None if config.choices is None else session.choose(prompt, config.choices, config)


def read_stdin() -> str | None:
    """Return what is piped in, None if stdin is a terminal or closed. Raises PromptError if it is not UTF-8."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise PromptError(f"stdin is not UTF-8 text: {error.reason} at byte {error.start}") from None


def compose(argument: str | None, piped: str | None) -> str:
    """Return the prompt: the argument, the piped text, or both with a blank line between. Raises PromptError."""
    parts = [part for part in (argument, piped) if part and part.strip()]
    if not parts:
        raise PromptError("the prompt is empty: say what to write")
    return "\n\n".join(parts)
