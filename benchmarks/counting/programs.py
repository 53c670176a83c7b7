"""Trace one denoising step in its steady state, or a prefill, of this runtime and of mlx-vlm.

The loops of `stepping` are traced for three steps with batch size 1. The third step is counted: the nodes that its
draft depends on and the first two drafts do not. The stop rule is left out; it is a few operations per position. The
arrays of model and cache have shapes and no values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
from stepping import ours, theirs

from counting.costs import Counted, count, is_wide
from counting.graph import Graph, between, runs, trace
from counting.instrument import record
from counting.layout import VIEWS
from counting.models import arrays, put
from counting.parts import EMBEDDING, OVER_VOCABULARY, SAMPLING, SIGNAL, layer_parts
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.logits import ProcessedLogits, group_width
from mlx_diffgemma.sampling.sampler import Draft, EntropyBoundSampler

STEPS = 3


class Stages(NamedTuple):
    """The results of a computation, in the order in which they are made."""

    before: Sequence[mx.array]
    """results of what is not counted"""
    layers: Sequence[mx.array]
    """results of the layers and the head"""
    sampling: Sequence[mx.array] = ()
    """results of the sampler"""


@dataclass(frozen=True, kw_only=True)
class Program:
    """A computation to be counted: stages(cache, *inputs); the arrays of model and cache are inputs too."""

    model: nn.Module
    cache: Callable[[], object]
    """makes a cache with the prefix in it"""
    inputs: Sequence[mx.array]
    stages: Callable[..., Stages]
    vocabulary: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The nodes of a program with their costs and parts, and the primitives of a run."""

    counted: Sequence[Counted]
    parts: Sequence[str]
    runs: Sequence[str] | None
    """None for a GPU, which this machine may not have"""


def our_step(model: DiffusionGemma, canvas: int, prefix: int, stepping: ours.Stepping) -> Program:
    """Return one step of this runtime after a prefix of `prefix` tokens, with the options of `stepping`."""

    def stages(cache: Cache, ids: mx.array) -> Stages:
        sampler = _Heard(vocab_size=model.config.vocab_size, entropy_bound=0.1)
        counted = replace(stepping, steps=STEPS, sampler=sampler, stop=_Never())
        heard.clear()
        *before, last = ours.drafts(model, cache, ids, counted)
        *earlier, raw = heard
        return Stages([*earlier, *(array for draft in before for array in draft)], [raw], [*last])

    heard: list[mx.array] = []

    class _Heard(EntropyBoundSampler):
        def step(self, processed: ProcessedLogits, canvas: mx.array, key: mx.array) -> Draft:
            heard.append(processed.raw)
            return super().step(processed, canvas, key)

    return Program(
        model=model,
        cache=lambda: _behind(model, prefix),
        inputs=[mx.zeros((1, canvas), mx.int32)],
        stages=stages,
        vocabulary=model.config.vocab_size,
    )


def _behind(model: DiffusionGemma, prefix: int) -> Cache:
    """Return a cache with `prefix` tokens in it."""
    cache = model.make_cache()
    if prefix:
        with record(marking=False):
            model.encode([mx.zeros((1, prefix), mx.int32)], [cache])
    return cache


class _Never:
    """A stop rule that never looks at a canvas."""

    def start(self, shape: tuple[int, int]) -> mx.array:
        """Return an empty memory."""
        return mx.zeros((0, *shape), mx.int32)

    def judge(self, *values: Any) -> tuple[mx.array, mx.array]:
        """Return that no canvas converged."""
        memory, best, _ = values[-3:]
        return memory, mx.zeros((best.shape[0],), mx.bool_)


def our_prefill(model: DiffusionGemma, tokens: int, prefix: int) -> Program:
    """Return the encoding of `tokens` tokens after a prefix in the engine's chunks; the results are the cache."""
    inputs = [mx.zeros((1, length), mx.int32) for length in ours.chunks(model.kernels, tokens, prefix)]

    def stages(cache: Cache, *pieces: mx.array) -> Stages:
        for piece in pieces:
            model.encode([piece], [cache])
        return Stages([], cache.arrays)

    return Program(
        model=model,
        cache=lambda: _behind(model, prefix),
        inputs=inputs,
        stages=stages,
        vocabulary=model.config.vocab_size,
    )


