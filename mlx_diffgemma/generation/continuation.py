"""Text that the encoder writes, whose weights are a causal language model too: its next tokens, and an answer's events.

`causal` encodes one token after another, `speculative` several at once. Which tokens they write is decided here.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import NamedTuple

import mlx.core as mx

from mlx_diffgemma.constraint.automata.adjacency import Flags
from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.events import BlockCommitted, Event, Finished, Prefilled
from mlx_diffgemma.generation.job import Job
from mlx_diffgemma.generation.prefill import read_from, read_whole
from mlx_diffgemma.generation.timing import Clock
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.canvas import Endings
from mlx_diffgemma.sampling.sampler import random_key


class ReadPrompt(NamedTuple):
    """A prompt that is read up to its last token, which is encoded with the first draw."""

    cache: Cache
    last_token: int
    total: int
    """tokens of the prompt"""
    reused: int
    """tokens that were read before"""
    clock: Clock


class Drawn(NamedTuple):
    """The next tokens after several texts."""

    tokens: mx.array
    """[L]"""
    probabilities: mx.array
    """[L] by the encoder, among the tokens that a constraint allowed"""


class Written(NamedTuple):
    """Tokens that are added to an answer together."""

    tokens: tuple[int, ...]
    probabilities: tuple[float, ...]
    """of each token, see Drawn"""
    forwards: int
    """how often the layers ran for them"""


def read_prompt(model: DiffusionGemma, job: Job) -> Generator[Prefilled, None, ReadPrompt]:
    """Read a prompt but for its last token, and return what is read."""
    clock, total = Clock(), len(job.tokens)
    reading = read_from(model, job.tokens[:-1], job.reuse)
    reused = reading.done
    for reached in read_whole(model, reading):
        yield replace(reached, total=total)
    clock.prefilled()
    yield Prefilled(done=total, total=total)
    return ReadPrompt(reading.cache, job.tokens[-1], total, reused, clock)


def block_events(job: Job, prompt: ReadPrompt, parts: Iterator[Written]) -> Iterator[Event]:
    """Yield a block for each part of an answer until it ends, and its end; the parts fit into max_tokens."""
    endings = Endings(tokens=job.config.stop_tokens, strings=job.stop_strings)
    written = said = 0
    for block, part in enumerate(parts):
        kept, stopped = endings.cut(part.tokens)
        written += len(kept)
        last = stopped or written == job.config.max_tokens
        prompt.clock.committed(part.forwards)
        pairs = [pair for pair in zip(kept, part.probabilities, strict=False) if pair[0] != job.padding]
        said += len(pairs)
        yield BlockCommitted(
            block=block,
            steps=part.forwards,
            tokens=tuple(token for token, _ in pairs),
            probabilities=tuple(probability for _, probability in pairs),
            last=last,
        )
        if last:
            stats = prompt.clock.stats(prompt.total, said, reused=prompt.reused)
            yield Finished(reason="stop" if stopped else "length", stats=stats)
            return
        endings = endings.after(kept)


def allowed_next(constraint: TokenAutomaton, state: int, remaining: int) -> Flags:
    """[V] which tokens may come in a state of a constraint, end tokens included, with `remaining` tokens after them."""
    allowed = constraint.allowed(state, remaining)
    allowed[list(constraint.stops)] = constraint.accepting[state]
    return allowed


def draw(logits: mx.array, config: GenerationConfig, position: int, allowed: mx.array | None = None) -> Drawn:
    """Draw the next token after each of several texts, out of the tokens that are `allowed` [L, V] or [V].

    logits: float32 [L, V]. The texts are the answer's first `position` tokens, its first position + 1, and so on. A
    draw's random numbers depend on the seed and the number of tokens before it alone.
    """
    possible = logits if allowed is None else mx.where(allowed, logits, -mx.inf)
    total = mx.logsumexp(possible, axis=-1, keepdims=True)
    if position == 0 and (forbidden := config.forbidden_first(logits.shape[-1])):
        possible = possible[...]
        possible[0, forbidden] = -mx.inf
    if config.is_greedy:
        scores = possible
    else:
        keys = [random_key(config.seed, position + row, 0) for row in range(len(logits))]
        noise = mx.stack([mx.random.gumbel(logits.shape[1:], key=key) for key in keys])
        # The most likely token after adding Gumbel noise is a draw.
        scores = nucleus(possible / config.temperature, config.top_p) + noise
    chosen = mx.argmax(scores, axis=-1, keepdims=True)
    probabilities = mx.exp(mx.take_along_axis(logits, chosen, axis=-1) - total)
    return Drawn(chosen.squeeze(-1), probabilities.squeeze(-1))


def nucleus(logits: mx.array, top_p: float) -> mx.array:
    """Set logits [B, V] to -inf but for the most likely tokens that together have the probability top_p.

    Nucleus sampling, arXiv 1904.09751.
    """
    if top_p == 1:
        return logits
    ranked = mx.sort(logits, axis=-1)[:, ::-1]
    probabilities = mx.softmax(ranked, axis=-1, precise=True)
    reached = mx.cumsum(probabilities, axis=-1) - probabilities < top_p
    # A logit stays if it is at least the lowest of those that are needed.
    lowest = mx.where(reached, ranked, mx.inf).min(axis=-1, keepdims=True)
    return mx.where(logits >= lowest, logits, -mx.inf)
