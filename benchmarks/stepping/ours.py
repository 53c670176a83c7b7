"""This runtime's loops: the only module of the benchmarks that knows how the engine drives the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import mlx.core as mx
import numpy as np

from mlx_diffgemma.generation.prefill import prefill
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import CanvasRow, DiffusionGemma
from mlx_diffgemma.model.kernels import Kernels
from mlx_diffgemma.sampling.canvas import Canvas
from mlx_diffgemma.sampling.denoising import refine
from mlx_diffgemma.sampling.sampler import Draft, Sampler
from mlx_diffgemma.sampling.stopping import StableAndConfident, StopRule
from mlx_diffgemma.sampling.strategy import Rules, default_rules

ENDLESS = StableAndConfident(stability_threshold=1, confidence_threshold=-1.0)
"""The reference's stop rule with an entropy threshold that no canvas is below, so that all steps run."""


@dataclass(frozen=True, kw_only=True)
class Stepping:
    """Options of the steps, by the reference's rules.

    top_k: tokens that condition the next step, None for all. rows: positions that steps after the first compute, None
    for all. prefix_top_k: positions of the prefix that steps after the first see in full layers, None for all.
    """

    steps: int
    top_k: int | None = None
    rows: int | None = None
    prefix_top_k: int | None = None
    greedy: bool = False
    seed: int = 0
    sampler: Sampler | None = None
    stop: StopRule = ENDLESS


def prefilled(model: DiffusionGemma, tokens: mx.array) -> Cache:
    """Encode tokens [1, L] in chunks; return the evaluated cache."""
    cache = model.make_cache()
    for _ in prefill(model, [tokens], [cache]):
        pass
    return cache


def drafts(model: DiffusionGemma, cache: Cache, canvas: mx.array, stepping: Stepping) -> Iterator[Draft]:
    """Yield the drafts of the steps on canvas [1, C] after the prefix in the cache."""
    # The last step of a canvas computes all positions, whatever `rows` says: it comes after those that are taken.
    last = stepping.steps if stepping.rows is None else stepping.steps + 1
    config = GenerationConfig(max_steps=last, greedy=stepping.greedy).exact()
    config = replace(config, conditioning_top_k=stepping.top_k, prefix_top_k=stepping.prefix_top_k)
    rules = replace(default_rules(model, config, stepping.sampler), stop=stepping.stop)
    run = _canvas(cache, rules, stepping, canvas.shape[1])
    run.state = run.state._replace(canvas=canvas)
    return (each[0] for each in islice(refine(model, [run]), stepping.steps))


def _canvas(cache: Cache, rules: Rules, stepping: Stepping, length: int) -> Canvas:
    if stepping.rows is None:
        return Canvas.start(cache, rules, seed=stepping.seed, block=0, length=length, forbidden=[])
    some = replace(rules, whole_every=stepping.steps + 1)
    canvas = _FixedRows.start(cache, some, seed=stepping.seed, block=0, length=length, forbidden=[])
    assert isinstance(canvas, _FixedRows)
    canvas.rows = stepping.rows
    return canvas


@dataclass(eq=False)
class _FixedRows(Canvas):
    """A canvas whose steps after the first compute the first `rows` positions."""

    rows: int = 0

    def choose_places(self, *, is_settled: bool) -> None:
        """Choose them without a look at the draft."""
        self.places = None if is_settled else np.arange(self.rows)


def logits(model: DiffusionGemma, cache: Cache, canvas: mx.array) -> mx.array:
    """Return the logits of canvas [1, C] after the prefix in the cache."""
    (hidden,) = model.denoise([CanvasRow(canvas, cache)])
    return model.logits(hidden)


def chunks(kernels: Kernels, tokens: int, prefix: int) -> list[int]:
    """Return the lengths of the chunks in which the engine encodes `tokens` tokens after a prefix."""
    listener = _Listener(kernels, prefix)
    for _ in prefill(listener, [mx.zeros((1, tokens), mx.int32)], [listener]):  # type: ignore[arg-type]
        pass
    return listener.lengths


class _Listener:
    """A model and its cache that only record the lengths of chunks."""

    def __init__(self, kernels: Kernels, offset: int) -> None:
        self.lengths: list[int] = []
        self.offset = offset
        self.kernels = kernels
        self.arrays: list[mx.array] = []

    def encode(self, rows: Sequence[mx.array], _: object) -> list[mx.array]:
        """Record the length."""
        (tokens,) = rows
        self.lengths.append(tokens.shape[1])
        self.offset += tokens.shape[1]
        return [tokens]
