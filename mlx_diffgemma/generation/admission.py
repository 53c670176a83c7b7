"""How much memory an answer needs, so that no more are begun than fit."""

from __future__ import annotations

from mlx_diffgemma.device.memory import usable_bytes
from mlx_diffgemma.generation.job import Job
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.memory import cache_bytes, logits_bytes
from mlx_diffgemma.sampling.denoising import LOGITS_AT_ONCE

_MOST_CANVASES = 8
"""Canvases whose logits are counted at most, where the vocabulary is so small that more are read together."""


def needed_bytes(model: DiffusionGemma, job: Job) -> int:
    """Return the bytes of a job's cache when its answer is longest."""
    tokens = len(job.tokens) + job.config.max_tokens
    return cache_bytes(model.config, tokens, job.config.canvas_length, itemsize=model.dtype.size)


def room_for_caches(model: DiffusionGemma, held: int) -> int:
    """Return the bytes that caches may take on this device, of which `held` bytes are in use already."""
    config = model.config
    positions = min(LOGITS_AT_ONCE // config.vocab_size, _MOST_CANVASES * config.canvas_length)
    return usable_bytes() - held - logits_bytes(config, positions, itemsize=model.dtype.size)
