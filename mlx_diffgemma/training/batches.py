"""Which examples a step sees, which block of each is the canvas, and the noise on it: all from (seed, step).

Nothing is remembered between steps, so training goes on from any step exactly as it would have without the stop.

1  every epoch visits all examples once, in an order of its own
2  a pool of examples is cut to one block each, and sorted by padded length: little is padded, and yet a batch has
   examples of all kinds
3  its batches are shuffled
4  corruption: a level t per example, u^(1 / noise_power) of u ~ U(0.001, 1); each canvas position becomes a uniform
   random id with probability t
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mlx_diffgemma.training.data import Example
from mlx_diffgemma.training.objective import Batch

Ids: TypeAlias = npt.NDArray[np.int32]
LOWEST_NOISE = 0.001
POOL = 64
"""Batches that are sorted together, at most, so that the few long examples share one; and no more than one epoch, or a
batch would be one example many times."""
STRIDE = 32
"""Sequences are padded to multiples of it, so that few shapes are compiled."""
ORDER, BLOCKS, SHUFFLE, NOISE, CONDITIONING = range(5)
"""What a random stream is for."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CutExample:
    """An example up to the end of one of its blocks, the block being what follows `start`."""

    tokens: Ids
    prompt: int
    start: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Batches:
    """Batches of `rows` sequences over `examples`."""

    examples: Sequence[Example]
    rows: int
    canvas: int
    vocabulary: int
    pad: int
    seed: int
    mask_prompt: bool = False
    """The causal loss counts the response only."""
    noise_power: float = 1.0

    def batch(self, index: int) -> Batch:
        """The batch of this index, the same at every call."""
        pool, place = divmod(index, self._pooled)
        return self._arrays(_pool(self, pool)[place], np.random.default_rng([self.seed, NOISE, index]))

    def conditioned(self, index: int) -> bool:
        """Whether the batch's second pass is conditioned on the first: half of them are."""
        return bool(np.random.default_rng([self.seed, CONDITIONING, index]).random() < 0.5)

    def pool(self, pool: int) -> list[list[CutExample]]:
        """The batches that are sorted together, shuffled."""
        count = self._pooled * self.rows
        first = pool * count
        rng = np.random.default_rng([self.seed, BLOCKS, pool])
        cuts = [cut_example(self._visited(place), self.canvas, rng) for place in range(first, first + count)]
        # Those of one padded length stay in random order.
        cuts.sort(key=lambda cut: padded(cut.tokens.size))
        batches = [cuts[start : start + self.rows] for start in range(0, count, self.rows)]
        order = np.random.default_rng([self.seed, SHUFFLE, pool]).permutation(len(batches))
        return [batches[place] for place in order]

    @property
    def _pooled(self) -> int:
        return min(POOL, -(-len(self.examples) // self.rows))

    def _visited(self, place: int) -> Example:
        epoch, within = divmod(place, len(self.examples))
        return self.examples[_order(self.seed, epoch, len(self.examples))[within]]

    def _arrays(self, cuts: Sequence[CutExample], rng: np.random.Generator) -> Batch:
        length = padded(max(cut.tokens.size for cut in cuts))
        tokens = np.full((len(cuts), length), self.pad, np.int32)
        canvas = np.full((len(cuts), self.canvas), self.pad, np.int32)
        weights = np.zeros((len(cuts), length), np.float32)
        for row, each in enumerate(cuts):
            tokens[row, : each.tokens.size] = each.tokens
            block = each.tokens[each.start :]
            canvas[row, : block.size] = block
            weights[row, each.prompt if self.mask_prompt else 1 : each.tokens.size] = 1
        starts = np.array([cut.start for cut in cuts], np.int32)
        noisy = corrupt(canvas, self.vocabulary, rng, self.noise_power)
        return Batch(*map(mx.array, (tokens, weights, starts, canvas, noisy)))


def padded(length: int) -> int:
    """The next multiple of STRIDE."""
    return -(-length // STRIDE) * STRIDE


def cut_example(example: Example, canvas: int, rng: np.random.Generator) -> CutExample:
    """An example up to the end of a block drawn from those of its response."""
    block = int(rng.integers(example.blocks(canvas)))
    response = example.response[: (block + 1) * canvas]
    start = example.prompt.size + block * canvas
    return CutExample(tokens=np.concatenate([example.prompt, response]), prompt=example.prompt.size, start=start)


def corrupt(canvas: Ids, vocabulary: int, rng: np.random.Generator, power: float = 1.0) -> Ids:
    """Noise of one level per row of canvas [B, C]; the density of levels is power * t^(power - 1)."""
    level = rng.uniform(LOWEST_NOISE, 1.0, (canvas.shape[0], 1)) ** (1 / power)
    replaced = rng.random(canvas.shape) < level
    return np.where(replaced, rng.integers(0, vocabulary, canvas.shape, dtype=np.int32), canvas)


@lru_cache(maxsize=4)
def _pool(batches: Batches, pool: int) -> list[list[CutExample]]:
    return batches.pool(pool)


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, ORDER, epoch]).permutation(count)
