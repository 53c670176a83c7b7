"""The generation loop: token ids in, events out. It knows nothing of text.

1  the prompt is encoded into the cache, chunk by chunk                  -> Prefilled per chunk
per block, while max_tokens are not reached:
  2  a canvas of noise                                                   -> CanvasStarted
  3  denoising steps until the stop rule holds or max_steps are done     -> Denoised per step
  4  the canvas is cut after its end token                               -> BlockCommitted
  5  if another block follows, the canvas is encoded into the cache
6                                                                        -> Finished

Several prompts are answered together: each goes through these phases by itself, and the canvases of all of them are
denoised together. When one is finished the next one starts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlx_diffgemma.constraint.token_automaton import TokenAutomaton
from mlx_diffgemma.errors import ConstraintError, OptionError, PromptError
from mlx_diffgemma.events import Event
from mlx_diffgemma.generation.blocks import Generation
from mlx_diffgemma.generation.causal import write
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.denoising import refine
from mlx_diffgemma.sampling.sampler import Sampler
from mlx_diffgemma.sampling.strategy import default_rules


@dataclass(frozen=True, kw_only=True)
class Job:
    """A prompt to answer."""

    tokens: Sequence[int]
    config: GenerationConfig
    constraint: TokenAutomaton | None = None
    """what the answer must match"""


def stream(
    model: DiffusionGemma,
    tokens: Sequence[int],
    config: GenerationConfig,
    *,
    sampler: Sampler | None = None,
    constraint: TokenAutomaton | None = None,
) -> Iterator[Event]:
    """Generate after the prompt `tokens`; the events carry no text.

    `sampler` replaces the entropy-bound sampler of `config`. Raises, at once, PromptError for a prompt that is empty or
    does not fit, OptionError for a canvas longer than the model's, ConstraintError for a `constraint` that no answer
    of max_tokens can meet.
    """
    job = Job(tokens=tokens, config=config, constraint=constraint)
    check_lengths(model, job)
    return (event for _, event in stream_many(model, [job], sampler=sampler))


def stream_many(
    model: DiffusionGemma, jobs: Iterable[Job], *, width: int = 1, sampler: Sampler | None = None
) -> Iterator[tuple[int, Event]]:
    """Answer jobs, `width` of them together; yield events, each with the number of its job, from 0.

    A job's events come in order and do not depend on the other jobs; those of several jobs alternate. Jobs in causal
    mode are answered one at a time. Raises what `stream` raises, when the job's turn comes.
    """
    waiting = enumerate(jobs)
    active: dict[int, Generation] = {}
    while True:
        begun: dict[int, Generation] = {}
        while len(active) + len(begun) < width and (arrived := next(waiting, None)):
            number, job = arrived
            length = check_lengths(model, job)
            if job.config.mode == "causal":
                yield from ((number, event) for event in write(model, job.tokens, job.config, job.constraint))
            else:
                rules = default_rules(model, job.config, sampler)
                begun[number] = Generation(model, job.tokens, job.config, rules, length, constraint=job.constraint)
        yield from _started(model, begun)
        active |= begun
        if not active:
            return
        # 5
        for generation in active.values():
            generation.catch_up()
        # 3
        for drafts in refine(model, [generation.canvas for generation in active.values()]):
            for (number, generation), draft in zip(active.items(), drafts, strict=True):
                yield number, generation.denoised(draft)
        # 4, 6, 2
        for number, generation in active.items():
            if generation.canvas.is_over:
                yield from ((number, event) for event in generation.commit())
        active = {number: generation for number, generation in active.items() if not generation.is_over}


def _started(model: DiffusionGemma, begun: Mapping[int, Generation]) -> Iterator[tuple[int, Event]]:
    """Read the prompts of jobs and start their first canvases."""
    numbers = {generation: number for number, generation in begun.items()}
    # 1
    for reached in Generation.prefill(model, list(begun.values())):
        for generation, event in reached:
            yield numbers[generation], event
    # 2
    for number, generation in begun.items():
        yield number, generation.start()


def check_lengths(model: DiffusionGemma, job: Job) -> int:
    """Return the canvas length to use. Raises PromptError, OptionError or ConstraintError if the answer cannot fit."""
    tokens, config = job.tokens, job.config
    longest = model.config.canvas_length
    length = config.canvas_length or longest
    if length > longest:
        raise OptionError(f"canvas_length={length} is longer than the {longest} positions this model was made for")
    if not tokens:
        raise PromptError("the prompt is empty: say what to write")
    if unknown := [token for token in tokens if not 0 <= token < model.config.vocab_size]:
        raise PromptError(f"token id {unknown[0]} is outside this model's vocabulary of {model.config.vocab_size}")
    context = model.config.max_position_embeddings
    needed = len(tokens) + math.ceil(config.max_tokens / length) * length
    if needed > context:
        raise PromptError(
            f"{len(tokens)} prompt tokens and max_tokens={config.max_tokens} in canvases of {length} need {needed} "
            f"positions, the model has {context}: shorten the prompt or lower max_tokens"
        )
    shortest = 0 if job.constraint is None else int(job.constraint.distance[0])
    if shortest > config.max_tokens:
        raise ConstraintError(
            f"the shortest answer that matches takes {shortest} tokens, max_tokens={config.max_tokens}: "
            "raise max_tokens"
        )
    return length
