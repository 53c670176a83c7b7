"""The parameters under the names of the checkpoint: the layers, and what encoder and decoder do not share."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_diffgemma.model.config import ModelConfig
from mlx_diffgemma.model.kernels import Kernels
from mlx_diffgemma.model.layers import GatedMLP, Layer


class SelfConditioning(GatedMLP):
    """Adds what the last step predicted to the embeddings of the canvas."""

    def __init__(self, config: ModelConfig, kernels: Kernels) -> None:
        super().__init__(config, kernels)
        self.pre_norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self._eps = config.rms_norm_eps

    def mix(self, embeddings: mx.array, signal: mx.array | None) -> mx.array:
        """embeddings and signal [B, C, D] -> [B, C, D]; no signal has the effect of a signal of zeros"""
        if signal is not None:
            embeddings = embeddings + self(self.pre_norm(signal))
        return mx.fast.rms_norm(embeddings, None, self._eps)


class Decoder(nn.Module):
    """All weights that encoder and decoder share, and the decoder's own self-conditioning."""

    def __init__(self, config: ModelConfig, kernels: Kernels) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = [Layer(config, layer, kernels) for layer in config.layers]
        self.norm = nn.RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_conditioning = SelfConditioning(config, kernels)


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
    """The parameters that only the encoder has."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.language_model = EncoderText(len(config.layers))


class Body(nn.Module):
    """Encoder and decoder, under the names of the checkpoint."""

    def __init__(self, config: ModelConfig, kernels: Kernels) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config, kernels)
