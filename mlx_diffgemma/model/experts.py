"""The mixture of experts: a router that picks a few experts per token, and the experts' two stacked projections.

    hidden -> router -----------------------> weights, indices
    normed -> tiles of rows of one expert each -> gate_up -> gelu(gate) * up -> down -> gathered, weighted, summed

A pair is a token together with one of its k experts. Pairs are sorted by expert, so that each expert's weights are
read once.
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_diffgemma.model.config import ModelConfig
from mlx_diffgemma.model.functions import Arrays, differentiable, geglu
from mlx_diffgemma.model.kernels import Kernels
from mlx_diffgemma.model.lora import LoRAExpertLinear


class ExpertLinear(nn.Module):
    """One linear map per expert, weights [experts, out, in]."""

    def __init__(self, experts: int, out_features: int, in_features: int) -> None:
        super().__init__()
        self.weight = mx.zeros((experts, out_features, in_features))

    def __call__(self, rows: mx.array, experts: mx.array) -> mx.array:
        """Map tiles of rows [T, n, in] by the experts of these tiles [T], in ascending order -> [T, n, out]."""
        return mx.gather_mm(rows, self.weight.swapaxes(-1, -2), rhs_indices=experts, sorted_indices=True)

    def to_quantized(self, group_size: int, bits: int, mode: str = "affine") -> QuantizedExpertLinear:
        """Return this map with packed weights; nn.quantize calls it."""
        return QuantizedExpertLinear(self.weight, group_size, bits, mode)

    def to_lora(self, r: int, scale: float, dropout: float) -> LoRAExpertLinear:
        """Return this map with a low-rank change added to it; mlx-lm calls it."""
        experts, out_features, in_features = self.weight.shape
        return LoRAExpertLinear(self, (experts, out_features, in_features), r=r, scale=scale, dropout=dropout)


class QuantizedExpertLinear(nn.Module):
    """An ExpertLinear with packed weights."""

    def __init__(self, weight: mx.array, group_size: int, bits: int, mode: str) -> None:
        super().__init__()
        self.group_size = group_size
        self.bits = bits
        self.mode = mode
        self.weight, self.scales, *biases = mx.quantize(weight, group_size=group_size, bits=bits, mode=mode)
        self.biases = biases[0] if biases else None
        self.freeze()

    def __call__(self, rows: mx.array, experts: mx.array) -> mx.array:
        """Map tiles of rows [T, n, in] by the experts of these tiles [T], in ascending order -> [T, n, out]."""
        return mx.gather_qmm(
            rows,
            self.weight,
            self.scales,
            self.biases,
            rhs_indices=experts,
            transpose=True,
            group_size=self.group_size,
            bits=self.bits,
            mode=self.mode,
            sorted_indices=True,
        )

    def to_lora(self, r: int, scale: float, dropout: float) -> LoRAExpertLinear:
        """Return this map with a low-rank change added to it; mlx-lm calls it."""
        experts, out_features, packed = self.weight.shape
        sizes = (experts, out_features, packed * 32 // self.bits)
        return LoRAExpertLinear(self, sizes, r=r, scale=scale, dropout=dropout)


@mx.compile
def _scaled(scores: mx.array, factor: float) -> mx.array:
    """Multiply scores by a factor, in float32."""
    return scores.astype(mx.float32) * factor


class Router(nn.Module):
    """Picks the experts of each token, and their weights."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.scale = mx.ones((config.hidden_size,))
        self.per_expert_scale = mx.ones((config.num_experts,))
        self._top_k = config.top_k_experts
        self._eps = config.rms_norm_eps
        self._root = config.hidden_size**-0.5

    def __call__(self, hidden: mx.array) -> tuple[mx.array, mx.array]:
        """Return float32 weights [N, k] and expert indices [N, k] of hidden states [N, D] that no norm has seen."""
        normed = mx.fast.rms_norm(hidden, self.scale, self._eps)
        # The reference multiplies the input of the projection; its output is 22 times smaller.
        scores = _scaled(self.proj(normed), self._root)
        indices = mx.argpartition(scores, kth=-self._top_k, axis=-1)[:, -self._top_k :]
        # Picking experts has no gradient; MLX fails where it is asked to differentiate through indices.
        indices = mx.stop_gradient(indices)
        # The softmax over all experts, renormalised over the chosen ones, is the softmax over the chosen ones.
        weights = mx.softmax(mx.take_along_axis(scores, indices, axis=-1), axis=-1)
        return weights * self.per_expert_scale[indices], indices


