"""From one step's logits to the next canvas: draw a token everywhere, keep the certain ones, renoise the rest.

The entropy bound (arXiv 2505.24857): sorted from the most certain, positions are accepted as long as the entropies of
those before them sum to at most the bound, which bounds how far the accepted tokens can depend on each other. The
decision is made afresh in every step; nothing stays accepted by having been accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import mlx.core as mx
import numpy as np

from mlx_diffgemma.model.logits import Reading, read


class Draft(NamedTuple):
    """One step's outcome, everything [B, C]; ids are int32."""

    canvas: mx.array
    """Ids that the next step starts from: accepted tokens and fresh noise."""
    best: mx.array
    """Most likely id at every position: what the canvas would be if it ended here."""
    accepted: mx.array
    """bool"""
    entropy: mx.array
    """float32, nats"""
    total: mx.array
    """float32, log-sum-exp of the logits"""
    rarity: mx.array
    """float32, one over the probability of `best`"""


class Sampler(Protocol):
    """How a canvas begins and how it goes on."""

    def start(self, shape: tuple[int, int], key: mx.array) -> mx.array:
        """The first canvas, ids of shape (B, C)."""
        ...

    def step(self, processed: mx.array, canvas: mx.array, key: mx.array) -> Draft:
        """processed float32 logits [B, C, V] and the canvas [B, C] they came from -> the step's outcome

        key: one for each row [B, 2], so that a row's draws do not depend on those beside it; or one for a single row.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class EntropyBoundSampler:
    """The reference's rule; with `greedy` accepted positions take their most likely token instead of a draw."""

    vocab_size: int
    entropy_bound: float
    greedy: bool = False

    def start(self, shape: tuple[int, int], key: mx.array) -> mx.array:
        """Uniform noise over the whole vocabulary."""
        return mx.random.randint(0, self.vocab_size, shape, key=key)

    def step(self, processed: mx.array, canvas: mx.array, key: mx.array) -> Draft:
        """One draw per position, one fresh id per position that is not accepted."""
        length = canvas.shape[1]

        def draw(own: mx.array) -> tuple[mx.array, mx.array]:
            draw_key, noise_key = mx.random.split(own)
            uniform = mx.random.uniform(shape=(length,), key=draw_key)
            return uniform, mx.random.randint(0, self.vocab_size, (length,), key=noise_key)

        uniform, noise = mx.vmap(draw)(key.reshape(-1, 2))
        reading = read(processed, uniform)
        if self.greedy:
            reading = reading._replace(drawn=reading.best)
        return settle(reading, noise, self.entropy_bound)


def settle(reading: Reading, noise: mx.array, bound: float) -> Draft:
    """The rule without its randomness: what the logits say, with the drawn tokens, and noise [B, C]."""
    accepted = accept(reading.entropy, bound)
    canvas = mx.where(accepted, reading.drawn.astype(mx.int32), noise)
    return Draft(
        canvas=canvas,
        best=reading.best,
        accepted=accepted,
        entropy=reading.entropy,
        total=reading.total,
        rarity=reading.rarity,
    )


def accept(entropy: mx.array, bound: float) -> mx.array:
    """entropy [B, C] -> bool [B, C]: the most certain positions; the very first always, whatever the bound"""
    order = mx.argsort(entropy, axis=-1)
    ascending = mx.take_along_axis(entropy, order, axis=-1)
    before = mx.cumsum(ascending, axis=-1) - ascending
    return mx.take_along_axis(before <= bound, mx.argsort(order, axis=-1), axis=-1)


def random_key(seed: int, block: int, step: int) -> mx.array:
    """The key of one step of one block (step 0: its first canvas), the same on every machine.

    numpy's SeedSequence derives independent keys from coordinates, so no step depends on how many came before.
    """
    words = np.random.SeedSequence(entropy=seed, spawn_key=(block, step)).generate_state(2, np.uint32)
    return mx.array(words)
