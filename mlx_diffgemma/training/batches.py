"""The batches of a training: which examples, which block of each is the canvas, and its noise.

All of it follows from (seed, step): nothing is remembered between steps, so a training that was stopped goes on exactly
as if it had not been.

1  in every epoch each example comes once, in an order of that epoch
2  the examples of a pool are cut to one block each and sorted by padded length: batches have little padding, and yet a
   batch has examples of all kinds
3  the batches of the pool are shuffled
4  noise: each example has a level t = u^(1 / noise_power) with u ~ U(0.001, 1), and each position of its canvas becomes
   a uniformly random id with probability t
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
"""At most so many batches are sorted together, so that the few long examples share a batch. A pool is never more than
one epoch, because a batch of its own could then repeat an example."""
STRIDE = 32
"""Sequences are padded to a multiple of it, so that few shapes are compiled."""
_ORDER, _BLOCKS, _SHUFFLE, _NOISE, _CONDITIONING = range(5)
"""The purposes of random numbers: each has a stream of its own."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CutExample:
    """An example up to the end of one block of its response."""

    tokens: Ids
    prompt: int
    """length of the prompt"""
    start: int
    """index of the block's first token; the number of tokens where no block is denoised"""
    denoised: bool = True


@dataclass(frozen=True, eq=False, kw_only=True)
class Batches:
    """Batches of `rows` examples; a batch is a function of its index."""

    examples: Sequence[Example]
    rows: int
    canvas: int
    """length of a canvas"""
    vocabulary: int
    pad: int
    """the id that fills a sequence and a canvas up"""
    seed: int
    mask_prompt: bool = False
    """the causal loss counts the response only"""
    noise_power: float = 1.0

    def batch(self, index: int) -> Batch:
        """Return the batch `index`."""
        pool, position = divmod(index, self._pool_size)
        return self._arrays(_pool(self, pool)[position], np.random.default_rng([self.seed, _NOISE, index]))

    def conditioned(self, index: int) -> bool:
        """Return whether the batch's second pass is conditioned on the first; this is so for half of the batches."""
        return bool(np.random.default_rng([self.seed, _CONDITIONING, index]).random() < 0.5)

    def pool(self, pool: int) -> list[list[CutExample]]:
        """Return the batches of one pool in the order in which they are used."""
        count = self._pool_size * self.rows
        first = pool * count
        rng = np.random.default_rng([self.seed, _BLOCKS, pool])
        cuts = [cut_example(self._visited(visit), self.canvas, rng) for visit in range(first, first + count)]
        # The sort is stable: examples of one padded length stay in random order.
        cuts.sort(key=lambda cut: padded_length(cut.tokens.size))
        batches = [cuts[start : start + self.rows] for start in range(0, count, self.rows)]
        order = np.random.default_rng([self.seed, _SHUFFLE, pool]).permutation(len(batches))
        return [batches[n] for n in order]

    @property
    def _pool_size(self) -> int:
        return min(POOL, -(-len(self.examples) // self.rows))

    def _visited(self, visit: int) -> Example:
        """Return the example of visit `visit`, counted over all epochs."""
        epoch, position = divmod(visit, len(self.examples))
        return self.examples[_epoch_order(self.seed, epoch, len(self.examples))[position]]

    def _arrays(self, cuts: Sequence[CutExample], rng: np.random.Generator) -> Batch:
        length = padded_length(max(cut.tokens.size for cut in cuts))
        tokens = np.full((len(cuts), length), self.pad, np.int32)
        canvas = np.full((len(cuts), self.canvas), self.pad, np.int32)
        weights = np.zeros((len(cuts), length), np.float32)
        for row, cut in enumerate(cuts):
            tokens[row, : cut.tokens.size] = cut.tokens
            block = cut.tokens[cut.start :]
            canvas[row, : block.size] = block
            weights[row, cut.prompt if self.mask_prompt else 1 : cut.tokens.size] = 1
        starts = np.array([cut.start for cut in cuts], np.int32)
        noisy = corrupt(canvas, self.vocabulary, rng, self.noise_power)
        predicted = counted_positions(weights, len(cuts) * STRIDE)
        denoised = np.array([cut.denoised for cut in cuts], np.float32)
        return Batch(*map(mx.array, (tokens, weights, starts, canvas, noisy, predicted, denoised)))


def padded_length(length: int) -> int:
    """Round up to a multiple of STRIDE."""
    return -(-length // STRIDE) * STRIDE


def counted_positions(weights: npt.NDArray[np.float32], multiple: int) -> Ids:
    """Return where the weights are not 0, as indices of the flattened array; zeros fill it up to a multiple.

    Few lengths are compiled, and the first weight is always 0.
    """
    counted = np.flatnonzero(weights)
    filled = np.zeros(-(-counted.size // multiple) * multiple, np.int32)
    filled[: counted.size] = counted
    return filled


def cut_example(example: Example, canvas: int, rng: np.random.Generator) -> CutExample:
    """Cut an example after a randomly drawn block of its response; a text stays whole."""
    if not example.denoised:
        whole = np.concatenate([example.prompt, example.response])
        return CutExample(tokens=whole, prompt=example.prompt.size, start=whole.size, denoised=False)
    block = int(rng.integers(example.blocks(canvas)))
    response = example.response[: (block + 1) * canvas]
    start = example.prompt.size + block * canvas
    return CutExample(tokens=np.concatenate([example.prompt, response]), prompt=example.prompt.size, start=start)


def corrupt(canvas: Ids, vocabulary: int, rng: np.random.Generator, power: float = 1.0) -> Ids:
    """Replace random positions of canvas [B, C] by random ids; each row has one noise level t of its own.

    The levels have the density power * t^(power - 1).
    """
    level = rng.uniform(LOWEST_NOISE, 1.0, (canvas.shape[0], 1)) ** (1 / power)
    replaced = rng.random(canvas.shape) < level
    return np.where(replaced, rng.integers(0, vocabulary, canvas.shape, dtype=np.int32), canvas)


@lru_cache(maxsize=4)
def _pool(batches: Batches, pool: int) -> list[list[CutExample]]:
    return batches.pool(pool)


@lru_cache(maxsize=4)
def _epoch_order(seed: int, epoch: int, count: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng([seed, _ORDER, epoch]).permutation(count)
