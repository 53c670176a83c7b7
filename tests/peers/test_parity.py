"""The model and the generation loop against recorded runs of transformers 5.23 (tests/fixtures/make_parity.py).

Tolerance: 1e-4 of the largest value. The reference's own float32 results differ from its float64 results by 2e-5 to
4e-5, so this is what two float32 implementations that sum in different orders can be held to.
"""

from __future__ import annotations

import mlx.core as mx
import pytest
from tiny import PARITY, denoised, encoded

from mlx_diffgemma.checkpoint.weights import load_model
from mlx_diffgemma.events import BlockCommitted, Denoised, Finished
from mlx_diffgemma.generation.engine import stream
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.kernels import default_kernels
from mlx_diffgemma.model.logits import ProcessedLogits
from mlx_diffgemma.sampling.sampler import Draft, make_draft

SEEDS = (0, 1, 2)
PREFIXES = (3, 7, 8, 21)
TOLERANCE = 1e-4


def relative(found: mx.array, expected: mx.array) -> float:
    assert found.shape == expected.shape
    return (mx.max(mx.abs(found - expected)) / mx.max(mx.abs(expected))).item()


@pytest.fixture(scope="module", params=SEEDS)
def seed(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def model(seed: int) -> DiffusionGemma:
    return load_model(PARITY / f"seed-{seed}", "float32")


@pytest.mark.parametrize("length", PREFIXES)
def test_hidden_states_and_logits_equal_the_reference(model: DiffusionGemma, seed: int, length: int) -> None:
    recorded = mx.load(str(PARITY / f"seed-{seed}.forward.safetensors"))
    expected = {name.partition(".")[2]: array for name, array in recorded.items() if name.startswith(f"{length}.")}
    cache = model.make_cache()
    hidden = encoded(model, expected["tokens"], cache)
    assert relative(hidden, expected["hidden"]) < TOLERANCE
    assert relative(model.logits(hidden), expected["causal"]) < TOLERANCE
    assert relative(denoised(model, expected["canvas"], cache), expected["logits"]) < TOLERANCE
    signal = model.signal(ProcessedLogits.of(expected["conditioning"], default_kernels()))
    assert relative(denoised(model, expected["canvas"], cache, signal), expected["conditioned"]) < TOLERANCE


def test_conditioning_and_layer_scalars_matter_in_these_fixtures(seed: int) -> None:
    recorded = mx.load(str(PARITY / f"seed-{seed}.forward.safetensors"))
    assert relative(recorded["21.conditioned"], recorded["21.logits"]) > 100 * TOLERANCE
    weights = mx.load(str(PARITY / f"seed-{seed}" / "model.safetensors"))
    encoder = weights["model.encoder.language_model.layers.0.layer_scalar"]
    assert abs((encoder - weights["model.decoder.layers.0.layer_scalar"]).item()) > 0.01


class Replay:
    """The reference's rule over its recorded draws: one row of noise per canvas, then one of each per step."""

    def __init__(self, drawn: mx.array, noise: mx.array, bound: float) -> None:
        self.drawn, self.noise = iter(drawn), iter(noise)
        self.bound = bound
        self.accepted: list[list[bool]] = []

    def start(self, shape: tuple[int, int], key: mx.array) -> mx.array:
        return next(self.noise)[None]

    def step(self, processed: ProcessedLogits, canvas: mx.array, key: mx.array) -> Draft:
        reading = processed.read(mx.zeros(canvas.shape))
        draft = make_draft(reading._replace(drawn=next(self.drawn)[None]), next(self.noise)[None], self.bound)
        self.accepted.append(draft.accepted[0].tolist())
        return draft


def test_the_whole_generation_loop_equals_the_reference(seed: int) -> None:
    recorded = mx.load(str(PARITY / f"seed-{seed}.loop.safetensors"))
    model = load_model(PARITY / f"seed-{seed}", "float32")
    sharpen(model, recorded["mix"], recorded["sharpness"])
    sampler = Replay(recorded["drawn"], recorded["noise"], bound=0.3)
    config = GenerationConfig(
        max_tokens=48, max_steps=16, entropy_bound=0.3, confidence_threshold=0.02, stop_tokens=(recorded["eos"].item(),)
    ).exact()
    events = list(stream(model, recorded["tokens"][0].tolist(), config, sampler=sampler))
    best = [list(event.best) for event in events if isinstance(event, Denoised)]
    blocks = [event for event in events if isinstance(event, BlockCommitted)]
    assert best == recorded["best"].tolist()
    assert sampler.accepted == recorded["accepted"].tolist()
    assert [block.steps for block in blocks] == recorded["steps"].tolist()
    tokens = [token for block in blocks for token in block.tokens]
    padded = tokens + [0] * (48 - len(tokens))
    assert padded == recorded["sequence"].tolist()
    assert isinstance(events[-1], Finished)
    assert events[-1].reason == "stop"


def test_the_recorded_loops_exercise_the_rule(seed: int) -> None:
    recorded = mx.load(str(PARITY / f"seed-{seed}.loop.safetensors"))
    assert 0.05 < mx.mean(recorded["accepted"].astype(mx.float32)).item() < 0.95
    assert recorded["steps"].shape == (3,)
    assert min(recorded["steps"].tolist()) < 16


def sharpen(model: DiffusionGemma, mix: mx.array, sharpness: mx.array) -> None:
    """What `sharpen` of make_parity.py does to the reference before it records the loop."""
    for layer in model.model.decoder.layers:
        layer.post_attention_layernorm.weight *= mix
        layer.post_feedforward_layernorm.weight *= mix
    model.model.decoder.norm.weight *= sharpness
