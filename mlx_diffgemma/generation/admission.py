"""How much memory an answer needs, so that no more are begun than fit."""

from __future__ import annotations

from mlx_diffgemma.device.memory import usable_bytes
from mlx_diffgemma.generation.job import Job
from mlx_diffgemma.model.cache import BUFFER_STEP
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.denoising import LOGITS_AT_ONCE

_STEP_ARRAYS = 4
"""Float32 arrays over the vocabulary that a step holds at once: 3.5 were measured."""


def needed_bytes(model: DiffusionGemma, job: Job) -> int:
    """Return the bytes of a job's cache when its answer is longest."""
    config = model.config
    canvas = job.config.canvas_length or config.canvas_length
    tokens = len(job.tokens) + job.config.max_tokens + canvas + BUFFER_STEP
    positions = sum(
        (min(tokens, config.sliding_window + canvas + BUFFER_STEP) if layer.sliding else tokens)
        * layer.num_key_value_heads
        * layer.head_dim
        for layer in config.layers
    )
    return 2 * model.dtype.size * positions


def room_for_caches(model: DiffusionGemma, held: int) -> int:
    """Return the bytes that caches may take on this device, of which `held` bytes are in use already."""
    step = min(LOGITS_AT_ONCE, 8 * model.config.canvas_length * model.config.vocab_size) * 4 * _STEP_ARRAYS
    return usable_bytes() - held - step
