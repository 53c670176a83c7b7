"""One prompt, one answer: what `mlx_diffgemma generate` does without --batch.

argument and stdin -> prompt -> session.stream -> events, drawn or written -> Completion
Completion -> stdout (JSON), stderr (statistics), exit code
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from mlx_diffgemma.cli.console import interrupted, stdout_line
from mlx_diffgemma.cli.document import STDIN
from mlx_diffgemma.cli.encoding import codec_of, decoded
from mlx_diffgemma.cli.interrupt import Interrupt
from mlx_diffgemma.cli.request import Request, check_constraints, load_session, refuse
from mlx_diffgemma.constraint.spec import Choices
from mlx_diffgemma.errors import EmptyAnswerError, PromptError
from mlx_diffgemma.generation_options import PERMISSIVE

if TYPE_CHECKING:
    from mlx_diffgemma.completion import Completion
    from mlx_diffgemma.events import Event
    from mlx_diffgemma.generation.prefixes import Prefixes
    from mlx_diffgemma.generation_config import GenerationConfig
    from mlx_diffgemma.session import Prompt, Session


def answer_prompt(
    request: Request, argument: str | None, *, live: bool, json: bool, encoding: str | None = None
) -> None:
    """Load the model, generate, print. Raises DiffGemmaError; SystemExit for usage errors and after Ctrl-C.

    encoding: that of the text that is piped in.
    """
    from mlx_diffgemma.completion import gather
    from mlx_diffgemma.display.frame import tokens_text
    from mlx_diffgemma.display.terminal import report
    from mlx_diffgemma.generation.prefixes import Prefixes

    # Everything is checked first: gigabytes are not read for a request that cannot be met.
    piped = read_stdin(encoding)
    argument = None if argument == STDIN else argument
    if argument is None and piped is None:
        refuse("no prompt: pass it as an argument or pipe it in")
    prompt = compose(argument, piped)
    check_constraints([request.over(PERMISSIVE).constraint])
    session = load_session(request.model, quiet=request.quiet)
    config = request.over(session.defaults)
    # What is read for the choices is not read again for the answer.
    prefix = Prefixes() if json and isinstance(config.constraint, Choices) else None
    choices = None if prefix is None else choice_probabilities(session, prompt, config, prefix)
    events = _shown(session.stream(prompt, config, prefix=prefix), live=live and not request.quiet, json=json)
    completion = gather(events, seed=config.seed)
    was_interrupted = completion.finish_reason == "interrupted"
    if json:
        stdout_line(completion.to_json(choices=None if was_interrupted else choices))
    if was_interrupted:
        interrupted(tokens_text(len(completion.tokens)), quiet=request.quiet)
    if completion.is_empty:
        _note_empty(completion, config, quiet=request.quiet)
    elif not json and not request.quiet:
        report(completion.stats, sys.stderr)


def _note_empty(completion: Completion, config: GenerationConfig, *, quiet: bool) -> None:
    """Say in one line that there is no answer, and why. Raises EmptyAnswerError unless the options allow it."""
    if completion.finish_reason == "length":
        line = f"the model wrote nothing: its thinking was cut off by max_tokens={config.max_tokens}: raise it"
    elif completion.thought:
        line = "the model wrote nothing: only a thought, and no answer after it"
    else:
        line = "the model wrote nothing: ask in other words, or with another --seed"
    if not config.allow_empty:
        raise EmptyAnswerError(f"{line} (--allow-empty accepts an empty answer)")
    if not quiet:
        print(line, file=sys.stderr)  # noqa: T201


def _shown(events: Iterator[Event], *, live: bool, json: bool) -> Iterator[Event]:
    """Yield `events` until Ctrl-C, drawing or writing their text on the way, unless stdout gets JSON."""
    from mlx_diffgemma.display.terminal import can_draw, drawn, written

    with Interrupt() as interrupt:
        until_interrupt = interrupt.until(events)
        if json:
            yield from until_interrupt
        elif live and can_draw(sys.stdout, sys.stderr):
            yield from drawn(until_interrupt, sys.stdout, sys.stderr)
        else:
            yield from written(until_interrupt, sys.stdout)


def choice_probabilities(
    session: Session, prompt: Prompt, config: GenerationConfig, prefix: Prefixes | None
) -> dict[str, float] | None:
    """Return the probability of each choice, None if there are no choices; what is read is kept in `prefix`."""
    if not isinstance(config.constraint, Choices):
        return None
    return session.choose(prompt, config.constraint.texts, replace(config, constraint=None), prefix=prefix)


def read_stdin(encoding: str | None) -> str | None:
    """Return what is piped in, None if stdin is a terminal or closed. Raises DocumentError if it is no text."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    data = sys.stdin.buffer.read()
    return decoded(data, "stdin", codec_of(data, encoding))


def compose(argument: str | None, piped: str | None) -> str:
    """Return the prompt: the argument, the piped text, or both with a blank line between. Raises PromptError."""
    parts = [part for part in (argument, piped) if part and part.strip()]
    if not parts:
        raise PromptError("the prompt is empty: say what to write")
    return "\n\n".join(parts)
