"""How likely each of several answers is, by the encoder: no canvas, no draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import mlx.core as mx

from mlx_diffgemma.generation.prefill import following, read_from, read_whole
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.prefix import Reuse


def log_probabilities(
    model: DiffusionGemma,
    tokens: Sequence[int],
    answers: Sequence[Sequence[int]],
    stops: Sequence[int],
    reuse: Reuse | None = None,
) -> list[float]:
    """Return the log-probability of each answer, followed by any of the end tokens `stops`, after the prompt `tokens`.

    All answers, of at least one token each, go through the model together after one prefix. The probability is that of
    these very ids, the encoder's, at temperature 1.
    """
    reading = read_from(model, tokens, reuse, wants_last=True)
    for _ in read_whole(model, reading):
        pass
    cache, last = reading.cache, reading.last
    assert last is not None
    rows = [mx.array([list(answer)]) for answer in answers]
    hidden = model.peek([model.embed(row) for row in rows], [cache.snapshot() for _ in rows])
    ending = mx.array([list(stops)])
    sums: list[mx.array] = []
    for row, states in zip(rows, hidden, strict=True):
        text = following(model, mx.concatenate([last, states[:, :-1]], axis=1), row).sum()
        ends = following(model, mx.repeat(states[:, -1:], ending.shape[1], axis=1), ending)
        sums.append(text + mx.logsumexp(ends))
    return cast("list[float]", mx.stack(sums).tolist())


def relative_probabilities(logs: Sequence[float]) -> list[float]:
    """Return the probabilities, which sum to 1, of alternatives with these log-probabilities."""
    highest = max(logs)
    weights = [math.exp(log - highest) for log in logs]
    return [weight / sum(weights) for weight in weights]
