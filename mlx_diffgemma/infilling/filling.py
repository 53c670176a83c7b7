"""Filling a template, canvas after canvas: token ids in, events out.

1  the prompt and the text before the first canvas go into the cache      -> Prefilled, BlockCommitted
per window, while gaps are left:
  2  the search finds candidates with the best lengths                    -> CanvasStarted, Denoised per step
  3  these finalists are denoised to their end                            -> Denoised per step
  4  if no finalist's gaps are valid text, all of them are denoised again
     without tokens that are parts of characters                          -> Denoised per step
  5  of those whose gaps are valid text, the encoder's likeliest wins     -> BlockCommitted, GapFilled per gap
  6  the text up to the next canvas goes into the cache                   -> BlockCommitted
7  all gaps are filled                                                    -> Finished
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import mlx.core as mx

from mlx_diffgemma.errors import OptionError, PromptError
from mlx_diffgemma.events import BlockCommitted, Event, Finished, GapFilled
from mlx_diffgemma.generation.prefill import PromptReading, read_from, read_whole
from mlx_diffgemma.generation.timing import Clock
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.infilling.boundaries import Boundaries, TokenGap, TokenPart
from mlx_diffgemma.infilling.candidates import (
    Candidate,
    CanvasTask,
    CanvasView,
    FillingSetup,
    ReadText,
    denoise_together,
    judge,
    start_candidate,
)
from mlx_diffgemma.infilling.gap_constraints import parts_after, with_length_limits
from mlx_diffgemma.infilling.search import find_finalists
from mlx_diffgemma.infilling.windows import next_window, positions_needed, split_leading_text
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.prefix import Reuse
from mlx_diffgemma.sampling.canvas import end_of
from mlx_diffgemma.sampling.strategy import default_rules


class _GapProgress(NamedTuple):
    """The gap that is being filled; one that needs several canvases grows."""

    number: int = 0
    tokens: int = 0
    data: bytes = b""
    """its text; where a canvas ends, the last character may be cut"""


class _Progress(NamedTuple):
    """How far a template is filled."""

    read: ReadText
    rest: tuple[TokenPart, ...]
    """the parts that are not decided, or at least not read"""
    position: int
    """tokens of the answer that are read"""
    block: int = 0
    gap: _GapProgress = _GapProgress()
    filled_tokens: int = 0
    """tokens of all gaps"""
    is_complete: bool = True
    """False if an open gap reached its maximum without an end token"""


def fill_template(
    model: DiffusionGemma,
    boundaries: Boundaries,
    prompt: Sequence[int],
    parts: Sequence[TokenPart],
    config: GenerationConfig,
    *,
    reuse: Reuse | None = None,
) -> Iterator[Event]:
    """Fill the gaps of a template; prompt: the ids before it, parts: from `Boundaries.token_parts`.

    reuse: prefixes that were read before, and where those of this prompt are kept.

    Raises at once: OptionError for options that are not for gaps, PromptError for a text that is too long,
    ConstraintError for a gap that no text of its length can match.
    """
    capacity = canvas_capacity(model, config)
    limited = tuple(
        with_length_limits(part, config.max_tokens if part.open_ended else capacity)
        if isinstance(part, TokenGap)
        else part
        for part in parts
    )
    context = model.config.max_position_embeddings
    needed = len(prompt) + sum(positions_needed(part, capacity) for part in limited) + capacity
    if needed > context:
        raise PromptError(
            f"the prompt and the text around the gaps need {needed} positions, and the model has {context}: "
            "give a part of the text, or use a model that reads more"
        )
    rules = default_rules(model, config)
    setup = FillingSetup(model=model, boundaries=boundaries, config=config, rules=rules, capacity=capacity)
    return _fill_windows(setup, prompt, limited, reuse)


def canvas_capacity(model: DiffusionGemma, config: GenerationConfig) -> int:
    """Return the number of positions of a canvas. Raises OptionError for options that are not for gaps."""
    longest = model.config.canvas_length
    length = config.canvas_length or longest
    if length > longest:
        raise OptionError(f"canvas_length={length} is longer than the {longest} positions this model was made for")
    if config.mode != "canvas":
        raise OptionError(
            f"mode={config.mode!r} cannot fill gaps, because it does not see the text after them: use 'canvas'"
        )
    if config.verify is not None:
        raise OptionError("verify cuts a canvas where the encoder doubts it, and a canvas with gaps cannot be: drop it")
    return length


def _fill_windows(
    setup: FillingSetup, prompt: Sequence[int], parts: tuple[TokenPart, ...], reuse: Reuse | None
) -> Iterator[Event]:
    clock = Clock()
    text, rest = split_leading_text(parts, setup.capacity, 0)
    reading = read_from(setup.model, [*prompt, *text], reuse, wants_last=True)
    reused = reading.done
    yield from read_whole(setup.model, reading)
    clock.prefilled()
    if text:
        yield BlockCommitted(block=0, steps=0, tokens=text, last=False)
    progress = _Progress(read=_read_so_far(reading), rest=rest, position=len(text))
    while any(isinstance(part, TokenGap) for part in progress.rest):
        progress = yield from _fill_window(setup, progress, clock)
        progress = yield from _read_text_after(setup, progress)
        progress = progress._replace(block=progress.block + 1)
    stats = clock.stats(len(prompt), progress.filled_tokens, reused=min(reused, len(prompt)))
    yield Finished(reason="stop" if progress.is_complete else "length", stats=stats)


def _read_so_far(reading: PromptReading) -> ReadText:
    assert reading.last is not None
    return ReadText(cache=reading.cache, last_hidden=reading.last)


def _fill_window(setup: FillingSetup, progress: _Progress, clock: Clock) -> Generator[Event, None, _Progress]:
    """Decide one canvas: steps 2 to 5."""
    window = next_window(progress.rest, setup.capacity)
    task = CanvasTask(setup=setup, window=window, before=progress.read, block=progress.block)
    view = CanvasView(progress.block, setup.config)
    finalists = yield from find_finalists(task, view)
    winner = yield from _choose_winner(task, finalists, view)
    stop_tokens = setup.config.stop_tokens
    tokens = winner.tokens(stop_tokens)
    clock.committed(view.steps)
    ended = end_of(tokens, stop_tokens) is not None
    rest = () if ended else parts_after(window, winner.layout, winner.best)
    yield BlockCommitted(block=progress.block, steps=view.steps, tokens=tokens, last=not rest)
    goes_on = window.unfinished and bool(rest)
    gap, count = yield from _report_gaps(task, winner, progress.gap, goes_on=goes_on)
    # The encoder has read the winner's tokens already: they only have to be counted.
    assert winner.last_hidden is not None
    winner.canvas.cache.advance(len(tokens))
    last = window.parts[-1]
    is_open = isinstance(last, TokenGap) and last.open_ended
    return progress._replace(
        read=ReadText(cache=winner.canvas.cache, last_hidden=winner.last_hidden),
        rest=rest,
        position=progress.position + len(tokens),
        gap=gap,
        filled_tokens=progress.filled_tokens + count,
        is_complete=ended or not is_open,
    )


def _choose_winner(
    task: CanvasTask, finalists: Sequence[Candidate], view: CanvasView
) -> Generator[Event, None, Candidate]:
    """Denoise the finalists to their end, and return the likeliest whose gaps are valid text: steps 3 to 5."""
    model = task.setup.model
    yield from map(view.denoised, denoise_together(model, finalists))
    valid = [each for each in finalists if each.fillings(task) is not None]
    if not valid:
        valid = [start_candidate(task, each.lengths, whole_characters=True) for each in finalists]
        yield from map(view.denoised, denoise_together(model, valid))
    for each in valid:
        judge(task, each)
    return max(valid, key=lambda each: each.score)


def _report_gaps(
    task: CanvasTask, winner: Candidate, gap: _GapProgress, *, goes_on: bool
) -> Generator[GapFilled, None, tuple[_GapProgress, int]]:
    """Yield the gaps that end in this canvas; return the gap to go on with, and how many tokens were filled in.

    goes_on: the last gap of the window is continued in the next canvas.
    """
    fillings = winner.fillings(task)
    assert fillings is not None
    total = 0
    for number, (data, (start, stop)) in enumerate(zip(fillings, winner.layout.spans, strict=True), start=1):
        end = end_of(winner.best[start:stop], task.setup.config.stop_tokens)
        count = stop - start if end is None else end
        total += count
        gap = gap._replace(tokens=gap.tokens + count, data=gap.data + data)
        if number < len(fillings) or not goes_on:
            yield GapFilled(gap=gap.number, tokens=gap.tokens, text=gap.data.decode())
            gap = _GapProgress(number=gap.number + 1)
    return gap, total


def _read_text_after(setup: FillingSetup, progress: _Progress) -> Generator[BlockCommitted, None, _Progress]:
    """Read the text up to the next canvas: step 6."""
    tokens, rest = split_leading_text(progress.rest, setup.capacity, progress.position)
    if not tokens:
        return progress
    yield BlockCommitted(block=progress.block, steps=0, tokens=tokens, last=not rest)
    progress = progress._replace(rest=rest, position=progress.position + len(tokens))
    if not rest:
        # Nothing comes after this text, so the model need not read it.
        return progress
    reading = PromptReading(tokens=mx.array([tokens]), cache=progress.read.cache, wants_last=True)
    for _ in read_whole(setup.model, reading):
        pass
    return progress._replace(read=_read_so_far(reading))
