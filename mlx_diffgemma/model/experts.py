"""The mixture of experts: a router that picks a few experts per token, and the experts' two stacked projections.

r ---> router -------------------------> weights, indices
n ---> rows in tiles of one expert each -> gate_up -> gelu(gate) * up -> down -> collected, weighted, summed
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_diffgemma.model.config import ModelConfig
from mlx_diffgemma.model.functions import Arrays, differentiable, geglu, on_cpu
from mlx_diffgemma.model.lora import LoRAExpertLinear

TALL = 64


class ExpertLinear(nn.Module):
    """One linear map per expert, weights [experts, out, in]; each tile of rows goes through the expert of its index."""

    def __init__(self, experts: int, out_features: int, in_features: int) -> None:
        super().__init__()
        self.weight = mx.zeros((experts, out_features, in_features))

    def __call__(self, rows: mx.array, experts: mx.array) -> mx.array:
        """rows [T, n, in], the experts of the T tiles in ascending order -> [T, n, out]"""
        return mx.gather_mm(rows, self.weight.swapaxes(-1, -2), rhs_indices=experts, sorted_indices=True)

    def to_quantized(self, group_size: int, bits: int, mode: str = "affine") -> QuantizedExpertLinear:
        """The same map with packed weights; called by nn.quantize."""
        return QuantizedExpertLinear(self.weight, group_size, bits, mode)

    def to_lora(self, r: int, scale: float, dropout: float) -> LoRAExpertLinear:
        """The same map with a low-rank change beside it; called by mlx-lm."""
        experts, out_features, in_features = self.weight.shape
        return LoRAExpertLinear(self, (experts, out_features, in_features), r=r, scale=scale, dropout=dropout)


class QuantizedExpertLinear(nn.Module):
    """ExpertLinear over packed weights."""

    def __init__(self, weight: mx.array, group_size: int, bits: int, mode: str) -> None:
        super().__init__()
        self.group_size = group_size
        self.bits = bits
        self.mode = mode
        self.weight, self.scales, *biases = mx.quantize(weight, group_size=group_size, bits=bits, mode=mode)
        self.biases = biases[0] if biases else None
        self.freeze()

    def __call__(self, rows: mx.array, experts: mx.array) -> mx.array:
        """rows [T, n, in], the experts of the T tiles in ascending order -> [T, n, out]"""
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
        """The same map with a low-rank change beside it; called by mlx-lm."""
        experts, out_features, packed = self.weight.shape
        sizes = (experts, out_features, packed * 32 // self.bits)
        return LoRAExpertLinear(self, sizes, r=r, scale=scale, dropout=dropout)


class Router(nn.Module):
    """Which experts a token goes to, and with what weight."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(config.hidden_size, config.num_experts, bias=False)
        self.scale = mx.ones((config.hidden_size,))
        self.per_expert_scale = mx.ones((config.num_experts,))
        self._top_k = config.top_k_experts
        self._eps = config.rms_norm_eps
        self._root = config.hidden_size**-0.5

    def __call__(self, hidden: mx.array) -> tuple[mx.array, mx.array]:
        """hidden [N, D], before any norm -> float32 weights [N, k] and expert indices [N, k]"""
        normed = mx.fast.rms_norm(hidden, None, self._eps) * self.scale * self._root
        scores = self.proj(normed).astype(mx.float32)
        indices = mx.argpartition(scores, kth=-self._top_k, axis=-1)[:, -self._top_k :]
        # Picking experts has no gradient; without this, differentiating through the indices fails.
        indices = mx.stop_gradient(indices)
        # The softmax over all experts, renormalised over the chosen ones, is the softmax over the chosen ones.
        weights = mx.softmax(mx.take_along_axis(scores, indices, axis=-1), axis=-1)
        return weights * self.per_expert_scale[indices], indices