class Experts(nn.Module):
    """All experts of one layer, applied to the tokens that the router sends them."""

    def __init__(self, config: ModelConfig, kernels: Kernels) -> None:
        super().__init__()
        experts, inner, hidden = config.num_experts, config.moe_intermediate_size, config.hidden_size
        self.gate_up_proj = ExpertLinear(experts, 2 * inner, hidden)
        self.down_proj = ExpertLinear(experts, hidden, inner)
        self._experts = experts
        self._kernels = kernels

    def __call__(self, hidden: mx.array, weights: mx.array, indices: mx.array) -> mx.array:
        """hidden [N, D], weights and indices [N, k] -> [N, D]"""
        tokens, top_k = indices.shape
        height = self._kernels.tile_height(tokens * top_k, self._experts)
        pairs, positions, experts = tiled(indices.flatten(), self._experts, height)
        rows = gather_rows(hidden, pairs, positions).reshape(-1, height, hidden.shape[-1])
        gate, up = mx.split(self.gate_up_proj(rows, experts), 2, axis=-1)
        out = self.down_proj(geglu(gate, up, self._kernels), experts).reshape(pairs.size, -1)
        out = gather_pairs(out, pairs, positions).reshape(tokens, top_k, -1)
        # A product, which sums in float32, moves a fifth of the bytes of multiplying and adding.
        return (weights.astype(hidden.dtype)[:, None] @ out).squeeze(1)


def tiled(chosen: mx.array, experts: int, height: int) -> tuple[mx.array, mx.array, mx.array]:
    """Arrange pairs in tiles of `height` rows, each tile of one expert, in ascending order of the experts.

    chosen: the expert of each pair [P]. Returns the pair in each row [tiles * height], P for a row of padding; the row
    of each pair [P]; the expert of each tile [tiles].
    """
    count = chosen.size
    order = mx.argsort(chosen)
    ascending = chosen[order]
    if height == 1:
        return order, mx.argsort(order), ascending
    counts = (chosen[:, None] == mx.arange(experts)).sum(axis=0)
    ends = mx.cumsum((counts + height - 1) // height)
    # An expert's pairs move from their position among the sorted pairs to the first row of the expert's first tile.
    moved = mx.concatenate([mx.zeros((1,), ends.dtype), ends[:-1]]) * height - (mx.cumsum(counts) - counts)
    rows = mx.arange(count) + moved[ascending]
    tiles = count // height + experts
    pairs = mx.full((tiles * height,), count, dtype=order.dtype)
    pairs[rows] = order
    of_tile = (mx.arange(tiles)[:, None] >= ends).sum(axis=1)
    positions = mx.zeros((count,), dtype=rows.dtype)
    positions[order] = rows
    return pairs, positions, mx.minimum(of_tile, experts - 1).astype(mx.uint32)


# Both ways of moving rows are gathers, and so are their gradients. MLX's own gradient of a gather scatters one row at a
# time. `pairs` holds the pair in each row, `positions` the row of each pair.


def _gather_rows(hidden: mx.array, pairs: mx.array, positions: mx.array) -> mx.array:
    return _or_zeros(hidden, pairs // (positions.size // hidden.shape[0]), padded=pairs.size > positions.size)


def _gather_rows_pullback(primals: Arrays, cotangent: mx.array, _: mx.array) -> Arrays:
    hidden, pairs, positions = primals
    gradient = cotangent[positions].reshape(hidden.shape[0], -1, hidden.shape[1]).sum(axis=1)
    return gradient, mx.zeros_like(pairs), mx.zeros_like(positions)


def _gather_pairs(out: mx.array, _: mx.array, positions: mx.array) -> mx.array:
    return out[positions]


def _gather_pairs_pullback(primals: Arrays, cotangent: mx.array, _: mx.array) -> Arrays:
    _, pairs, positions = primals
    padded = pairs.size > positions.size
    return _or_zeros(cotangent, pairs, padded=padded), mx.zeros_like(pairs), mx.zeros_like(positions)


def _or_zeros(rows: mx.array, indices: mx.array, *, padded: bool) -> mx.array:
    """Return rows[indices], where the index after the last row gives zeros if there is padding."""
    return (mx.concatenate([rows, mx.zeros_like(rows[:1])]) if padded else rows)[indices]


gather_rows = differentiable(_gather_rows, _gather_rows_pullback)
"""(hidden [N, D], pairs, positions) -> the hidden state of each row's token [rows, D], zeros in rows of padding."""
gather_pairs = differentiable(_gather_pairs, _gather_pairs_pullback)
"""(out [rows, D], pairs, positions) -> the result of each pair [P, D]."""
