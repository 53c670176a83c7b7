"""The model run for training: whole batches of sequences of different lengths, with a canvas behind a part of each.

    tokens [B, L]  -> encode  -> hidden states, and every layer's keys and values
    canvas [B, C]  -> denoise -> hidden states

Gradients flow from the canvas through the keys and values into the encoder. With checkpointing only what goes into a
layer is kept for the backward pass, and the layer is computed again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import mlx.core as mx

from mlx_diffgemma.model.cache import KeysValues
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.layers import Layer, Segment
from mlx_diffgemma.model.masks import encoder_mask

Mask: TypeAlias = mx.array | str | None
Run: TypeAlias = Callable[[Layer, mx.array, list[mx.array], mx.array | int, Mask], tuple[mx.array, list[mx.array]]]
"""(layer, hidden, prefix's keys and values or nothing, offset, mask) -> hidden, the layer's new keys and values"""


class Canvas(NamedTuple):
    """One canvas per sequence."""

    tokens: mx.array
    """[B, C]"""
    starts: mx.array
    """[B] the position at which each canvas stands: it sees the tokens before"""


def plain(
    layer: Layer, hidden: mx.array, prefix: list[mx.array], offset: mx.array | int, mask: Mask
) -> tuple[mx.array, list[mx.array]]:
    """Run one layer beside `prefix`; everything is kept for its backward pass."""
    new: list[mx.array] = []

    def place(keys: mx.array, values: mx.array) -> KeysValues:
        new.extend((keys, values))
        if not prefix:
            return keys, values
        return mx.concatenate([prefix[0], keys], axis=2), mx.concatenate([prefix[1], values], axis=2)

    return layer(hidden, [Segment(hidden.shape[1], place, offset, mask)]), new


def checkpointed(
    layer: Layer, hidden: mx.array, prefix: list[mx.array], offset: mx.array | int, mask: Mask
) -> tuple[mx.array, list[mx.array]]:
    """Run one layer beside `prefix`; it is run again in the backward pass."""

    def run(parameters: dict[str, Any], hidden: mx.array, prefix: list[mx.array]) -> tuple[mx.array, list[mx.array]]:
        # Called twice: each time, what is traced must not stay in the layer.
        own = layer.trainable_parameters()
        layer.update(parameters)
        try:
            return plain(layer, hidden, prefix, offset, mask)
        finally:
            layer.update(own)

    return mx.checkpoint(run)(layer.trainable_parameters(), hidden, prefix)


def encode(model: DiffusionGemma, tokens: mx.array, run: Run) -> tuple[mx.array, list[list[mx.array]]]:
    """Causal pass over tokens [B, L], shorter rows padded at their ends -> final hidden states, keys and values."""
    length, window = tokens.shape[1], model.config.sliding_window
    sliding, full = encoder_mask(length, 0, window), encoder_mask(length, 0, None)
    hidden, prefix = model.embed(tokens), list[list[mx.array]]()
    scalars = model.model.encoder.language_model.layers
    for index, layer in enumerate(model.model.decoder.layers):
        mask = sliding if model.config.layers[index].sliding else full
        hidden, new = run(layer, hidden, [], 0, mask)
        hidden = hidden * scalars[index].layer_scalar
        prefix.append(new)
    return model.model.decoder.norm(hidden), prefix


def denoise(
    model: DiffusionGemma, canvas: Canvas, prefix: list[list[mx.array]], signal: mx.array | None, run: Run
) -> mx.array:
    """The canvas behind its prefix of the encoded sequences -> final hidden states [B, C, D]"""
    decoder = model.model.decoder
    length, window = prefix[0][0].shape[2], model.config.sliding_window
    starts, size = canvas.starts, canvas.tokens.shape[1]
    sliding, full = canvas_mask(starts, length, size, window), canvas_mask(starts, length, size)
    hidden = decoder.self_conditioning.mix(model.embed(canvas.tokens), signal)
    for index, layer in enumerate(decoder.layers):
        mask = sliding if model.config.layers[index].sliding else full
        hidden, _ = run(layer, hidden, prefix[index], starts, mask)
        hidden = hidden * layer.layer_scalar
    return decoder.norm(hidden)


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
