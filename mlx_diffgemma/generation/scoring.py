"""How likely each of several answers is, by the encoder: no canvas, no draws.

What several answers begin with goes through the model once, so its tokens are those of a tree:

    New York        New York --+-- <end>
    New York City              +-- City -- <end>
    Rome            Rome ------ <end>
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias, cast

import mlx.core as mx

from mlx_diffgemma.generation.prefill import read_from, read_whole
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.kernels import MAX_CHUNK
from mlx_diffgemma.model.prefix import Reuse, common_length

MAX_ROWS = 64
"""Branches that go through the model together at most: each layer copies the prefix for each while it is computed."""

Rests: TypeAlias = Mapping[int, Sequence[int]]
"""What is left of answers, by their number."""


class _Beginning(NamedTuple):
    """What some answers begin with."""

    cache: Cache
    """the prompt and the beginning"""
    total: mx.array
    """[] log-probability of the beginning"""
    following: mx.array
    """[V] log-probabilities of the token after it"""
    rests: Rests


class _Branch(NamedTuple):
    """Tokens with which some of the answers of a beginning go on."""

    beginning: _Beginning
    tokens: Sequence[int]
    rests: Rests
    """after the tokens"""


def log_probabilities(
    model: DiffusionGemma,
    tokens: Sequence[int],
    answers: Sequence[Sequence[int]],
    stops: Sequence[int],
    reuse: Reuse | None = None,
) -> list[float]:
    """Return the log-probability of each answer, followed by any of the end tokens `stops`, after the prompt `tokens`.

    Beginnings that answers, of at least one token each, share go through the model once. The probability is that of
    these very ids, the encoder's, at temperature 1.
    """
    reading = read_from(model, tokens, reuse, wants_last=True)
    for _ in read_whole(model, reading):
        pass
    assert reading.last is not None
    (following,) = _log_softmax(model, reading.last[0])
    beginnings = [_Beginning(reading.cache, mx.zeros(()), following, dict(enumerate(answers)))]
    found: dict[int, float] = {}
    while beginnings:
        branches = [branch for beginning in beginnings for branch in _branches(beginning)]
        beginnings = []
        for group in _groups(branches):
            for beginning in _read(model, group):
                whole = [number for number, rest in beginning.rests.items() if not rest]
                if whole:
                    ended = beginning.total + mx.logsumexp(beginning.following[mx.array(list(stops))])
                    found |= dict.fromkeys(whole, cast("float", ended.item()))
                if len(whole) < len(beginning.rests):
                    beginnings.append(beginning)
    return [found[number] for number in range(len(answers))]


def _branches(beginning: _Beginning) -> Iterator[_Branch]:
    """Yield a branch for every token with which an answer goes on, as long as all that do so have it in common."""
    by_first: dict[int, dict[int, Sequence[int]]] = {}
    for number, rest in beginning.rests.items():
        if rest:
            by_first.setdefault(rest[0], {})[number] = rest
    for rests in by_first.values():
        first = next(iter(rests.values()))
        common = min(common_length(first, rest) for rest in rests.values())
        yield _Branch(beginning, first[:common], {number: rest[common:] for number, rest in rests.items()})


def _groups(branches: Sequence[_Branch]) -> Iterator[list[_Branch]]:
    """Divide branches into groups that go through the model together."""
    group: list[_Branch] = []
    for branch in branches:
        is_full = len(group) == MAX_ROWS or sum(len(each.tokens) for each in [*group, branch]) > MAX_CHUNK
        if group and is_full:
            yield group
            group = []
        group.append(branch)
    if group:
        yield group


def _read(model: DiffusionGemma, branches: Sequence[_Branch]) -> Iterator[_Beginning]:
    """Read the tokens of branches, each into a cache of its own."""
    rows = [mx.array([list(branch.tokens)]) for branch in branches]
    caches = [branch.beginning.cache.branch() for branch in branches]
    hidden = model.peek([model.embed(row) for row in rows], caches)
    for (beginning, tokens, rests), cache, states in zip(branches, caches, hidden, strict=True):
        cache.advance(len(tokens))
        inside = _log_softmax(model, states[0])
        total = beginning.total + beginning.following[tokens[0]]
        if len(tokens) > 1:
            total += inside[mx.arange(len(tokens) - 1), mx.array(list(tokens[1:]))].sum()
        following = inside[-1]
        # Row by row: the logits of long answers are large.
        mx.eval(total, following)
        yield _Beginning(cache, total, following, rests)


def _log_softmax(model: DiffusionGemma, hidden: mx.array) -> mx.array:
    """Return the encoder's log-probabilities [L, V] of the token after each of the hidden states [L, D]."""
    logits = model.logits(hidden)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def relative_probabilities(logs: Sequence[float]) -> list[float]:
    """Return the probabilities, which sum to 1, of alternatives with these log-probabilities."""
    highest = max(logs)
    weights = [math.exp(log - highest) for log in logs]
    return [weight / sum(weights) for weight in weights]