def their_step(model: nn.Module, canvas: int, prefix: int) -> Program:
    """Return one step of mlx-vlm after a prefix of `prefix` tokens."""
    from mlx_vlm.generate import diffusion

    theirs.never_converge(model)
    real = diffusion._diffusion_stable_and_confident

    def cache() -> list[Any]:
        with record(marking=False):
            return theirs.prefilled(model, mx.zeros((1, prefix), mx.int32))

    def stages(cache: list[Any], ids: mx.array) -> Stages:
        begun: list[list[mx.array]] = []
        judged: list[list[mx.array]] = []

        def listen(canvas_ids: mx.array, conditioning: mx.array | None) -> None:
            begun.append([array for array in (canvas_ids, conditioning) if array is not None])
            if len(begun) > STEPS:
                raise _EnoughError

        def judge(best: mx.array, processed: mx.array, *_: Any) -> bool:
            judged.append([best, processed])
            return False

        diffusion._diffusion_stable_and_confident = judge
        try:
            theirs.generate(model, cache, ids, theirs.Stepping(steps=STEPS + 2), listen)
        except _EnoughError:
            pass
        finally:
            diffusion._diffusion_stable_and_confident = real
        best, processed = judged[-1]
        # The conditioning of the third step is computed after the sampling of the second; it belongs to the third.
        earlier = [array for arrays in judged[:-1] for array in arrays] + [arrays[0] for arrays in begun[:STEPS]]
        return Stages(earlier, [processed], [best, begun[STEPS][0]])

    config = model.config.text_config
    inputs = [mx.zeros((1, canvas), mx.int32)]
    return Program(model=model, cache=cache, inputs=inputs, stages=stages, vocabulary=config.vocab_size)


class _EnoughError(Exception):
    """Ends mlx-vlm's loop."""


def measure(program: Program, *, gpu: bool) -> Measured:
    """Trace a program, count its nodes and assign them to parts. Raises CountError."""
    weights, prefix = arrays(program.model), arrays(program.cache())
    weights_at, prefix_at = len(program.inputs), len(program.inputs) + len(weights)
    lengths: list[int] = []

    def flat(*values: mx.array) -> list[mx.array]:
        cache = program.cache()
        put(cache, dict(zip(prefix, values[prefix_at:], strict=True)))
        put(program.model, dict(zip(weights, values[weights_at:prefix_at], strict=True)))
        try:
            stages = program.stages(cache, *values[:weights_at])
        finally:
            put(program.model, weights)
        lengths[:] = map(len, stages)
        return [array for stage in stages for array in stage]

    arguments = [*program.inputs, *weights.values(), *prefix.values()]
    graph = trace(flat, arguments, gpu=gpu)
    found = None
    if not gpu:
        with record(marking=False):
            results = flat(*arguments)
        found = runs(results[lengths[0] :], results[: lengths[0]], arguments)
    parameters = dict(zip((ref.name for ref in graph.inputs[weights_at:prefix_at]), weights, strict=True))
    return _sorted(program, graph, lengths, parameters, found)


def _is_of_logits(shape: Sequence[int], vocabulary: int) -> bool:
    """Return whether an array is as wide as the vocabulary, or has a number for each group of its tokens."""
    return is_wide(shape, vocabulary) or (vocabulary > 0 and shape[-1:] == (vocabulary // group_width(vocabulary),))


def _sorted(
    program: Program, graph: Graph, lengths: Sequence[int], parameters: dict[str, str], found: Sequence[str] | None
) -> Measured:
    """Assign the counted nodes to parts; nodes before the sampler by the parameters that they read."""
    before = graph.outputs[: lengths[0]]
    layers = graph.outputs[lengths[0] : lengths[0] + lengths[1]]
    counted = count(
        graph.nodes,
        parameters=[ref for ref in graph.inputs if ref.name in parameters],
        vocabulary=program.vocabulary,
    )
    done = {id(node) for node in between(graph, before)}
    leading = {id(node) for node in between(graph, [*before, *layers])} - done
    wanted = {id(node) for node in between(graph, graph.outputs)} - done
    first = [node for node in graph.nodes if id(node) in leading]
    prefix = [ref.name for ref in graph.inputs[len(program.inputs) :] if ref.name not in parameters]
    starts: dict[str, str] = dict.fromkeys(prefix, "attention")
    for node in graph.nodes:
        if id(node) in done:
            for ref in node.outputs:
                starts[ref.name] = SIGNAL if _is_of_logits(ref.shape, program.vocabulary) else EMBEDDING
    for node in graph.nodes:
        if node.kind in VIEWS and node.inputs[0].name in parameters:
            parameters |= {ref.name: parameters[node.inputs[0].name] for ref in node.outputs}
    part_of = dict(zip(map(id, first), layer_parts(first, parameters, starts), strict=True))
    chosen: list[Counted] = []
    parts: list[str] = []
    for each in counted:
        if id(each.node) in wanted:
            part = part_of.get(id(each.node), SAMPLING)
            # Other arrays may have as many elements by chance, such as the heads of attention in the release.
            chosen.append(each if part in OVER_VOCABULARY else replace(each, cost=replace(each.cost, vocabulary=0)))
            parts.append(part)
    return Measured(counted=chosen, parts=parts, runs=found)
