"""The generation loop: token ids in, events out. It knows nothing of text.

1  the prompt goes into the cache, a chunk at a time                     -> Prefilled per chunk
per block, while max_tokens are not reached:
  2  a canvas of noise                                                   -> CanvasStarted
  3  denoising steps until the stop rule holds or max_steps are done     -> Denoised per step
  4  the canvas is cut behind its end token                              -> BlockCommitted
  5  if another block follows, the canvas goes into the cache
6                                                                        -> Finished
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple, cast

import mlx.core as mx

from mlx_diffgemma.cache import Cache
from mlx_diffgemma.errors import OptionError, PromptError, WeightsError
from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event, Finished, Prefilled, Stats
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model import DiffusionGemma
from mlx_diffgemma.sampler import Draft, EntropyBoundSampler, Sampler, random_key
from mlx_diffgemma.schedule import LinearTemperature, Schedule
from mlx_diffgemma.stopping import StableAndConfident, StopRule

ATTENTION_CELLS = 2**24
"""Queries times keys of one head in one prefill chunk: bounds what an attention that stores its scores needs."""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """How one canvas is denoised."""

    sampler: Sampler
    schedule: Schedule
    stop: StopRule
    max_steps: int


class Refinement(NamedTuple):
    """A batch of canvases between two steps; a row that is done keeps its result while others go on."""

    canvas: mx.array
    """[B, C] ids that the next step starts from"""
    best: mx.array
    """[B, C] the result so far"""
    signal: mx.array | None
    """[B, C, D] soft embedding of the last step, None before the first"""
    memory: mx.array
    """what the stop rule remembers"""
    done: mx.array
    """bool [B]"""


def default_rules(model: DiffusionGemma, config: GenerationConfig, sampler: Sampler | None = None) -> Rules:
    """The reference's rules with the options of `config`; `sampler` replaces its sampler."""
    return Rules(
        sampler=sampler
        or EntropyBoundSampler(
            vocab_size=model.config.vocab_size, entropy_bound=config.entropy_bound, greedy=config.greedy
        ),
        schedule=LinearTemperature(t_min=config.t_min, t_max=config.t_max, steps=config.max_steps),
        # As many equal steps as there are in all cannot come before any of them.
        stop=StableAndConfident(stability=min(config.stability, config.max_steps), confidence=config.confidence),
        max_steps=config.max_steps,
    )


