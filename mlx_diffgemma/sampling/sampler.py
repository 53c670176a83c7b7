"""From one step's logits to the next canvas: draw a token everywhere, keep the certain ones, renoise the rest.

The entropy bound (arXiv 2505.24857): from the most certain position on, positions are accepted as long as the entropies
of those before them sum to at most the bound, which bounds how far the accepted tokens can depend on each other. Every
step decides anew: a position that was accepted in one step need not be in the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import mlx.core as mx
import numpy as np

from mlx_diffgemma.model.logits import ProcessedLogits, Reading


class Draft(NamedTuple):
    """What one step makes of a canvas, everything [B, C]; ids are int32."""

    canvas: mx.array
    """ids that the next step starts from: accepted tokens and fresh noise"""
    best: mx.array
    """most likely id at every position: the text of the canvas if this step is the last"""
    accepted: mx.array
    """bool"""
    entropy: mx.array
    """float32, nats"""
    total: mx.array
    """float32, log-sum-exp of the logits"""
    inverse_probability: mx.array
    """float32, one over the probability of `best`; see `constrained.among_allowed` for what a constraint changes"""


class Sampler(Protocol):
    """Makes the first canvas, and the next one of each step's logits."""

    def start(self, shape: tuple[int, int], key: mx.array) -> mx.array:
        """Return the first canvas, ids of shape (B, C)."""
        ...

    def step(self, processed: ProcessedLogits, canvas: mx.array, key: mx.array) -> Draft:
        """Return the draft of logits [B, C, V], which were computed from the canvas [B, C].

        key: one for each row [B, 2], so that a row's draws do not depend on other rows; or one for a single row.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class EntropyBoundSampler:
    """The reference's rule; with `greedy` accepted positions take their most likely token instead of a draw."""

    vocab_size: int
    entropy_bound: float
    greedy: bool = False

    def start(self, shape: tuple[int, int], key: mx.array) -> mx.array:
        """Return uniform noise over the whole vocabulary."""
        return mx.random.randint(0, self.vocab_size, shape, key=key)

    def step(self, processed: ProcessedLogits, canvas: mx.array, key: mx.array) -> Draft:
        """Draw a token at every position, and noise for those that are not accepted."""
        length = canvas.shape[1]

        def draw(own: mx.array) -> tuple[mx.array, mx.array]:
            draw_key, noise_key = mx.random.split(own)
            uniform = mx.random.uniform(shape=(length,), key=draw_key)
            return uniform, mx.random.randint(0, self.vocab_size, (length,), key=noise_key)

        uniform, noise = mx.vmap(draw)(key.reshape(-1, 2))
        reading = processed.read(uniform)
        if self.greedy:
            reading = reading._replace(drawn=reading.best)
        return make_draft(reading, noise, self.entropy_bound)


def make_draft(reading: Reading, noise: mx.array, entropy_bound: float) -> Draft:
    """Apply the entropy bound to a reading, whose tokens are drawn already, and noise [B, C]."""
    accepted = accept(reading.entropy, entropy_bound)
    canvas = mx.where(accepted, reading.drawn.astype(mx.int32), noise)
    return Draft(
        canvas=canvas,
        best=reading.best,
        accepted=accepted,
        entropy=reading.entropy,
        total=reading.total,
        inverse_probability=reading.inverse_probability,
    )


def accept(entropy: mx.array, entropy_bound: float) -> mx.array:
    """Return which positions are accepted, bool [B, C], by their entropy [B, C]; the most certain one always is."""
    order = mx.argsort(entropy, axis=-1)
    ascending = mx.take_along_axis(entropy, order, axis=-1)
    before = mx.cumsum(ascending, axis=-1) - ascending
    return mx.take_along_axis(before <= entropy_bound, mx.argsort(order, axis=-1), axis=-1)


def random_key(seed: int, block: int, step: int) -> mx.array:
    """Return the random key of one step of one block; it is equal on every machine. Step 0 is the first canvas.

    numpy's SeedSequence derives independent keys from coordinates: no step depends on how many came before.
    """
    words = np.random.SeedSequence(entropy=seed, spawn_key=(block, step)).generate_state(2, np.uint32)
    return mx.array(words)
