"""The program `mlx_diffgemma.generate`: one prompt, one answer.

argument and stdin -> prompt
options over the checkpoint's defaults -> GenerationConfig
session.stream -> events -> Interrupt.until -> display.drawn | display.written -> Answer
Answer -> stdout (--json), stderr (statistics), exit code
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mlx_diffgemma.cli import options
from mlx_diffgemma.cli.answer import Answer, gathered
from mlx_diffgemma.cli.console import INTERRUPTED, reported, run_program, stdout_line
from mlx_diffgemma.cli.interrupt import Interrupt
from mlx_diffgemma.cli.request import UNBOUNDED, loaded, refuse, require_usable
from mlx_diffgemma.errors import PromptError
from mlx_diffgemma.events import Event
from mlx_diffgemma.generation_config import GenerationConfig

if TYPE_CHECKING:
    from mlx_diffgemma.session import Prompt, Session

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the command line asks for; a choice of None is left to the checkpoint."""

    argument: str | None
    model: str | None
    adapter: Path | None
    revision: str | None
    dtype: str | None
    choices: Mapping[str, Any]
    json_schema: Path | None
    exact: bool
    live: bool
    quiet: bool
    json: bool
    batch: Path | None = None
    batch_size: int | None = None

    def over(self, defaults: GenerationConfig) -> GenerationConfig:
        """`defaults` with what was chosen in their place. Raises OptionError."""
        from mlx_diffgemma.constraint.spec import read_schema

        chosen = dataclasses.replace(defaults, **options.given(self.choices))
        if self.json_schema is not None:
            chosen = dataclasses.replace(chosen, json_schema=read_schema(self.json_schema))
        return chosen.exact() if self.exact else chosen


@app.command()
def generate(  # noqa: PLR0917 - its parameters are the options
    prompt: Annotated[str | None, typer.Argument(help="What to ask; piped text is added below it.")] = None,
    model: options.Model = None,
    adapter: options.Adapter = None,
    revision: options.Revision = None,
    dtype: options.Dtype = None,
    system: options.System = None,
    thinking: options.Thinking = None,
    raw: options.Raw = None,
    max_tokens: options.MaxTokens = None,
    stop_token: options.StopToken = None,
    seed: options.Seed = None,
    regex: options.Regex = None,
    json_schema: options.JsonSchema = None,
    choices: options.Choices = None,
    canvas_length: options.CanvasLength = None,
    max_steps: options.MaxSteps = None,
    t_min: options.TMin = None,
    t_max: options.TMax = None,
    entropy_bound: options.EntropyBound = None,
    stability: options.Stability = None,
    confidence: options.Confidence = None,
    greedy: options.Greedy = None,
    exact: options.Exact = False,
    conditioning_top_k: options.ConditioningTopK = None,
    until_end: options.UntilEnd = None,
    allow_empty: options.AllowEmpty = None,
    mean_entropy: options.MeanEntropy = None,
    min_steps: options.MinSteps = None,
    trim: options.Trim = None,
    verify: options.Verify = None,
    mode: options.ChosenMode = None,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    live: options.Live = True,
    json: options.Json = False,
    quiet: options.Quiet = False,
    batch: options.Batch = None,
    batch_size: options.BatchSize = None,
    debug: options.Debug = False,
    version: options.Version = False,  # noqa: ARG001 - its callback has answered it
) -> None:
    """Answer PROMPT, drawing the canvas while it is denoised.

    The answer goes to stdout, everything else to stderr. An option that is not given is the checkpoint's own.
    """
    chosen = {
        "system": system,
        "thinking": thinking,
        "raw": raw,
        "max_tokens": max_tokens,
        "stop_tokens": tuple(stop_token) if stop_token else None,
        "seed": seed,
        "canvas_length": canvas_length,
        "max_steps": max_steps,
        "t_min": t_min,
        "t_max": t_max,
        "entropy_bound": entropy_bound,
        "stability": stability,
        "confidence": confidence,
        "greedy": greedy,
        "conditioning_top_k": conditioning_top_k,
        "until_end": until_end,
        "allow_empty": allow_empty,
        "mean_entropy": mean_entropy,
        "min_steps": min_steps,
        "trim": trim,
        "verify": verify,
        "mode": mode,
        "temperature": temperature,
        "top_p": top_p,
        "regex": regex,
        "choices": options.listed(choices),
    }
    with reported(debug=debug, quiet=quiet):
        (answer if batch is None else answer_all)(
            Request(
                argument=prompt,
                model=model,
                adapter=adapter,
                revision=revision,
                dtype=dtype,
                choices=chosen,
                json_schema=json_schema,
                exact=exact,
                live=live,
                quiet=quiet,
                json=json,
                batch=batch,
                batch_size=batch_size,
            )
        )


