"""Compare our logits with those of mlx-vlm."""

from __future__ import annotations

from pathlib import Path

import mlx.core as mx
from mlx_vlm.utils import load_model as load_with_mlx_vlm
from tiny import denoised, encoded, processed

from mlx_diffgemma.checkpoint.weights import load_model

# Logits are of order 10. mlx-vlm itself is up to 1.5e-4 from transformers in float32 on such checkpoints.
TOLERANCE = 1e-3


def assert_same_logits(folder: Path) -> None:
    """Assert equal logits from a folder, after a prefix longer than the window, with and without conditioning."""
    theirs = load_with_mlx_vlm(folder)
    theirs.set_dtype(mx.float32)
    ours = load_model(folder, "float32")
    size = ours.config.vocab_size
    tokens = mx.random.randint(0, size, (1, 40), key=mx.random.key(0))
    canvas = mx.random.randint(0, size, (1, 16), key=mx.random.key(1))
    logits = 3 * mx.random.normal((1, 16, size), key=mx.random.key(2))
    cache = ours.make_cache()
    encoded(ours, tokens, cache)
    for conditioning in (None, logits):
        expected = theirs(input_ids=tokens, canvas_ids=canvas, self_conditioning_logits=conditioning).logits
        found = denoised(ours, canvas, cache, None if conditioning is None else ours.signal(processed(conditioning)))
        assert mx.max(mx.abs(expected)).item() > 1
        assert mx.max(mx.abs(found - expected)).item() < TOLERANCE