class Experts(nn.Module):
    """All experts of one layer, applied to the tokens that the router sent them."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, inner, hidden = config.num_experts, config.moe_intermediate_size, config.hidden_size
        self.gate_up_proj = ExpertLinear(experts, 2 * inner, hidden)
        self.down_proj = ExpertLinear(experts, hidden, inner)
        self._experts = experts

    def __call__(self, hidden: mx.array, weights: mx.array, indices: mx.array) -> mx.array:
        """hidden [N, D], weights and indices [N, k] -> [N, D]"""
        tokens, top_k = indices.shape
        height = tile_height(tokens * top_k, self._experts)
        pairs, places, experts = tiled(indices.flatten(), self._experts, height)
        rows = spread(hidden, pairs, places).reshape(-1, height, hidden.shape[-1])
        gate, up = mx.split(self.gate_up_proj(rows, experts), 2, axis=-1)
        out = self.down_proj(geglu(gate, up), experts).reshape(pairs.size, -1)
        out = collect(out, pairs, places).reshape(tokens, top_k, -1)
        # The weights are float32, so the sum is too; it is rounded once.
        return (out * weights[..., None]).sum(axis=1).astype(hidden.dtype)


def tile_height(pairs: int, experts: int) -> int:
    """Rows per tile: 1, but for the many rows of a training batch on the CPU.

    GPU kernels find the runs of one expert themselves. The CPU multiplies one tile at a time, which a good BLAS does
    best with tall ones; at least twice as many rows per expert keep the padding of the last tile small.
    """
    return TALL if on_cpu() and pairs >= 2 * TALL * experts else 1


def tiled(chosen: mx.array, experts: int, height: int) -> tuple[mx.array, mx.array, mx.array]:
    """Lay out (token, choice) pairs in tiles of `height` rows that go to one expert each, in ascending order.

    chosen: the expert of each pair [P]. -> the pair in each row [tiles * height], P where a row is padding; the row of
    each pair [P]; the expert of each tile.
    """
    count = chosen.size
    order = mx.argsort(chosen)
    ascending = chosen[order]
    if height == 1:
        return order, _inverse(order, count, mx.arange(count)), ascending
    counts = (chosen[:, None] == mx.arange(experts)).sum(axis=0)
    ends = mx.cumsum((counts + height - 1) // height)
    # An expert's first row, less the pairs of the experts before it, is how far its pairs move.
    moved = mx.concatenate([mx.zeros((1,), ends.dtype), ends[:-1]]) * height - (mx.cumsum(counts) - counts)
    rows = mx.arange(count) + moved[ascending]
    tiles = count // height + experts
    pairs = mx.full((tiles * height,), count, dtype=order.dtype)
    pairs[rows] = order
    of_tile = (mx.arange(tiles)[:, None] >= ends).sum(axis=1)
    return pairs, _inverse(order, count, rows), mx.minimum(of_tile, experts - 1).astype(mx.uint32)


def _inverse(order: mx.array, count: int, rows: mx.array) -> mx.array:
    places = mx.zeros((count,), dtype=rows.dtype)
    places[order] = rows
    return places


# Both ways of moving rows are gathers, and so are their gradients: scattering adds one row at a time. `pairs` says
# which pair is in each row, `places` which row each pair is in.


def _to_rows(hidden: mx.array, pairs: mx.array, places: mx.array) -> mx.array:
    """hidden [N, D] -> the token of each row [rows, D], zeros where a row is padding"""
    return _or_zeros(hidden, pairs // (places.size // hidden.shape[0]), padded=pairs.size > places.size)


def _to_rows_pullback(primals: Arrays, cotangent: mx.array, _: mx.array) -> Arrays:
    hidden, pairs, places = primals
    gradient = cotangent[places].reshape(hidden.shape[0], -1, hidden.shape[1]).sum(axis=1)
    return gradient, mx.zeros_like(pairs), mx.zeros_like(places)


def _to_pairs(out: mx.array, _: mx.array, places: mx.array) -> mx.array:
    """out [rows, D] -> what became of each pair [P, D]"""
    return out[places]


def _to_pairs_pullback(primals: Arrays, cotangent: mx.array, _: mx.array) -> Arrays:
    _, pairs, places = primals
    padded = pairs.size > places.size
    return _or_zeros(cotangent, pairs, padded=padded), mx.zeros_like(pairs), mx.zeros_like(places)


def _or_zeros(rows: mx.array, indices: mx.array, *, padded: bool) -> mx.array:
    """rows[indices], zeros where padding is indexed: one behind the last row."""
    return (mx.concatenate([rows, mx.zeros_like(rows[:1])]) if padded else rows)[indices]


spread = differentiable(_to_rows, _to_rows_pullback)
"""`_to_rows` with its gradient."""
collect = differentiable(_to_pairs, _to_pairs_pullback)
"""`_to_pairs` with its gradient."""
