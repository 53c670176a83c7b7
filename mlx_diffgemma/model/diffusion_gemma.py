"""DiffusionGemma: one stack of layers that reads text causally (encoder) and denoises a canvas (decoder).

    tokens -> embed -> encode --(keys, values)--> cache
                                                    |
    canvas -> embed -> self-conditioning -> denoise + -> logits -> signal (for the next step)

Parameter names are the names in the MLX checkpoints. Hidden states are in the compute dtype, logits in float32.
Source of every formula: transformers 5.23, models/diffusion_gemma.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, cast

import mlx.core as mx
import mlx.nn as nn

from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.config import ModelConfig
from mlx_diffgemma.model.functions import softcap
from mlx_diffgemma.model.layers import GatedMLP, Layer, Segment
from mlx_diffgemma.model.logits import most_likely, probabilities, tempered
from mlx_diffgemma.model.masks import encoder_mask


class CanvasRow(NamedTuple):
    """A canvas of one sequence, to be denoised together with those of others."""

    canvas: mx.array
    """ids [1, C]"""
    cache: Cache
    """its prefix"""
    signal: mx.array | None
    """[1, C, D] soft embedding of the step before, None at the first"""


class SelfConditioning(GatedMLP):
    """Mixes what the last step believed into the canvas embeddings."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.pre_norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self._eps = config.rms_norm_eps

    def mix(self, embeddings: mx.array, signal: mx.array | None) -> mx.array:
        """embeddings and signal [B, C, D] -> [B, C, D]; no signal is a signal of zeros, through which nothing passes"""
        if signal is not None:
            embeddings = embeddings + self(self.pre_norm(signal))
        return mx.fast.rms_norm(embeddings, None, self._eps)


class Decoder(nn.Module):
    """All weights that encoder and decoder share, and the decoder's own self-conditioning."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [Layer(config, layer) for layer in config.layers]
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_conditioning = SelfConditioning(config)


class EncoderLayer(nn.Module):
    """The one parameter per layer that the encoder does not share."""

    def __init__(self) -> None:
        super().__init__()
        self.layer_scalar = mx.ones((1,))


class EncoderText(nn.Module):
    """The encoder's layer scalars, under the names of the checkpoint."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.layers = [EncoderLayer() for _ in range(layers)]


class Encoder(nn.Module):
    """What is the encoder's alone."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.language_model = EncoderText(len(config.layers))


class Body(nn.Module):
    """Encoder and decoder, under the names of the checkpoint."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)


