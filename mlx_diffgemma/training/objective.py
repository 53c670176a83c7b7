"""What training minimizes: the canvas's cross-entropy under noise, and the encoder's causal one on the same tokens.

1  the clean sequence is encoded once; its keys and values are the canvas's prefix, gradients included
2  with conditioning: a first pass over the noisy canvas, without gradient, tells the second what it believes
3  the second pass predicts every position of the canvas, noisy or not; no position counts more than another
4  the encoder predicts each next token of the clean sequence
"""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.functions import cross_entropy, softcap
from mlx_diffgemma.training.forward import Canvas, Run, denoise, encode


class Batch(NamedTuple):
    """Sequences of one length, shorter ones padded at the end, each with one block of its response as the canvas."""

    tokens: mx.array
    """[B, L] the prompt, and the response up to the end of the block"""
    weights: mx.array
    """[B, L] how much the causal prediction of each token counts: 0 for padding and for the first token"""
    starts: mx.array
    """[B] where the block starts"""
    canvas: mx.array
    """[B, C] the block: clean tokens, the end token, padding"""
    noisy: mx.array
    """[B, C] the block after corruption"""


class Losses(NamedTuple):
    """Mean cross-entropies in nats."""

    total: mx.array
    canvas: mx.array
    causal: mx.array


def losses(model: DiffusionGemma, batch: Batch, run: Run, *, conditioned: bool, causal_weight: float) -> Losses:
    """The objective of one batch; `run` runs one layer (`forward.plain` or `forward.checkpointed`)."""
    cap = model.config.final_logit_softcapping
    hidden, prefix = encode(model, batch.tokens, run)
    noisy, signal = Canvas(batch.noisy, batch.starts), None
    if conditioned:
        first = denoise(model, noisy, prefix, None, run)
        # The reference's: the logits have no gradient, the embeddings that they weigh have.
        believed = mx.stop_gradient(softcap(model.raw_logits(first), cap)).astype(model.dtype)
        signal = model.soft_embedding(mx.softmax(believed, axis=-1, precise=True))
    believed = denoise(model, noisy, prefix, signal, run)
    canvas = _nats(model, believed, batch.canvas, cap).mean()
    following = _nats(model, hidden[:, :-1], batch.tokens[:, 1:], cap)
    counted = batch.weights[:, 1:].flatten()
    causal = (following * counted).sum() / mx.maximum(counted.sum(), 1.0)
    return Losses(canvas + causal_weight * causal, canvas, causal)


def _nats(model: DiffusionGemma, hidden: mx.array, targets: mx.array, cap: float) -> mx.array:
    """hidden [B, L, D], targets [B, L] -> [B * L]"""
    raw = model.raw_logits(hidden.reshape(-1, hidden.shape[-1]))
    return cross_entropy(cap)(raw, targets.flatten())
