"""Losses and gradients of batches, compiled; on the CPU in several threads, since MLX uses one core per stream.

    batches of one step -> workers (a thread and a copy of the model's modules each) -> sums -> mean loss, mean gradient

The sums are taken in an order that depends on nothing but the number of workers.
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
from mlx_diffgemma.training.forward import Run
from mlx_diffgemma.training.objective import Batch, Losses, losses

MOST_CACHED = 4 * 2**30
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

    def __init__(self, model: DiffusionGemma, count: int, run: Run, causal_weight: float) -> None:
        """`count` threads; more than one pays on the CPU only."""
        copies = [model, *(copy.deepcopy(model) for _ in range(count - 1))]
        self._functions = [_compiled(each, run, causal_weight) for each in copies]
        self._threads = [ThreadPoolExecutor(1, thread_name_prefix="worker") for _ in copies]

    def mean(self, parameters: Tree, work: Sequence[Work]) -> Gradient:
        """Mean losses and gradient at `parameters` over all of `work`, evaluated."""
        count = len(self._threads)
        # A thread cannot evaluate what another one has only planned.
        mx.eval(parameters, [each.batch for each in work])
        shares = [work[place::count] for place in range(min(count, len(work)))]
        jobs = [
            thread.submit(_summed, function, parameters, share)
            for thread, function, share in zip(self._threads, self._functions, shares, strict=False)
        ]
        total = reduce(_plus, [job.result() for job in jobs])
        mean = times(total, 1 / len(work))
        mx.eval(mean)
        if mx.get_cache_memory() > MOST_CACHED:
            # Batches differ in length: buffers of sizes that do not come again would pile up.
            mx.clear_cache()
        return mean

    def close(self) -> None:
        """End the threads."""
        for thread in self._threads:
            # MLX aborts the process at its end where a thread left its streams behind.
            thread.submit(mx.clear_streams).result()
            thread.shutdown()


def times(tree: Nested, factor: float) -> Nested:
    """Every array of a tree times a factor."""

    def product(array: mx.array) -> mx.array:
        return array * factor

    return cast("Nested", tree_map(product, tree))


Function: TypeAlias = Callable[[Tree, Work], Gradient]


def _compiled(model: DiffusionGemma, run: Run, causal_weight: float) -> Function:
    def make(conditioned: bool) -> Callable[[Tree, Batch], tuple[Losses, Tree]]:
        def objective(parameters: Tree, batch: Batch) -> Losses:
            own = model.trainable_parameters()
            model.update(parameters)
            try:
                return losses(model, batch, run, conditioned=conditioned, causal_weight=causal_weight)
            finally:
                # What was traced must not stay in the modules.
                model.update(own)

        return mx.compile(mx.value_and_grad(objective))

    functions = {conditioned: make(conditioned) for conditioned in (False, True)}
    return lambda parameters, work: Gradient(*functions[work.conditioned](parameters, work.batch))


def _summed(function: Function, parameters: Tree, share: Sequence[Work]) -> Gradient:
    total: Gradient | None = None
    for work in share:
        found = function(parameters, work)
        total = found if total is None else _plus(total, found)
        # Evaluated in this thread, for the same reason.
        mx.eval(total)
    assert total is not None
    return total


def _plus(left: Gradient, right: Gradient) -> Gradient:
    return tree_map(add, left, right)
