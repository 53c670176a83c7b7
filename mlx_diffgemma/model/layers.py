"""The parts of one layer: attention with its two kinds of rotary embedding, the dense MLP, and their assembly.

Encoder and decoder run the same layers. They differ in the mask, in the scalar after a layer, and in whether the tokens
that are written after the prefix are kept.

Sequences of different lengths go through a layer together: everything but attention computes one token at a time, and
attention gets a Segment for each sequence.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeAlias, cast

import mlx.core as mx
import mlx.nn as nn

from mlx_diffgemma.model.cache import KeysValues
from mlx_diffgemma.model.config import LayerConfig, ModelConfig
from mlx_diffgemma.model.experts import Experts, Router
from mlx_diffgemma.model.functions import geglu
from mlx_diffgemma.model.joined import joined_maps
from mlx_diffgemma.model.kernels import Kernels, Mask

WriteKeys: TypeAlias = Callable[[mx.array, mx.array], KeysValues]
"""Takes a layer's new keys and values, and returns all keys and values that its queries look at."""
Observer: TypeAlias = Callable[[mx.array, mx.array], None]
"""Is shown the queries [B, H, L, d] of a layer and all keys [B, G, S, d] that they look at."""


class Segment(NamedTuple):
    """Tokens that look at one prefix: those of one sequence, or of a batch of equally long ones."""

    length: int
    """tokens per sequence"""
    write: WriteKeys
    """where their keys and values go"""
    offset: int | mx.array
    """position of the first token: one for all sequences, or one for each [B]"""
    mask: Mask = None
    places: mx.array | None = None
    """where the tokens stand, counted from `offset` [length]; None: one after another"""
    observer: Observer | None = None

    def keys_and_values(self, queries: mx.array, keys: mx.array, values: mx.array) -> KeysValues:
        """Return what the queries look at, with these new keys and values in it."""
        seen = self.write(keys, values)
        if self.observer is not None:
            self.observer(queries, seen[0])
        return seen


class Rope:
    """Rotary position embedding over split-half pairs (i, i + head_dim / 2).

    Sliding layers rotate every pair. Full layers ("proportional") rotate the first `full_rotary_factor` of them with
    exponents over the whole head_dim; the others have an infinite period and stay as they are.
    """

    def __init__(self, config: ModelConfig, layer: LayerConfig) -> None:
        pairs = layer.head_dim // 2
        rotated = pairs if layer.sliding else int(config.full_rotary_factor * pairs)
        theta = config.sliding_rope_theta if layer.sliding else config.full_rope_theta
        periods = [theta ** (2 * pair / layer.head_dim) for pair in range(rotated)]
        self._dims = layer.head_dim
        self._periods = mx.array(periods + [float("inf")] * (pairs - rotated))

    def __call__(self, heads: mx.array, offset: int | mx.array) -> mx.array:
        """Rotate heads [B, H, L, head_dim] of the tokens at the positions offset .. offset + L - 1.

        offset: one for all rows, or one per row [B].
        """
        return mx.fast.rope(
            heads, self._dims, traditional=False, base=None, scale=1.0, offset=offset, freqs=self._periods
        )


class Attention(nn.Module):
    """Grouped-query attention with per-head norms on queries, keys and values, and scale 1.

    All heads are projected, normed and rotated together: those of the queries, then the keys, then the values.
    """

    def __init__(self, config: ModelConfig, layer: LayerConfig, kernels: Kernels) -> None:
        super().__init__()
        queries = config.num_attention_heads * layer.head_dim
        keys = layer.num_key_value_heads * layer.head_dim
        self.q_proj = nn.Linear(config.hidden_size, queries, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, keys, bias=False)
        if layer.sliding:
            self.v_proj = nn.Linear(config.hidden_size, keys, bias=False)
        self.o_proj = nn.Linear(queries, config.hidden_size, bias=False)
        self.q_norm = nn.RMSNorm(layer.head_dim, config.rms_norm_eps)
        self.k_norm = nn.RMSNorm(layer.head_dim, config.rms_norm_eps)
        self._rope = Rope(config, layer)
        self._head_dim = layer.head_dim
        self._query_heads, self._key_heads = config.num_attention_heads, layer.num_key_value_heads
        self._is_query = mx.array([[True]] * self._query_heads + [[False]] * self._key_heads)
        self._eps = config.rms_norm_eps
        self._attention = kernels.attention

    def join(self) -> None:
        """Project queries, keys and values by one product from now on, if their weights have one format."""
        names = [name for name in ("q_proj", "k_proj", "v_proj") if name in self]
        if (whole := joined_maps([self[name] for name in names])) is not None:
            self.qkv_proj = whole
            for name in names:
                del self[name]

    def __call__(self, hidden: mx.array, segments: Sequence[Segment]) -> mx.array:
        """hidden [B, L, D], the tokens of all segments one after another -> [B, L, D]"""
        batch, length, _ = hidden.shape
        heads = mx.unflatten(self._projected(hidden), -1, (-1, self._head_dim))
        normed = mx.fast.rms_norm(heads, None, self._eps)
        # Full layers have no v_proj: their values are the keys before their norm's weights and before rotation.
        values = normed[:, :, -self._key_heads :].swapaxes(1, 2)
        rotating = self._query_heads + self._key_heads
        weighted = _weighted(normed[:, :, :rotating], self.q_norm.weight, self.k_norm.weight, self._is_query)
        queries, keys = mx.split(self._rotated(weighted, segments), [self._query_heads], axis=1)
        parts = zip(_parts(queries, segments), _parts(keys, segments), _parts(values, segments), segments, strict=True)
        out = [
            self._attention(own, *segment.keys_and_values(own, key, value), segment.mask)
            for own, key, value, segment in parts
        ]
        whole = out[0] if len(out) == 1 else mx.concatenate(out, axis=2)
        return self.o_proj(whole.swapaxes(1, 2).reshape(batch, length, -1))

    def _projected(self, hidden: mx.array) -> mx.array:
        """[B, L, D] -> [B, L, all heads * head_dim]"""
        if "qkv_proj" in self:
            return self.qkv_proj(hidden)
        return mx.concatenate([self[name](hidden) for name in ("q_proj", "k_proj", "v_proj") if name in self], axis=-1)

    def _rotated(self, heads: mx.array, segments: Sequence[Segment]) -> mx.array:
        """Rotate heads [B, L, H, head_dim] by the positions of their tokens -> [B, H, L, head_dim]"""
        if len(segments) == 1 and segments[0].places is None:
            return self._rope(heads.swapaxes(1, 2), segments[0].offset)
        # One call for all: each token is a sequence of its own.
        positions = mx.concatenate([_positions(segment) for segment in segments])
        alone = heads.reshape(-1, heads.shape[2], 1, self._head_dim)
        return self._rope(alone, positions).reshape(heads.shape).swapaxes(1, 2)


