"""Reading prompts into their caches, and what the encoder predicts after them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import mlx.core as mx

from mlx_diffgemma.events import Prefilled
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.kernels import MAX_CHUNK, Kernels
from mlx_diffgemma.model.prefix import Reuse


@dataclass(kw_only=True, eq=False)
class PromptReading:
    """Tokens on their way into a cache, chunk by chunk."""

    tokens: mx.array
    """[1, L]"""
    cache: Cache
    done: int = 0
    """how many of the tokens are in the cache"""
    reuse: Reuse | None = None
    """where the cache is kept, and at which numbers of tokens: a chunk ends at each"""
    wants_last: bool = False
    """compute `last`; then the last token is read by itself"""
    last: mx.array | None = None
    """final hidden state [1, 1, D] of the last token"""

    @property
    def total(self) -> int:
        """Number of tokens to read, those included that were in the cache before."""
        return self.tokens.shape[1]

    @property
    def is_over(self) -> bool:
        """Whether all tokens are in the cache."""
        return self.done >= self.total

    def chunk(self, kernels: Kernels) -> mx.array:
        """Return the tokens to read next [1, C]."""
        borders = (self.total, self.total - self.wants_last, *(self.reuse.ends if self.reuse else ()))
        possible = min(border for border in borders if border > self.done) - self.done
        return self.tokens[:, self.done : self.done + kernels.chunk_length(possible, self.cache.offset)]


def read_from(
    model: DiffusionGemma, tokens: Sequence[int], reuse: Reuse | None, *, wants_last: bool = False
) -> PromptReading:
    """Begin to read tokens, after the longest prefix of them that was kept.

    With `wants_last` the last token is always read, so the longest prefix to find or to keep leaves it out.
    """
    longest = len(tokens) - wants_last
    kept = None
    if reuse is not None:
        kept = reuse.source.find(tokens[:longest])
        reuse = reuse._replace(ends=tuple({min(end, longest) for end in reuse.ends}))
    return PromptReading(
        tokens=mx.array([list(tokens)]),
        cache=model.make_cache() if kept is None else kept.snapshot(),
        done=0 if kept is None else kept.offset,
        reuse=reuse,
        wants_last=wants_last,
    )


def read_chunk(model: DiffusionGemma, readings: Sequence[PromptReading]) -> list[PromptReading]:
    """Read the next chunk of the first of several readings, and those of others that fit beside it.

    Returns the readings that advanced; none of `readings` may be over.
    """
    chunks: dict[PromptReading, mx.array] = {}
    remaining = MAX_CHUNK
    for reading in readings:
        chunk = reading.chunk(model.kernels)
        if chunks and chunk.shape[1] > remaining:
            break
        chunks[reading] = chunk
        remaining -= chunk.shape[1]
    hidden = model.encode(list(chunks.values()), [reading.cache for reading in chunks])
    for (reading, chunk), states in zip(chunks.items(), hidden, strict=True):
        reading.done += chunk.shape[1]
        reading.last = states if reading.wants_last and reading.is_over else None
    # What follows the last layer's keys and values is computed only for a hidden state that is wanted.
    wanted = [reading.last for reading in chunks if reading.last is not None]
    mx.eval(wanted, [reading.cache.arrays for reading in chunks])
    for reading in chunks:
        _keep(reading)
    return list(chunks)


def _keep(reading: PromptReading) -> None:
    """Keep what is read if it is a prefix to keep."""
    if (reuse := reading.reuse) is not None and reading.done in reuse.ends:
        tokens = cast("list[int]", reading.tokens[0, : reading.done].tolist())
        reuse.source.keep(tokens, reading.cache.snapshot(), is_system=reading.done == reuse.system_end)


def read_whole(model: DiffusionGemma, reading: PromptReading) -> Iterator[Prefilled]:
    """Read all that is left of a prompt; yield how far it has come after each chunk."""
    while not reading.is_over:
        read_chunk(model, [reading])
        yield Prefilled(done=reading.done, total=reading.total)


def prefill(model: DiffusionGemma, prompts: Sequence[mx.array], caches: Sequence[Cache]) -> Iterator[dict[int, int]]:
    """Encode prompts [1, L], each into its cache, in chunks; short ones go together.

    Yields after each chunk how many tokens are done, by the index of each prompt that advanced.
    """
    readings = [PromptReading(tokens=prompt, cache=cache) for prompt, cache in zip(prompts, caches, strict=True)]
    numbers = {reading: row for row, reading in enumerate(readings)}
    while unfinished := [reading for reading in readings if not reading.is_over]:
        yield {numbers[reading]: reading.done for reading in read_chunk(model, unfinished)}


def following(model: DiffusionGemma, hidden: mx.array, tokens: mx.array) -> mx.array:
    """Return the encoder's log-probabilities of tokens [B, L], from hidden [B, L, D] of the tokens before each."""
    logits = model.logits(hidden)
    chosen = mx.take_along_axis(logits, tokens[..., None], axis=-1).squeeze(-1)
    return chosen - mx.logsumexp(logits, axis=-1)
