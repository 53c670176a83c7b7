"""What training minimizes: the canvas's cross-entropy under noise, and the encoder's causal one on the same tokens.

1  The clean sequence is encoded once; its keys and values are the canvas's prefix, gradients included.
2  With conditioning, a first pass over the noisy canvas, without gradient, gives the signal of the second.
3  The second pass predicts every position of the canvas, noisy or not; all positions count the same. A text that is
   no conversation has no canvas.
4  The encoder predicts each next token of the clean sequence that counts; logits are computed for no other.
"""

from __future__ import annotations

from typing import NamedTuple

import mlx.core as mx

from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.functions import cross_entropy
from mlx_diffgemma.training.forward import CanvasBatch, TrainingRun, denoise, encode


class Batch(NamedTuple):
    """Sequences padded to one length, each with one block of its response as the canvas."""

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
    predicted: mx.array
    """[P] which of the B * L tokens count for the causal loss, as indices; then zeros, whose weight is 0"""
    denoised: mx.array
    """[B] 1 where the canvas counts, 0 where only the causal loss does"""


class Losses(NamedTuple):
    """Mean cross-entropies in nats."""

    total: mx.array
    canvas: mx.array
    causal: mx.array


def losses(model: DiffusionGemma, batch: Batch, run: TrainingRun, *, conditioned: bool, causal_weight: float) -> Losses:
    """Compute the losses of one batch; `run` runs one layer (`forward.plain` or `forward.checkpointed`)."""
    cap = model.config.final_logit_softcapping
    hidden, prefix = encode(model, batch.tokens, run)
    noisy, signal = CanvasBatch(batch.noisy, batch.starts), None
    if conditioned:
        first = denoise(model, noisy, prefix, None, run)
        # As in the reference, the logits have no gradient, but the embeddings that they weigh have one.
        predicted = mx.stop_gradient(model.kernels.softcap(model.raw_logits(first), cap)).astype(model.dtype)
        signal = model.soft_embedding(mx.softmax(predicted, axis=-1, precise=True))
    denoised = denoise(model, noisy, prefix, signal, run)
    nats = _nats(model, denoised, batch.canvas, cap).reshape(batch.canvas.shape).mean(axis=1)
    canvas = (nats * batch.denoised).sum() / mx.maximum(batch.denoised.sum(), 1.0)
    # A token is predicted by the hidden state before it.
    before = hidden.reshape(-1, hidden.shape[-1])[mx.maximum(batch.predicted - 1, 0)]
    following = _nats(model, before, batch.tokens.flatten()[batch.predicted], cap)
    counted = batch.weights.flatten()[batch.predicted]
    causal = (following * counted).sum() / mx.maximum(counted.sum(), 1.0)
    return Losses(canvas + causal_weight * causal, canvas, causal)


def _nats(model: DiffusionGemma, hidden: mx.array, targets: mx.array, cap: float) -> mx.array:
    """Return the cross-entropy in nats of each of N targets under hidden states [.., D] -> [N]"""
    raw = model.raw_logits(hidden.reshape(-1, hidden.shape[-1]))
    return cross_entropy(raw, targets.flatten(), cap, model.kernels)
