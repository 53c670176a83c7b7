"""The model run for training: whole batches of sequences of different lengths, with a canvas after a part of each.

    tokens [B, L]  -> encode  -> hidden states, and every layer's keys and values
    canvas [B, C]  -> denoise -> hidden states

Gradients flow from the canvas through the keys and values into the encoder. With checkpointing only the hidden states
that enter a layer are kept for the backward pass, and the layer is computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import mlx.core as mx

from mlx_diffgemma.model.cache import KeysValues
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.kernels import Mask
from mlx_diffgemma.model.layers import Layer, Segment
from mlx_diffgemma.model.masks import Masks, encoder_masks

TrainingRun: TypeAlias = Callable[
    [Layer, mx.array, list[mx.array], mx.array | int, Mask], tuple[mx.array, list[mx.array]]
]
"""(layer, hidden, the prefix's keys and values or nothing, offset, mask) -> hidden, the layer's new keys and values"""


class CanvasBatch(NamedTuple):
    """One canvas per sequence."""

    tokens: mx.array
    """[B, C]"""
    starts: mx.array
    """[B] the position of each canvas: it sees the tokens before"""


def plain(
    layer: Layer, hidden: mx.array, prefix: list[mx.array], offset: mx.array | int, mask: Mask
) -> tuple[mx.array, list[mx.array]]:
    """Run one layer after `prefix`; everything is kept for its backward pass."""
    new: list[mx.array] = []

    def write(keys: mx.array, values: mx.array) -> KeysValues:
        new.extend((keys, values))
        if not prefix:
            return keys, values
        return mx.concatenate([prefix[0], keys], axis=2), mx.concatenate([prefix[1], values], axis=2)

    return layer(hidden, [Segment(hidden.shape[1], write, offset, mask)]), new


def checkpointed(
    layer: Layer, hidden: mx.array, prefix: list[mx.array], offset: mx.array | int, mask: Mask
) -> tuple[mx.array, list[mx.array]]:
    """Run one layer after `prefix`; it is run again in the backward pass."""

    def run(parameters: dict[str, Any], hidden: mx.array, prefix: list[mx.array]) -> tuple[mx.array, list[mx.array]]:
        # MLX calls this twice. Traced arrays must not remain in the layer afterwards.
        own = layer.trainable_parameters()
        layer.update(parameters)
        try:
            return plain(layer, hidden, prefix, offset, mask)
        finally:
            layer.update(own)

    return mx.checkpoint(run)(layer.trainable_parameters(), hidden, prefix)


def encode(model: DiffusionGemma, tokens: mx.array, run: TrainingRun) -> tuple[mx.array, list[list[mx.array]]]:
    """Encode tokens [B, L], shorter rows padded at their ends -> final hidden states, and keys and values per layer."""
    masks = encoder_masks(tokens.shape[1], 0, model.config.sliding_window)
    prefix: list[list[mx.array]] = []

    def run_and_keep(_: int, layer: Layer, hidden: mx.array) -> mx.array:
        hidden, new = run(layer, hidden, [], 0, masks.sliding if layer.sliding else masks.full)
        prefix.append(new)
        return hidden

    return model.run_layers(model.embed(tokens), model.encoder_stack, run_and_keep), prefix


def denoise(
    model: DiffusionGemma, canvas: CanvasBatch, prefix: list[list[mx.array]], signal: mx.array | None, run: TrainingRun
) -> mx.array:
    """Denoise each canvas after the part of its encoded sequence that precedes it -> final hidden states [B, C, D]"""
    length, window = prefix[0][0].shape[2], model.config.sliding_window
    starts, size = canvas.starts, canvas.tokens.shape[1]
    masks = Masks(
        sliding=canvas_mask(starts, length, size, window),
        full=canvas_mask(starts, length, size),
    )

    def run_after_prefix(index: int, layer: Layer, hidden: mx.array) -> mx.array:
        hidden, _ = run(layer, hidden, prefix[index], starts, masks.sliding if layer.sliding else masks.full)
        return hidden

    hidden = model.model.decoder.self_conditioning.mix(model.embed(canvas.tokens), signal)
    return model.run_layers(hidden, model.decoder_stack, run_after_prefix)


def canvas_mask(starts: mx.array, length: int, canvas: int, window: int | None = None) -> mx.array:
    """Which of a sequence's `length` tokens, then of its canvas, a canvas may see. -> bool [B, 1, 1, length + canvas]

    All tokens before the canvas, on sliding layers the last window - 1 of them; and the whole canvas.
    """
    positions, first = mx.arange(length), starts[:, None]
    seen = positions < first
    if window is not None:
        seen = seen & (positions >= first - (window - 1))
    own = mx.ones((starts.size, canvas), dtype=mx.bool_)
    return mx.concatenate([seen, own], axis=1)[:, None, None, :]