def answer(request: Request) -> None:
    """Load the model, generate, print. Raises DiffGemmaError; SystemExit for usage errors and after Ctrl-C."""
    from mlx_diffgemma.display.terminal import report

    # Everything is checked first: gigabytes are not read for a request that cannot be met.
    if request.batch_size is not None:
        refuse("--batch-size belongs to --batch")
    piped = read_stdin()
    if request.argument is None and piped is None:
        refuse("no prompt: pass it as an argument or pipe it in")
    prompt = compose(request.argument, piped)
    require_usable(request.over(UNBOUNDED))
    session = loaded(request)
    config = request.over(session.defaults)
    result = shown(session.stream(prompt, config), request)
    if request.json:
        stdout_line(result.as_json(choices=result.finish_reason and chances(session, prompt, config)))
    elif result.stats and not request.quiet:
        report(result.stats, sys.stderr)
    if result.finish_reason is None:
        raise SystemExit(INTERRUPTED)


def answer_all(request: Request) -> None:
    """Answer the prompts of a file side by side, a JSON line each. Raises as `answer` does."""
    from mlx_diffgemma.cli.batch import answered, read_items
    from mlx_diffgemma.cli.progress import progress
    from mlx_diffgemma.session import BATCH_SIZE

    assert request.batch is not None
    if request.argument is not None:
        refuse("--batch takes its prompts from the file: leave PROMPT out")
    items = read_items(request.batch)
    for item in items:
        require_usable(item.over(request.over(UNBOUNDED)))
    session = loaded(request)
    configs = [item.over(request.over(session.defaults)) for item in items]
    prompts = [item.prompt for item in items]
    with Interrupt() as interrupt, progress(len(items), None if request.quiet else sys.stderr) as done:
        events = session.stream_many(prompts, configs, batch_size=request.batch_size or BATCH_SIZE)
        happening = takewhile(lambda _: not interrupt.noted, events)
        for number, happened in answered(happening, done):
            stdout_line(gathered(happened).as_json(number, chances(session, prompts[number], configs[number])))
    if interrupt.noted:
        raise SystemExit(INTERRUPTED)


def chances(session: Session, prompt: Prompt, config: GenerationConfig) -> dict[str, float] | None:
    """How likely each of the choices was, if there were any."""
    return None if config.choices is None else session.choose(prompt, config.choices, config)


def read_stdin() -> str | None:
    """What is piped in, None where stdin is a terminal or closed. Raises PromptError for bytes that are not UTF-8."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise PromptError(f"stdin is not UTF-8 text: {error.reason} at byte {error.start}") from None


def compose(argument: str | None, piped: str | None) -> str:
    """The prompt: the argument, what is piped in, or both with a blank line between. Raises PromptError."""
    parts = [part for part in (argument, piped) if part and part.strip()]
    if not parts:
        raise PromptError("the prompt is empty: say what to write")
    return "\n\n".join(parts)


def shown(events: Iterator[Event], request: Request) -> Answer:
    """Drain `events`, writing their text as the request wants it."""
    from mlx_diffgemma.display.terminal import can_draw, drawn, written

    with Interrupt() as interrupt:
        happening = interrupt.until(events)
        if request.json:
            return gathered(happening)
        if request.live and not request.quiet and can_draw(sys.stdout, sys.stderr):
            return gathered(drawn(happening, sys.stdout, sys.stderr))
        return gathered(written(happening, sys.stdout))


def main() -> None:
    """Entry point of the program."""
    run_program(app, "mlx_diffgemma.generate")


if __name__ == "__main__":
    main()