def prefill(model: DiffusionGemma, tokens: mx.array, cache: Cache) -> Iterator[int]:
    """Encode tokens [B, L] in chunks; yields how many are in the cache after each.

    A chunk is shorter the longer the prefix is, down to what a canvas needs in every step anyway.
    """
    total = tokens.shape[1]
    done = 0
    while done < total:
        length = max(256, min(2048, ATTENTION_CELLS // (cache.offset + 2048) // 256 * 256))
        model.encode(tokens[:, done : done + length], cache)
        # Only the cache is needed: what follows the last layer's keys and values is never computed.
        mx.eval(cache.arrays)
        mx.clear_cache()
        done = min(done + length, total)
        yield done


def refine(
    model: DiffusionGemma, cache: Cache, canvas: mx.array, rules: Rules, keys: Iterator[mx.array]
) -> Iterator[Draft]:
    """Denoise canvas [B, C] behind the prefix in `cache`, yielding every step's outcome; the last `best` is the result.

    `keys` gives one random key per step. Every yielded array is evaluated.
    """
    rows, length = canvas.shape
    memory = rules.stop.start((rows, length))
    state = Refinement(canvas, canvas, None, memory, mx.zeros((rows,), dtype=mx.bool_))
    for step in range(1, rules.max_steps + 1):
        # At full size each array over the vocabulary is 268 MB: none is named that the next step does not need.
        processed = model.denoise(state.canvas, cache, state.signal) / rules.schedule.temperature(step)
        draft = rules.sampler.step(processed, state.canvas, next(keys))
        best = mx.where(state.done[:, None], state.best, draft.best)
        memory, finished = rules.stop.judge(state.memory, best, draft.entropy)
        done = state.done | finished
        mx.eval(draft, best, memory, done)
        yield draft._replace(best=best)
        if all(cast("list[bool]", done.tolist())):
            return
        state = Refinement(draft.canvas, best, model.signal(processed), memory, done)


def stream(
    model: DiffusionGemma, tokens: Sequence[int], config: GenerationConfig, *, sampler: Sampler | None = None
) -> Iterator[Event]:
    """Generate behind the prompt `tokens`; the events carry no text.

    `sampler` replaces the entropy-bound sampler of `config`. Raises, at once, PromptError for a prompt that is empty or
    does not fit and OptionError for a canvas longer than the model's.
    """
    canvas_length = check_lengths(model, tokens, config)
    return _generate(model, tokens, config, default_rules(model, config, sampler), canvas_length)


def _generate(
    model: DiffusionGemma, tokens: Sequence[int], config: GenerationConfig, rules: Rules, canvas_length: int
) -> Iterator[Event]:
    """The phases of the module's docstring."""
    clock = Clock()
    cache = model.make_cache()
    # 1
    for done in prefill(model, mx.array([list(tokens)]), cache):
        yield Prefilled(done=done, total=len(tokens))
    clock.prefilled()
    answer: list[int] = []
    for block in range(math.ceil(config.max_tokens / canvas_length)):
        # 2
        room = config.max_tokens - len(answer)
        canvas = rules.sampler.start((1, canvas_length), random_key(config.seed, block, 0))
        yield CanvasStarted(block=block, canvas=_ids(canvas)[:room])
        # 3
        keys = (random_key(config.seed, block, step) for step in range(1, config.max_steps + 1))
        best: tuple[int, ...] = ()
        steps = 0
        for steps, draft in enumerate(refine(model, cache, canvas, rules, keys), start=1):
            event = denoised(draft, best, config, block=block, step=steps, room=room)
            best = event.best
            yield event
        # 4
        kept, stopped = cut(best, config.stop_tokens)
        answer += kept
        last = stopped or len(answer) >= config.max_tokens
        clock.committed(steps)
        yield BlockCommitted(block=block, steps=steps, tokens=kept, last=last)
        if last:
            # 6
            yield Finished(reason="stop" if stopped else "length", stats=clock.stats(len(tokens), len(answer)))
            return
        # 5
        model.encode(mx.array([best]), cache)
        mx.eval(cache.arrays)
        mx.clear_cache()


def check_lengths(model: DiffusionGemma, tokens: Sequence[int], config: GenerationConfig) -> int:
    """The canvas length to use. Raises PromptError or OptionError where prompt and answer cannot fit."""
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
    return length


def cut(best: Sequence[int], stop_tokens: Sequence[int]) -> tuple[tuple[int, ...], bool]:
    """The part of a canvas that belongs to the answer, and whether an end token is its last."""
    end = end_of(best, stop_tokens)
    return (tuple(best), False) if end is None else (tuple(best[: end + 1]), True)


def end_of(best: Sequence[int], stop_tokens: Sequence[int]) -> int | None:
    """The position of the first end token."""
    return next((place for place, token in enumerate(best) if token in stop_tokens), None)


def denoised(
    draft: Draft, before: Sequence[int], config: GenerationConfig, *, block: int, step: int, room: int
) -> Denoised:
    """The event of one step, for the first row of the batch and the positions that max_tokens has room for."""
    mean_entropy = fmean(_row(draft.entropy))
    if not math.isfinite(mean_entropy):
        raise WeightsError("the model computes no numbers: its weights hold NaN or Inf, convert or download it again")
    best = _ids(draft.best)[:room]
    return Denoised(
        block=block,
        step=step,
        max_steps=config.max_steps,
        best=best,
        accepted=tuple(map(bool, _row(draft.accepted)[:room])),
        changed=tuple(now != then for now, then in zip(best, before or [-1] * len(best), strict=True)),
        mean_entropy=mean_entropy,
        end=end_of(best, config.stop_tokens),
    )


def _ids(tokens: mx.array) -> tuple[int, ...]:
    """Ids of the first row of [B, C]."""
    return tuple(map(int, _row(tokens)))


def _row(batch: mx.array) -> list[float]:
    """The first row of [B, C] as Python numbers."""
    return cast("list[float]", batch[0].tolist())


class Clock:
    """Takes the times of one generation."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._prefilled = self._start
        self._first_block = 0.0
        self._last_block = self._start
        self._steps: list[int] = []

    def prefilled(self) -> None:
        """The prompt is in the cache."""
        self._prefilled = time.perf_counter()

    def committed(self, steps: int) -> None:
        """A block is final after this many steps."""
        self._last_block = time.perf_counter()
        self._first_block = self._first_block or self._last_block - self._start
        self._steps.append(steps)

    def stats(self, prompt_tokens: int, tokens: int) -> Stats:
        """All figures, at the end; seconds per step include encoding the blocks before the last."""
        return Stats(
            prompt_tokens=prompt_tokens,
            tokens=tokens,
            blocks=len(self._steps),
            steps_per_block=tuple(self._steps),
            prefill_seconds=self._prefilled - self._start,
            seconds_to_first_block=self._first_block,
            seconds=self._last_block - self._start,
            seconds_per_step=(self._last_block - self._prefilled) / sum(self._steps),
            peak_memory=mx.get_peak_memory(),
        )