class DiffusionGemma(nn.Module):
    """The whole text model."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Body(config)

    @property
    def dtype(self) -> mx.Dtype:
        """The compute dtype: that of the norms, which are never quantized."""
        return self.model.decoder.norm.weight.dtype

    @property
    def layers(self) -> list[Layer]:
        """The layers, under the name by which mlx-lm's LoRA functions look for them."""
        return self.model.decoder.layers

    def make_cache(self) -> Cache:
        """An empty prefix."""
        return Cache(self.config.layers, self.config.sliding_window)

    def embed(self, tokens: mx.array) -> mx.array:
        """tokens [B, L] -> scaled embeddings [B, L, D], in which features of another kind can be placed"""
        return self._scale(self.model.decoder.embed_tokens(tokens))

    def encode(self, tokens: mx.array, cache: Cache) -> mx.array:
        """Append tokens [B, L] to the cache -> final hidden states [B, L, D], which `causal_logits` reads."""
        return self.encode_embeddings(self.embed(tokens), cache)

    def encode_embeddings(self, embeddings: mx.array, cache: Cache) -> mx.array:
        """Append embeddings [B, L, D] to the cache -> final hidden states [B, L, D]."""
        hidden = self.peek(embeddings, cache)
        cache.advance(embeddings.shape[1])
        return hidden

    def peek(self, embeddings: mx.array, cache: Cache) -> mx.array:
        """What `encode_embeddings` gives, but only `cache.advance` makes the tokens, or the first of them, stay."""
        return self._read(embeddings, [cache], [embeddings.shape[1]])

    def peek_rows(self, rows: Sequence[mx.array], caches: Sequence[Cache]) -> list[mx.array]:
        """What `peek` gives for tokens [1, L] of several sequences, each behind its own prefix, in one pass."""
        lengths = [row.shape[1] for row in rows]
        hidden = self._read(self.embed(mx.concatenate(list(rows), axis=1)), caches, lengths)
        return cast("list[mx.array]", mx.split(hidden, list(accumulate(lengths))[:-1], axis=1))

    def encode_rows(self, rows: Sequence[mx.array], caches: Sequence[Cache]) -> list[mx.array]:
        """What `peek_rows` gives, and the tokens stay."""
        hidden = self.peek_rows(rows, caches)
        for row, cache in zip(rows, caches, strict=True):
            cache.advance(row.shape[1])
        return hidden

    def _read(self, embeddings: mx.array, caches: Sequence[Cache], lengths: Sequence[int]) -> mx.array:
        """[B, L, D], what goes behind all caches one after another, each of its length -> final hidden states"""
        hidden, window = embeddings, self.config.sliding_window
        behind = list(zip(caches, lengths, strict=True))
        # Sliding layers all keep the same tokens: the last window - 1.
        sliding = [encoder_mask(length, min(cache.offset, window - 1), window) for cache, length in behind]
        full = [encoder_mask(length, cache.offset, None) for cache, length in behind]
        scalars = self.model.encoder.language_model.layers
        for index, layer in enumerate(self.model.decoder.layers):
            masks = sliding if self.config.layers[index].sliding else full
            spans = [
                Segment(length, cache.layers[index].place, cache.offset, mask)
                for (cache, length), mask in zip(behind, masks, strict=True)
            ]
            hidden = layer(hidden, spans) * scalars[index].layer_scalar
        return self.model.decoder.norm(hidden)

    def denoise(self, canvas: mx.array, cache: Cache, signal: mx.array | None = None) -> mx.array:
        """canvas [B, C] behind the prefix in the cache -> float32 logits [B, C, V]; the cache is only read.

        signal [B, C, D] is the soft embedding of the step before, None at the first.
        """
        return self.causal_logits(self._decode(self.embed(canvas), signal, [cache], [canvas.shape[1]]))

    def denoise_rows(self, rows: Sequence[CanvasRow]) -> list[mx.array]:
        """Denoise canvases of any lengths behind prefixes of any lengths -> final hidden states [1, C, D] of each.

        `processed_logits` makes logits of them, a row at a time: those of all rows at once can be gigabytes.
        """
        lengths = [row.canvas.shape[1] for row in rows]
        embeddings = self.embed(mx.concatenate([row.canvas for row in rows], axis=1))
        signal = None
        if any(row.signal is not None for row in rows):
            nothing = mx.zeros_like(embeddings)
            signals = (nothing[:, : row.canvas.shape[1]] if row.signal is None else row.signal for row in rows)
            signal = mx.concatenate(list(signals), axis=1)
        hidden = self._decode(embeddings, signal, [row.cache for row in rows], lengths)
        return cast("list[mx.array]", mx.split(hidden, list(accumulate(lengths))[:-1], axis=1))

    def _decode(
        self, embeddings: mx.array, signal: mx.array | None, caches: Sequence[Cache], lengths: Sequence[int]
    ) -> mx.array:
        """[B, L, D], the canvases of all caches one after another, each of its length -> final hidden states"""
        decoder = self.model.decoder
        hidden = decoder.self_conditioning.mix(embeddings, signal)
        for index, layer in enumerate(decoder.layers):
            spans = [
                Segment(length, cache.layers[index].place, cache.offset)
                for cache, length in zip(caches, lengths, strict=True)
            ]
            hidden = layer(hidden, spans) * layer.layer_scalar
        return decoder.norm(hidden)

    def processed_logits(self, hidden: mx.array, temperature: float | list[float]) -> mx.array:
        """hidden [B, C, D] from `denoise_rows` -> float32 logits [B, C, V] / temperature, one or one per row"""
        projected = self.model.decoder.embed_tokens.as_linear(hidden)
        return tempered(projected, self.config.final_logit_softcapping, temperature)

    def signal(self, processed: mx.array, top_k: int | None = None, total: mx.array | None = None) -> mx.array:
        """Expected embedding [B, C, D] under the processed logits [B, C, V].

        Exact as in the reference, which rounds the logits to the compute dtype; or from the top_k most likely tokens of
        each position, with the probabilities they have among all. total: the log-sum-exp [B, C], where it is known.
        """
        if top_k is None or top_k >= processed.shape[-1]:
            rounded = processed.astype(self.dtype).astype(mx.float32)
            return self.soft_embedding(probabilities(rounded).astype(self.dtype))
        likely, logits = most_likely(processed, top_k)
        total = mx.logsumexp(processed, axis=-1) if total is None else total
        weights = mx.exp(logits - total[..., None]).astype(self.dtype)
        return self._scale(
            (weights[..., None, :] @ self.model.decoder.embed_tokens(likely).astype(self.dtype)).squeeze(-2)
        )

    def soft_embedding(self, weights: mx.array) -> mx.array:
        """weights of all tokens [B, C, V], in the compute dtype -> the sum of their scaled embeddings [B, C, D]"""
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

    def causal_logits(self, hidden: mx.array) -> mx.array:
        """The encoder's next-token prediction: hidden [B, L, D] from `encode` -> float32 logits [B, L, V]."""
        return softcap(self.model.decoder.embed_tokens.as_linear(hidden), self.config.final_logit_softcapping)

    def raw_logits(self, hidden: mx.array) -> mx.array:
        """Final hidden states [..., D] -> float32 logits [..., V], not softcapped yet."""
        return self.model.decoder.embed_tokens.as_linear(hidden).astype(mx.float32)

    def _scale(self, embeddings: mx.array) -> mx.array:
        # The factor is rounded to the compute dtype too, as in the reference: 53.0 and not 53.07 in bfloat16.
        return embeddings.astype(self.dtype) * mx.array(self.config.hidden_size**0.5, self.dtype)
