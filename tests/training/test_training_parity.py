"""The trainer's losses and gradients against transformers 5.23 and torch's autograd (fixtures/make_training_parity.py).

Tolerance: 1e-4 of each loss, and of the largest value of each gradient. Both sides compute in float32 and sum in
different orders. Against float64 the reference's gradients are off by up to 2e-5 and ours by up to 5e-5, most in layer
scalars: each of those is one sum over all tokens, which partly cancels. Mistakes (a mask off by one, a detached prefix,
a signal that is a constant, a frozen router, padding that counts) change some gradient by 3e-2 or more.

The script tells what the reference computes: sequence by sequence, without padding. It also softens the attention of
the checkpoints, without which rounding grows to 1e-2 on either side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest
from mlx.utils import tree_flatten
from tiny import FIXTURES, PARITY, denoised, encoded, random_model

from mlx_diffgemma.checkpoint.weights import load_model
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.training.forward import CanvasBatch, TrainingRun, checkpointed, denoise, encode, plain
from mlx_diffgemma.training.gradients import Work, Workers
from mlx_diffgemma.training.objective import Batch, Losses, losses

SEEDS = (0, 1, 2)
TOLERANCE = 1e-4
LAYER_SCALARS = ("model.encoder.language_model.layers.{}.layer_scalar", "model.decoder.layers.{}.layer_scalar")

Gradients = Mapping[str, mx.array]

conditioning = pytest.mark.parametrize("conditioned", [False, True], ids=["plain", "conditioned"])
running = pytest.mark.parametrize("run", [plain, checkpointed])


@pytest.fixture(scope="module", params=SEEDS)
def seed(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def recorded(seed: int) -> dict[str, mx.array]:
    return mx.load(str(FIXTURES / "training" / f"seed-{seed}.safetensors"))


@pytest.fixture
def model(seed: int, recorded: dict[str, mx.array]) -> DiffusionGemma:
    """All of it trainable, routers too, and softened as the reference was."""
    model = load_model(PARITY / f"seed-{seed}", "float32")
    model.unfreeze()
    for layer in model.layers:
        layer.self_attn.q_norm.weight *= recorded["softness"]
    return model


@running
@conditioning
def test_losses_and_gradients_equal_the_reference(
    model: DiffusionGemma, recorded: dict[str, mx.array], conditioned: bool, run: TrainingRun
) -> None:
    found, gradients = differentiate(model, recorded_batch(recorded), run, conditioned)
    label = "conditioned" if conditioned else "plain"
    for name, loss in found._asdict().items():
        assert loss.item() == pytest.approx(recorded[f"{label}.{name}"].item(), rel=TOLERANCE), name
    start = f"{label}.gradient."
    expected = {name.removeprefix(start): array for name, array in recorded.items() if name.startswith(start)}
    assert gradients.keys() == expected.keys()
    projected = {name: as_stored(array, expected[name], recorded["directions"]) for name, array in gradients.items()}
    assert too_far(projected, expected, len(model.layers), TOLERANCE) == {}


def test_the_recorded_batches_exercise_padding_window_and_conditioning(
    model: DiffusionGemma, recorded: dict[str, mx.array]
) -> None:
    starts, lengths, window = recorded["starts"].tolist(), recorded["lengths"].tolist(), model.config.sliding_window
    assert min(starts) < window == sorted(starts)[1] < max(starts)
    assert len(set(lengths)) == 3
    assert max(lengths) < recorded["tokens"].shape[1]
    assert min(length - start for start, length in zip(starts, lengths, strict=True)) < model.config.canvas_length
    without, given = (recorded[f"{label}.canvas"].item() for label in ("plain", "conditioned"))
    assert abs(given - without) > 100 * TOLERANCE * without
    # Without conditioning a signal of zeros goes through these maps, which has no gradient at all.
    unused = [name for name in recorded if name.startswith("plain.gradient.") and not mx.any(recorded[name]).item()]
    assert len(unused) == 4
    assert all("self_conditioning" in name for name in unused)


@running
@conditioning
def test_padded_batches_equal_the_runtime_row_by_row(conditioned: bool, run: TrainingRun) -> None:
    """To 1e-4, as everywhere: the same products of other shapes are rounded differently (by 4e-6 in OpenBLAS)."""
    model, batch, lengths = random_model(), random_batch(), (9, 21, 37)
    signal = 3.0 * mx.random.normal((3, 16, 32), key=mx.random.key(7)) if conditioned else None
    hidden, prefix = encode(model, batch.tokens, run)
    logits = model.logits(denoise(model, CanvasBatch(batch.noisy, batch.starts), prefix, signal, run))
    for row, (start, length) in enumerate(zip(batch.starts.tolist(), lengths, strict=True)):
        one = slice(row, row + 1)
        alone = encoded(model, batch.tokens[one, :length], model.make_cache())
        assert difference(hidden[one, :length], alone) < TOLERANCE
        cache = model.make_cache()
        encoded(model, batch.tokens[one, :start], cache)
        found = denoised(model, batch.noisy[one], cache, None if signal is None else signal[one])
        assert difference(logits[one], found) < TOLERANCE


def test_the_causal_loss_is_the_weighted_mean_over_all_positions() -> None:
    """The fast loss computes logits for the tokens that count alone; here all are computed, and most weigh nothing."""
    model, batch = random_model(), random_batch()
    weights = mx.where(mx.arange(40) >= 7, batch.weights, 0.0)
    answers = batch._replace(weights=weights, predicted=mx.array([*np.flatnonzero(weights).tolist(), 0, 0, 0]))

    def slow(batch: Batch) -> mx.array:
        cap = model.config.final_logit_softcapping
        hidden, _ = encode(model, batch.tokens, plain)
        logits = cap * mx.tanh(model.raw_logits(hidden[:, :-1]) / cap)
        nats = nn.losses.cross_entropy(logits, batch.tokens[:, 1:])
        return (nats * batch.weights[:, 1:]).sum() / batch.weights.sum()

    def fast(batch: Batch) -> mx.array:
        return losses(model, batch, plain, conditioned=False, causal_weight=1.0).causal

    (first, expected), (second, found) = (nn.value_and_grad(model, each)(answers) for each in (slow, fast))
    assert second.item() == pytest.approx(first.item(), rel=1e-6)
    assert too_far(dict(tree_flatten(found)), dict(tree_flatten(expected)), len(model.layers), 1e-5) == {}


@conditioning
def test_the_canvas_of_a_row_that_is_not_denoised_does_not_count(conditioned: bool) -> None:
    model, batch = random_model(), random_batch()
    kept = mx.array([0, 2])
    rows = [array[kept] for array in batch[:5]]
    alone = Batch(*rows, predicted=mx.array(np.flatnonzero(rows[1])), denoised=mx.ones((2,)))
    found = losses(
        model, batch._replace(denoised=mx.array([1.0, 0.0, 1.0])), plain, conditioned=conditioned, causal_weight=1.0
    )
    expected = losses(model, alone, plain, conditioned=conditioned, causal_weight=1.0)
    assert found.canvas.item() == pytest.approx(expected.canvas.item(), rel=1e-5)
    none = losses(model, batch._replace(denoised=mx.zeros((3,))), plain, conditioned=conditioned, causal_weight=1.0)
    assert none.canvas.item() == 0
    assert none.causal.item() == pytest.approx(found.causal.item(), rel=1e-6)


@conditioning
def test_checkpointing_changes_no_gradient(conditioned: bool) -> None:
    """To 1e-5: it computes the same, but adds up what reaches a layer from its two passes in another order."""
    model = random_model()
    first, expected = differentiate(model, random_batch(), plain, conditioned)
    second, found = differentiate(model, random_batch(), checkpointed, conditioned)
    assert [loss.item() for loss in second] == pytest.approx([loss.item() for loss in first], rel=1e-6)
    assert too_far(found, expected, len(model.layers), 1e-5) == {}


def test_compiled_gradients_leave_the_model_as_it_was() -> None:
    """Checkpointing runs a layer again in the backward pass; nothing that was traced then may stay in the modules."""
    model, batch = random_model(), Batch(*map(mx.array, random_batch()))
    mx.eval(batch, model.parameters())
    before = {name: mx.array(value) for name, value in tree_flatten(model.parameters())}
    mx.eval(before)
    workers = Workers(model, 1, checkpointed, 1.0)
    workers.mean(model.trainable_parameters(), [Work(batch, conditioned=True)])
    workers.close()
    for name, value in tree_flatten(model.parameters()):
        assert mx.array_equal(value, before[name]), name


def differentiate(model: DiffusionGemma, batch: Batch, run: TrainingRun, conditioned: bool) -> tuple[Losses, Gradients]:
    """The losses, and the gradient of their total for every trainable parameter."""

    def objective(batch: Batch) -> Losses:
        return losses(model, batch, run, conditioned=conditioned, causal_weight=1.0)

    found, tree = nn.value_and_grad(model, objective)(batch)
    return found, dict(tree_flatten(tree))


def recorded_batch(recorded: Mapping[str, mx.array]) -> Batch:
    """The reference's batch; all real tokens but the first count."""
    positions = mx.arange(recorded["tokens"].shape[1])
    counted = (positions >= 1) & (positions < recorded["lengths"][:, None])
    return Batch(
        tokens=recorded["tokens"],
        weights=counted.astype(mx.float32),
        starts=recorded["starts"],
        canvas=recorded["canvas"],
        noisy=recorded["noisy"],
        predicted=mx.array(np.flatnonzero(counted)),
        denoised=mx.ones((len(counted),)),
    )


