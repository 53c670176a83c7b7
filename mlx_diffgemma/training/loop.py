"""The training loop: a generator of one event per step, evaluation and save; its callers draw and log them.

A step that has begun is always finished: a training that is stopped between two events can go on from there.

per step:
  1  batches, from (seed, step) alone
  2  mean losses and gradient; if they are not finite, the state before the step is saved and TrainingError raised
  3  the gradient is clipped to a norm
  4  AdamW at the learning rate of the step             -> Stepped
  5  every so many steps, and at the end: evaluation    -> Evaluated
  6  every so many steps, and at the end: save          -> Saved
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TypeAlias, cast

import mlx.core as mx
import mlx.optimizers as optim
from mlx.utils import tree_flatten

from mlx_diffgemma.errors import TrainingError
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.training.batches import Batches
from mlx_diffgemma.training.gradients import Gradient, Tree, Work, Workers, times
from mlx_diffgemma.training.settings import TrainingSettings
from mlx_diffgemma.training.state import State


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """A step is done. The losses, in nats, are those of the parameters before it."""

    step: int
    """counted from 1"""
    loss: float
    canvas: float
    causal: float
    rate: float
    """the learning rate"""
    norm: float
    """of the gradient before clipping"""
    tokens: int
    """tokens of the step without padding, and all positions of its canvases"""
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The held-out losses, in nats, and answers after `step` steps."""

    step: int
    canvas: float
    causal: float
    right: int
    """generated answers that equal the wanted ones"""
    asked: int


@dataclass(frozen=True, kw_only=True)
class Saved:
    """The state after `step` steps is saved."""

    step: int


_TINY = 1e-12
TrainingEvent: TypeAlias = Stepped | Evaluated | Saved


@dataclass(frozen=True, kw_only=True)
class Pace:
    """After how many steps a training evaluates and saves; 0 is only at its end."""

    evaluate: int = 200
    save: int = 200


def training_events(
    model: DiffusionGemma,
    workers: Workers,
    batches: Batches,
    settings: TrainingSettings,
    *,
    pace: Pace,
    start: State | None,
    save: Callable[[State], None],
    evaluate: Callable[[int], Evaluated] | None = None,
) -> Generator[TrainingEvent]:
    """Train the trainable parameters of `model`; at each event `model` has the parameters reached.

    start: the state to go on from; None starts with the parameters of `model`. save: stores a state; it is also called
    when the generator is closed. evaluate: measures the model after the number of steps that it gets.
    Raises TrainingError.
    """
    optimizer = _optimizer(settings)
    if start is None:
        optimizer.init(model.trainable_parameters())
        start = State(step=0, parameters=model.trainable_parameters(), optimizer=optimizer.state)
    state = start
    model.update(state.parameters)
    try:
        while state.step < settings.steps:
            began = time.perf_counter()
            work = _work(batches, state.step, settings.accumulate)
            mean = workers.mean(state.parameters, work)
            norm = _norm(mean, state.step)
            rate = settings.rate(state.step)
            state = _advanced(state, optimizer, mean.tree, min(1.0, settings.clip / max(norm, _TINY)), rate)
            model.update(state.parameters)
            yield _stepped(state.step, mean, work, rate=rate, norm=norm, seconds=time.perf_counter() - began)
            last = state.step == settings.steps
            if evaluate is not None and (last or _due(state.step, pace.evaluate)):
                yield evaluate(state.step)
            if last or _due(state.step, pace.save):
                save(state)
                yield Saved(step=state.step)
    except (GeneratorExit, TrainingError):
        save(state)
        raise


def _norm(mean: Gradient, step: int) -> float:
    """Return the norm of the gradient. Raises TrainingError if the norm or the loss is not finite."""
    flat = cast("list[tuple[str, mx.array]]", tree_flatten(mean.tree))
    squares = cast("list[float]", mx.stack([(each * each).sum() for _, each in flat]).tolist())
    # An exact sum: a saved state returns the parameters in another order, which would change the rounding.
    norm = math.sqrt(math.fsum(squares))
    loss = cast("float", mean.losses.total.item())
    if not math.isfinite(norm + loss):
        raise TrainingError(
            f"step {step + 1}: the loss is {loss} and its gradient's norm {norm}: the state before that step is kept; "
            "try a lower --learning-rate"
        )
    return norm


def _optimizer(settings: TrainingSettings) -> optim.Optimizer:
    return optim.AdamW(
        learning_rate=settings.learning_rate,
        betas=[settings.beta1, settings.beta2],
        weight_decay=settings.weight_decay,
        bias_correction=True,
    )


def _work(batches: Batches, step: int, accumulate: int) -> list[Work]:
    indices = range(step * accumulate, (step + 1) * accumulate)
    return [Work(batches.batch(index), batches.conditioned(index)) for index in indices]


def _advanced(state: State, optimizer: optim.Optimizer, gradient: Tree, scale: float, rate: float) -> State:
    optimizer.state = state.optimizer
    optimizer.learning_rate = mx.array(rate)
    parameters = cast("Tree", optimizer.apply_gradients(times(gradient, scale), state.parameters))
    mx.eval(parameters, optimizer.state)
    return State(step=state.step + 1, parameters=parameters, optimizer=optimizer.state)


def _stepped(step: int, mean: Gradient, work: list[Work], *, rate: float, norm: float, seconds: float) -> Stepped:
    total, canvas, causal = (cast("float", loss.item()) for loss in mean.losses)
    tokens = sum(each.batch.canvas.size + int(cast("float", each.batch.weights.sum().item())) for each in work)
    return Stepped(
        step=step, loss=total, canvas=canvas, causal=causal, rate=rate, norm=norm, tokens=tokens, seconds=seconds
    )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
