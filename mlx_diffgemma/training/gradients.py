"""Losses and gradients of batches, compiled; on a CPU in several threads, since MLX uses one core per stream.

    batches of one step -> workers (a thread and a copy of the model's modules each) -> sums -> mean loss, mean gradient

The order of the sums depends on the number of workers alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from operator import add
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

import mlx.core as mx
from mlx.utils import tree_map

from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.training.forward import TrainingRun
from mlx_diffgemma.training.objective import Batch, Losses, losses

MAX_CACHED = 4 * 2**30
"""Bytes that the allocator may keep for reuse."""
Tree: TypeAlias = dict[str, Any]
"""Parameters or gradients, nested as the modules are."""
Nested = TypeVar("Nested")


class Gradient(NamedTuple):
    """Losses, and the gradient of their total."""

    losses: Losses
    tree: Tree


class Work(NamedTuple):
    """One batch to compute."""

    batch: Batch
    conditioned: bool


class Workers:
    """Computes the mean gradient of a step's batches."""

    def __init__(self, model: DiffusionGemma, count: int, run: TrainingRun, causal_weight: float) -> None:
        """Start `count` threads; more than one is faster on a CPU only."""
        copies = [model, *(copy.deepcopy(model) for _ in range(count - 1))]
        self._functions = [_compiled(each, run, causal_weight) for each in copies]
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix="worker") for _ in copies]

    def mean(self, parameters: Tree, work: Sequence[Work]) -> Gradient:
        """Return the mean losses and gradient at `parameters` over all of `work`, evaluated."""
        count = len(self._threads)
        # MLX cannot evaluate in one thread what another has only planned.
        mx.eval(parameters, [each.batch for each in work])
        parts = [work[start::count] for start in range(min(count, len(work)))]
        jobs = [
            thread.submit(_summed, function, parameters, part)
            for thread, function, part in zip(self._threads, self._functions, parts, strict=False)
        ]
        total = reduce(_plus, [job.result() for job in jobs])
        mean = times(total, 1 / len(work))
        mx.eval(mean)
        if mx.get_cache_memory() > MAX_CACHED:
            # Batches differ in length: buffers of sizes that are not needed again would accumulate.
            mx.clear_cache()
        return mean

    def close(self) -> None:
        """End the threads."""
        for thread in self._threads:
            # MLX aborts the process at its end if a thread has ended without this.
            thread.submit(mx.clear_streams).result()
            thread.shutdown()


def times(tree: Nested, factor: float) -> Nested:
    """Multiply every array of a tree by a factor."""

    def product(array: mx.array) -> mx.array:
        return array * factor

    return cast("Nested", tree_map(product, tree))


GradientFunction: TypeAlias = Callable[[Tree, Work], Gradient]


def _compiled(model: DiffusionGemma, run: TrainingRun, causal_weight: float) -> GradientFunction:
    def make(conditioned: bool) -> Callable[[Tree, Batch], tuple[Losses, Tree]]:
        def objective(parameters: Tree, batch: Batch) -> Losses:
            own = model.trainable_parameters()
            model.update(parameters)
            try:
                return losses(model, batch, run, conditioned=conditioned, causal_weight=causal_weight)
            finally:
                # Traced arrays must not remain in the modules.
                model.update(own)

        return mx.compile(mx.value_and_grad(objective))

    functions = {conditioned: make(conditioned) for conditioned in (False, True)}
    return lambda parameters, work: Gradient(*functions[work.conditioned](parameters, work.batch))


def _summed(function: GradientFunction, parameters: Tree, part: Sequence[Work]) -> Gradient:
    total: Gradient | None = None
    for work in part:
        found = function(parameters, work)
        total = found if total is None else _plus(total, found)
        # Evaluated by the thread that planned it.
        mx.eval(total)
    assert total is not None
    return total


def _plus(left: Gradient, right: Gradient) -> Gradient:
    return tree_map(add, left, right)