@mx.compile
def _weighted(heads: mx.array, queries: mx.array, keys: mx.array, is_query: mx.array) -> mx.array:
    """Multiply heads [B, L, H, d] by the norm weights [d] of queries, where is_query [H, 1] says so, or of keys."""
    return heads * mx.where(is_query, queries, keys)


def _positions(segment: Segment) -> mx.array:
    """Return the position of every token [length]."""
    places = mx.arange(segment.length) if segment.places is None else segment.places
    return places + segment.offset


def _parts(heads: mx.array, segments: Sequence[Segment]) -> list[mx.array]:
    """[B, H, L, head_dim] -> [B, H, length, head_dim] of each segment"""
    if len(segments) == 1:
        return [heads]
    borders = list(accumulate(segment.length for segment in segments))[:-1]
    return cast("list[mx.array]", mx.split(heads, borders, axis=2))


class GatedMLP(nn.Module):
    """down(gelu(gate(x)) * up(x)): the dense half of a layer."""

    def __init__(self, config: ModelConfig, kernels: Kernels) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)
        self._kernels = kernels

    def join(self) -> None:
        """Compute gate and up by one product from now on, if their weights have one format."""
        if (whole := joined_maps([self.gate_proj, self.up_proj])) is not None:
            self.gate_up_proj = whole
            del self.gate_proj, self.up_proj

    def __call__(self, hidden: mx.array) -> mx.array:
        """[..., D] -> [..., D]"""
        gate, up = self._gate_and_up(hidden)
        return self.down_proj(geglu(gate, up, self._kernels))

    def _gate_and_up(self, hidden: mx.array) -> tuple[mx.array, mx.array]:
        if "gate_up_proj" not in self:
            return self.gate_proj(hidden), self.up_proj(hidden)
        gate, up = mx.split(self.gate_up_proj(hidden), 2, axis=-1)
        return gate, up


class Layer(nn.Module):
    """Attention, then a dense MLP and a mixture of experts side by side, every part between two norms."""

    def __init__(self, config: ModelConfig, layer: LayerConfig, kernels: Kernels) -> None:
        super().__init__()
        size, eps = config.hidden_size, config.rms_norm_eps
        self.self_attn = Attention(config, layer, kernels)
        self.mlp = GatedMLP(config, kernels)
        self.router = Router(config)
        self.experts = Experts(config, kernels)
        self.input_layernorm = nn.RMSNorm(size, eps)
        self.post_attention_layernorm = nn.RMSNorm(size, eps)
        self.pre_feedforward_layernorm = nn.RMSNorm(size, eps)
        self.post_feedforward_layernorm = nn.RMSNorm(size, eps)
        self.post_feedforward_layernorm_1 = nn.RMSNorm(size, eps)
        self.post_feedforward_layernorm_2 = nn.RMSNorm(size, eps)
        self.pre_feedforward_layernorm_2 = nn.RMSNorm(size, eps)
        self.layer_scalar = mx.ones((1,))
        self.sliding = layer.sliding

    def __call__(self, hidden: mx.array, segments: Sequence[Segment]) -> mx.array:
        """[B, L, D] -> [B, L, D], without the layer scalar, which differs between encoder and decoder"""
        attended = self.self_attn(self.input_layernorm(hidden), segments)
        hidden = hidden + self.post_attention_layernorm(attended)
        dense = self.post_feedforward_layernorm_1(self.mlp(self.pre_feedforward_layernorm(hidden)))
        sparse = self.post_feedforward_layernorm_2(self._mixture(hidden))
        return hidden + self.post_feedforward_layernorm(dense + sparse)

    def _mixture(self, hidden: mx.array) -> mx.array:
        """[B, L, D] -> [B, L, D]; the router reads the raw hidden states, the experts the normed ones"""
        rows = hidden.reshape(-1, hidden.shape[-1])
        weights, indices = self.router(rows)
        return self.experts(self.pre_feedforward_layernorm_2(rows), weights, indices).reshape(hidden.shape)
