"""How much memory an answer needs, so that no more are begun than fit."""

from __future__ import annotations

from mlx_diffgemma.device.memory import usable_bytes
from mlx_diffgemma.generation.job import Job
from mlx_diffgemma.model.cache import BUFFER_STEP
from mlx_diffgemma.model.config import ModelConfig
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.denoising import LOGITS_AT_ONCE

_STEP_ARRAYS = 4
"""Float32 arrays over the vocabulary that a step holds at once: 3.5 were measured."""


def needed_bytes(model: DiffusionGemma, job: Job) -> int:
    """Return the bytes of a job's cache when its answer is longest."""
    tokens = len(job.tokens) + job.config.max_tokens
    return cache_bytes(model.config, tokens, job.config.canvas_length, itemsize=model.dtype.size)


def cache_bytes(config: ModelConfig, tokens: int, canvas_length: int | None = None, *, itemsize: int) -> int:
    """Return the bytes of the keys and values of `tokens` tokens of prompt and answer; itemsize: bytes per value."""
    canvas = canvas_length or config.canvas_length
    longest = tokens + canvas + BUFFER_STEP
    positions = sum(
        (min(longest, config.sliding_window + canvas + BUFFER_STEP) if layer.sliding else longest)
        * layer.num_key_value_heads
        * layer.head_dim
        for layer in config.layers
    )
    return 2 * itemsize * positions


def step_bytes(config: ModelConfig) -> int:
    """Return the bytes that the logits of a denoising step take."""
    return min(LOGITS_AT_ONCE, 8 * config.canvas_length * config.vocab_size) * 4 * _STEP_ARRAYS


def room_for_caches(model: DiffusionGemma, held: int) -> int:
    """Return the bytes that caches may take on this device, of which `held` bytes are in use already."""
    return usable_bytes() - held - step_bytes(model.config)
