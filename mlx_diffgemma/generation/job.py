"""A prompt to answer, and the check that its answer fits the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.errors import ConstraintError, OptionError, PromptError
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.prefix import Reuse
from mlx_diffgemma.sampling.stop_strings import StopStrings


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """A prompt to answer."""

    tokens: Sequence[int]
    config: GenerationConfig
    constraint: TokenAutomaton | None = None
    """what the answer must match"""
    stop_strings: StopStrings | None = None
    """texts that end the answer"""
    padding: int | None = None
    """the token of which a canvas consists when the model has nothing to say"""
    reuse: Reuse | None = None
    """prefixes that were read before, and where those of this prompt are kept"""


def _positions(config: GenerationConfig, longest: int) -> int:
    """Return how many positions the canvases of the longest answer have."""
    begun, block = 0, 0
    while begun < config.max_tokens and (length := config.length_of_canvas(block, longest)) < longest:
        begun, block = begun + length, block + 1
    return begun + math.ceil(max(0, config.max_tokens - begun) / longest) * longest


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
    needed = len(tokens) + _positions(config, length)
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
