"""What an answer is expected to need is what its cache takes, and no more than a buffer's step above it."""

from __future__ import annotations

import mlx.core as mx
import pytest
from tiny import encoded, random_model, tiny_config

from mlx_diffgemma.device.memory import usable_bytes
from mlx_diffgemma.generation.admission import needed_bytes, room_for_caches
from mlx_diffgemma.generation.job import Job
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.cache import BUFFER_STEP


@pytest.mark.parametrize(("prompt", "answer"), [(3, 16), (300, 40), (900, 100)])
def test_a_cache_needs_what_was_expected(prompt: int, answer: int) -> None:
    model = random_model(tiny_config(max_position_embeddings=2048))
    job = Job(tokens=[1] * prompt, config=GenerationConfig(max_tokens=answer))
    cache = model.make_cache()
    for start in range(0, prompt + answer, 16):
        encoded(model, mx.ones((1, min(16, prompt + answer - start)), mx.int32), cache)
    per_token = sum(2 * 4 * layer.head_dim * layer.num_key_value_heads for layer in model.config.layers)
    assert cache.nbytes <= needed_bytes(model, job) <= cache.nbytes + 2 * BUFFER_STEP * per_token


def test_the_room_for_caches_is_what_weights_and_a_step_leave() -> None:
    model = random_model()
    room = room_for_caches(model, held=10**9)
    assert 0 < room < usable_bytes() - 10**9
    assert room_for_caches(model, held=2 * 10**9) == room - 10**9
