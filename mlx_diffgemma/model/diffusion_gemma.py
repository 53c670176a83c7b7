"""DiffusionGemma: one stack of layers that reads text causally (encoder) and denoises a canvas (decoder).

    tokens -> embed -> encode --(keys, values)--> cache
                                                    |
    canvas -> embed -> self-conditioning -> denoise + -> logits -> signal (for the next step)

Every method takes rows: sequences of any lengths, each with a cache of its own, that go through the layers together.
One sequence is a list of one row. Parameter names are the names in the MLX checkpoints. Hidden states are in the
compute dtype, logits in float32.
Source of every formula: transformers 5.23, models/diffusion_gemma.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy
from functools import partial
from itertools import accumulate
from typing import NamedTuple, TypeAlias, TypeVar, cast

import mlx.core as mx
import mlx.nn as nn

from mlx_diffgemma.model.body import Body
from mlx_diffgemma.model.cache import BranchedLayer, Cache, LayerCache
from mlx_diffgemma.model.config import ModelConfig
from mlx_diffgemma.model.kernels import Kernels, default_kernels
from mlx_diffgemma.model.layers import Layer, Segment
from mlx_diffgemma.model.logits import ProcessedLogits
from mlx_diffgemma.model.masks import Masks, encoder_masks
from mlx_diffgemma.model.selection import Selection

Module = TypeVar("Module", bound=nn.Module)
LayerRun: TypeAlias = Callable[[int, Layer, mx.array], mx.array]
"""(index, layer, hidden states that enter it) -> hidden states that leave it, without the layer scalar"""


Stack: TypeAlias = list[tuple[Layer, mx.array]]
"""The layers of one mode, each with its scalar [1]."""


class CanvasRow(NamedTuple):
    """The canvas of one sequence."""

    canvas: mx.array
    """ids [1, C]"""
    cache: Cache
    """the prefix"""
    signal: mx.array | None = None
    """[1, C, D] soft embedding of the last step, None at the first"""
    places: mx.array | None = None
    """[R] the positions that go through the layers, in order; the others are there as they were the last time. None:
    all of them"""
    selection: Selection | None = None
    """is shown what full-attention layers look at"""


class _Row(NamedTuple):
    """Where the tokens of one sequence go."""

    length: int
    layers: Sequence[LayerCache | BranchedLayer]
    offset: int
    masks: Masks
    places: mx.array | None = None
    """[length] if they are among `whole` tokens that were written before, which stay but for these"""
    whole: int = 0
    selection: Selection | None = None

    def segment(self, index: int, layer: Layer) -> Segment:
        """Return the tokens as a layer sees them."""
        own, mask = self.layers[index], self.masks.sliding if layer.sliding else self.masks.full
        write = own.write
        if self.places is not None:
            write = partial(own.rewrite, positions=self.places, count=self.whole)
        observer = None if self.selection is None or layer.sliding else self.selection.observer(index)
        return Segment(self.length, write, self.offset, mask, self.places, observer)


class DiffusionGemma(nn.Module):
    """The whole text model."""

    def __init__(self, config: ModelConfig, kernels: Kernels | None = None) -> None:
        """Create the model, nothing computed yet; kernels: None takes those of the default device."""
        super().__init__()
        self.config = config
        self.kernels = kernels or default_kernels()
        self.model = Body(config, self.kernels)
        self._encoder_layers: list[Layer] | None = None

    @property
    def dtype(self) -> mx.Dtype:
        """The compute dtype: that of the norms, which are never quantized."""
        return self.model.decoder.norm.weight.dtype

    @property
    def layers(self) -> list[Layer]:
        """The layers, under the name by which mlx-lm's LoRA functions look for them."""
        return self.model.decoder.layers

    @property
    def encoder_stack(self) -> Stack:
        """The layers that read text: the decoder's, unless `separate_encoder` was called."""
        scalars = [layer.layer_scalar for layer in self.model.encoder.language_model.layers]
        return list(zip(self._encoder_layers or self.layers, scalars, strict=True))

    @property
    def decoder_stack(self) -> Stack:
        """The layers that denoise."""
        return [(layer, layer.layer_scalar) for layer in self.layers]

    def separate_encoder(self) -> list[Layer]:
        """Give the encoder layers of its own, and return them; they share the weights of the decoder's.

        What is then attached to the layers of one is not in those of the other.
        """
        self._encoder_layers = [_sharing_copy(layer) for layer in self.layers]
        return self._encoder_layers

    def join_projections(self) -> None:
        """Compute what can be as one product: queries, keys and values; gate and up. Adapters need them apart."""
        for layer in self.layers:
            layer.self_attn.join()
            layer.mlp.join()
        self.model.decoder.self_conditioning.join()

    def make_cache(self) -> Cache:
        """Return an empty prefix."""
        return Cache(self.config.layers, self.config.sliding_window)

    def embed(self, tokens: mx.array) -> mx.array:
        """Return the scaled embeddings [B, L, D] of tokens [B, L]."""
        return self._scale(self.model.decoder.embed_tokens(tokens))

    def encode(self, rows: Sequence[mx.array], caches: Sequence[Cache]) -> list[mx.array]:
        """Append tokens [1, L] of each row to the row's cache, and return their final hidden states [1, L, D].

        A row may also be a batch [B, L] of equally long sequences, if its cache is.
        """
        return self.encode_embeddings([self.embed(tokens) for tokens in rows], caches)

    def encode_embeddings(self, rows: Sequence[mx.array], caches: Sequence[Cache]) -> list[mx.array]:
        """Do what `encode` does with embeddings [1, L, D], among which features of another kind may be."""
        hidden = self.peek(rows, caches)
        for embeddings, cache in zip(rows, caches, strict=True):
            cache.advance(embeddings.shape[1])
        return hidden

    def peek(self, rows: Sequence[mx.array], caches: Sequence[Cache]) -> list[mx.array]:
        """Do what `encode_embeddings` does, but leave it to `Cache.advance` how many of the tokens are kept."""
        window = self.config.sliding_window
        lengths = [embeddings.shape[1] for embeddings in rows]
        run_rows = [
            _Row(length, cache.layers, cache.offset, encoder_masks(length, cache.offset, window))
            for length, cache in zip(lengths, caches, strict=True)
        ]
        return self._run_rows(_joined(rows), run_rows, self.encoder_stack)

    def denoise(self, rows: Sequence[CanvasRow]) -> list[mx.array]:
        """Denoise canvases after their prefixes, which are only read -> final hidden states [1, C or R, D] of each.

        `processed_logits` turns them into logits; those of all rows together can be gigabytes.
        """
        canvases = [_at_places(row.canvas, row.places) for row in rows]
        embeddings = self.embed(_joined(canvases))
        signal = None
        if any(row.signal is not None for row in rows):
            zeros = mx.zeros_like(embeddings)
            signal = _joined(
                [
                    zeros[:, : canvas.shape[1]] if row.signal is None else _at_places(row.signal, row.places)
                    for row, canvas in zip(rows, canvases, strict=True)
                ]
            )
        hidden = self.model.decoder.self_conditioning.mix(embeddings, signal)
        run_rows = [
            _Row(
                canvas.shape[1],
                row.cache.canvas_layers,
                row.cache.offset,
                Masks(),
                row.places,
                row.canvas.shape[1],
                row.selection,
            )
            for row, canvas in zip(rows, canvases, strict=True)
        ]
        return self._run_rows(hidden, run_rows, self.decoder_stack)

    def _run_rows(self, hidden: mx.array, rows: Sequence[_Row], stack: Stack) -> list[mx.array]:
        """Run hidden states [B, L, D], the tokens of all rows one after another, through the layers -> those of each"""

        def run(index: int, layer: Layer, hidden: mx.array) -> mx.array:
            return layer(hidden, [row.segment(index, layer) for row in rows])

        borders = list(accumulate(row.length for row in rows))[:-1]
        return cast("list[mx.array]", mx.split(self.run_layers(hidden, stack, run), borders, axis=1))

    def run_layers(self, hidden: mx.array, stack: Stack, run: LayerRun) -> mx.array:
        """Run hidden states [B, L, D] through all layers, each by `run` and times its scalar, and the final norm."""
        for index, (layer, scalar) in enumerate(stack):
            hidden = run(index, layer, hidden) * scalar
        return self.model.decoder.norm(hidden)

    def logits(self, hidden: mx.array) -> mx.array:
        """Return the float32 logits [B, L, V] of final hidden states [B, L, D]; an encoder's predict the next token."""
        softcap = self.kernels.softcap
        return softcap(self.model.decoder.embed_tokens.as_linear(hidden), self.config.final_logit_softcapping)

    def raw_logits(self, hidden: mx.array) -> mx.array:
        """Return the float32 logits [..., V] of final hidden states [..., D] before the softcap."""
        return self.model.decoder.embed_tokens.as_linear(hidden).astype(mx.float32)

    def processed_logits(self, hidden: mx.array, temperature: float | list[float]) -> ProcessedLogits:
        """Return the logits [B, C, V] of hidden [B, C, D], divided by a temperature, one or one per row."""
        raw = self.model.decoder.embed_tokens.as_linear(hidden)
        return ProcessedLogits(raw, temperature, self.config.final_logit_softcapping, self.kernels)

    def signal(self, processed: ProcessedLogits, top_k: int | None = None, total: mx.array | None = None) -> mx.array:
        """Return the expected embedding [B, C, D] under the logits [B, C, V] of a step.

        It is exact, as in the reference, which rounds the logits to the compute dtype; or it is that of the top_k most
        likely tokens of each position, with their probabilities among all. total: the log-sum-exp [B, C], if known.
        """
        if top_k is None or top_k >= processed.shape[-1]:
            return self.soft_embedding(processed.probabilities(self.dtype))
        likely, logits = processed.most_likely(top_k)
        total = mx.logsumexp(processed.array(), axis=-1) if total is None else total
        weights = mx.exp(logits - total[..., None]).astype(self.dtype)
        return self._scale(
            (weights[..., None, :] @ self.model.decoder.embed_tokens(likely).astype(self.dtype)).squeeze(-2)
        )

    def soft_embedding(self, weights: mx.array) -> mx.array:
        """Return the sum [B, C, D] of all scaled embeddings, weighted by [B, C, V] in the compute dtype."""
        table = self.model.decoder.embed_tokens
        if not isinstance(table, nn.QuantizedEmbedding):
            return self._scale(weights @ table.weight)
        product = mx.quantized_matmul(
            weights,
            table.weight,
            table.scales,
            table.biases,
            transpose=False,
            group_size=table.group_size,
            bits=table.bits,
            mode=table.mode,
        )
        return self._scale(product)

    def _scale(self, embeddings: mx.array) -> mx.array:
        # The factor is rounded to the compute dtype too, as in the reference: 53.0 and not 53.07 in bfloat16.
        return embeddings.astype(self.dtype) * mx.array(self.config.hidden_size**0.5, self.dtype)


def _sharing_copy(module: Module) -> Module:
    """Copy a module and those in it, but not their arrays."""
    new = copy(module)
    for name, child in module.items():
        if isinstance(child, nn.Module):
            new[name] = _sharing_copy(child)
    return new


def _at_places(whole: mx.array, places: mx.array | None) -> mx.array:
    """[1, C, ..] -> [1, R, ..]"""
    return whole if places is None else mx.take(whole, places, axis=1)


def _joined(rows: Sequence[mx.array]) -> mx.array:
    """[B, L, ..] of each row -> [B, L of all rows, ..]"""
    return rows[0] if len(rows) == 1 else mx.concatenate(list(rows), axis=1)
