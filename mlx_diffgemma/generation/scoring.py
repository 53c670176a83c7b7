"""How likely each of several answers is, read from the encoder: no canvas, no draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import mlx.core as mx

from mlx_diffgemma.generation.prefill import following, prefill
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma


def log_probabilities(
    model: DiffusionGemma, tokens: Sequence[int], answers: Sequence[Sequence[int]], stops: Sequence[int]
) -> list[float]:
    """The log-probability, behind the prompt `tokens`, of each answer with any of the end tokens `stops` behind it.

    All answers, of at least one token each, go through the model together behind one prefix. The probability is that of
    these very ids, the encoder's, at temperature 1.
    """
    prompt, cache = mx.array([list(tokens)]), model.make_cache()
    for _ in prefill(model, prompt[:, :-1], cache):
        pass
    last = model.encode(prompt[:, -1:], cache)
    mx.eval(last, cache.arrays)
    rows = [mx.array([list(answer)]) for answer in answers]
    hidden = model.peek_rows(rows, [cache.snapshot() for _ in rows])
    ending = mx.array([list(stops)])
    sums: list[mx.array] = []
    for row, states in zip(rows, hidden, strict=True):
        text = following(model, mx.concatenate([last, states[:, :-1]], axis=1), row).sum()
        ends = following(model, mx.repeat(states[:, -1:], ending.shape[1], axis=1), ending)
        sums.append(text + mx.logsumexp(ends))
    return cast("list[float]", mx.stack(sums).tolist())


def shares(logs: Sequence[float]) -> list[float]:
    """Log-probabilities -> how likely each is among them: probabilities that sum to 1."""
    highest = max(logs)
    weights = [math.exp(log - highest) for log in logs]
    return [weight / sum(weights) for weight in weights]