def random_batch() -> Batch:
    """Three rows for `random_model`, of 9, 21 and 37 tokens; in the sliding layers a canvas sees the 7 before it."""
    keys = mx.random.split(mx.random.key(3), 3)
    tokens, canvas, noisy = (
        mx.random.randint(0, 64, (3, length), key=key) for key, length in zip(keys, (40, 16, 16), strict=True)
    )
    positions = mx.arange(40)
    counted = (positions >= 1) & (positions < mx.array([[9], [21], [37]]))
    weights, predicted = counted.astype(mx.float32), mx.array(np.flatnonzero(counted))
    return Batch(tokens, weights, mx.array([3, 8, 25]), canvas, noisy, predicted, mx.ones((3,)))


def as_stored(gradient: mx.array, stored: mx.array, directions: mx.array) -> mx.array:
    """A gradient as it is where it was stored so, else its rows' products with the directions."""
    return gradient if gradient.shape == stored.shape else gradient @ directions[: gradient.shape[-1]]


def difference(found: mx.array, expected: mx.array, largest: float | None = None) -> float:
    """The largest difference, relative to the largest value expected; where that is zero nothing else will do."""
    assert found.shape == expected.shape
    most = mx.max(mx.abs(found - expected)).item()
    largest = mx.max(mx.abs(expected)).item() if largest is None else largest
    return most / largest if largest else (math.inf if most else 0.0)


def too_far(found: Gradients, expected: Gradients, layers: int, tolerance: float) -> dict[str, float]:
    """The gradients that differ by the tolerance or more, and by how much.

    That of a last layer's scalar is measured by those of the other layers' scalars: the final norm undoes the scalar,
    so that its true gradient is zero, up to the norm's epsilon, and all that can be computed of it is rounding.
    """
    largest = {
        name.format(layers - 1): max(mx.abs(expected[name.format(layer)]).item() for layer in range(layers))
        for name in LAYER_SCALARS
    }
    differences = {name: difference(found[name], expected[name], largest.get(name)) for name in expected}
    return {name: most for name, most in differences.items() if not most < tolerance}
