"""This runtime's loops: the one place of the benchmarks that knows how the engine drives the model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx

from mlx_diffgemma.cache import Cache
from mlx_diffgemma.engine import default_rules, prefill, refine
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model import DiffusionGemma
from mlx_diffgemma.sampler import Draft, Sampler, random_key
from mlx_diffgemma.stopping import StableAndConfident, StopRule

ENDLESS = StableAndConfident(stability=1, confidence=-1.0)
"""The reference's rule with a mean entropy in nats below which no canvas is, so that all steps run."""


@dataclass(frozen=True, kw_only=True)
class Stepping:
    """How the steps are taken, by the reference's rules; top_k: tokens that condition the next step, None being all."""

    steps: int
    top_k: int | None = None
    greedy: bool = False
    seed: int = 0
    sampler: Sampler | None = None
    stop: StopRule = ENDLESS


def prefilled(model: DiffusionGemma, tokens: mx.array) -> Cache:
    """A cache with tokens [1, L] in it, encoded in chunks and evaluated."""
    cache = model.make_cache()
    for _ in prefill(model, tokens, cache):
        pass
    return cache


def drafts(model: DiffusionGemma, cache: Cache, canvas: mx.array, stepping: Stepping) -> Iterator[Draft]:
    """The drafts of so many steps on canvas [1, C] behind the prefix in the cache."""
    config = GenerationConfig(max_steps=stepping.steps, greedy=stepping.greedy)
    rules = replace(default_rules(model, config, stepping.sampler), stop=stepping.stop)
    keys = (random_key(stepping.seed, 0, step) for step in range(1, stepping.steps + 1))
    return refine(_Conditioned(model, stepping.top_k), cache, canvas, rules, keys)  # type: ignore[arg-type]


class _Conditioned:
    """A model whose steps are conditioned by the top_k most likely tokens of the step before."""

    def __init__(self, model: DiffusionGemma, top_k: int | None) -> None:
        self._model = model
        self._top_k = top_k

    def signal(self, processed: mx.array) -> mx.array:
        """The model's, with this top_k."""
        return self._model.signal(processed, self._top_k)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


def chunks(tokens: int, prefix: int) -> list[int]:
    """The lengths in which the engine encodes `tokens` tokens behind a prefix."""
    listener = _Listener(prefix)
    for _ in prefill(listener, mx.zeros((1, tokens), mx.int32), listener):  # type: ignore[arg-type]
        pass
    return listener.lengths


class _Listener:
    """A model and its cache that only hear how long the chunks are."""

    def __init__(self, offset: int) -> None:
        self.lengths: list[int] = []
        self.offset = offset
        self.arrays: list[mx.array] = []

    def encode(self, tokens: mx.array, _: object) -> None:
        """Remember the length."""
        self.lengths.append(tokens.shape[1])
        self.offset += tokens.shape[1]
