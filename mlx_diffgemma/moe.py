"""The mixture of experts: a router that picks a few experts per token, and the experts' two stacked projections.

r ---> router ----------------> weights, indices
n ---> rows sorted by expert -> gate_up -> gelu(gate) * up -> down -> unsorted, weighted, summed
"""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from mlx_diffgemma.config import ModelConfig


def geglu(gate: mx.array, up: mx.array) -> mx.array:
    """gelu(gate) * up, with the tanh form of gelu."""
    return nn.gelu_approx(gate) * up


class ExpertLinear(nn.Module):
    """One linear map per expert, weights [experts, out, in]; each row goes through the expert of its index."""

    def __init__(self, experts: int, out_features: int, in_features: int) -> None:
        super().__init__()
        self.weight = mx.zeros((experts, out_features, in_features))

    def __call__(self, rows: mx.array, experts: mx.array) -> mx.array:
        """rows [N, in], experts [N] in ascending order -> [N, out]"""
        weight = self.weight.swapaxes(-1, -2)
        out = mx.gather_mm(rows[:, None, :], weight, rhs_indices=experts, sorted_indices=True)
        return out.squeeze(1)

    def to_quantized(self, group_size: int, bits: int, mode: str = "affine") -> QuantizedExpertLinear:
        """The same map with packed weights; called by nn.quantize."""
        return QuantizedExpertLinear(self.weight, group_size, bits, mode)


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
        """rows [N, in], experts [N] in ascending order -> [N, out]"""
        out = mx.gather_qmm(
            rows[:, None, :],
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
        return out.squeeze(1)


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

    def __call__(self, hidden: mx.array, weights: mx.array, indices: mx.array) -> mx.array:
        """hidden [N, D], weights and indices [N, k] -> [N, D]"""
        tokens, top_k = indices.shape
        chosen = indices.flatten()
        # Sorted by expert, each expert's weights are read once for all of its rows.
        order = mx.argsort(chosen)
        experts = chosen[order]
        gate, up = mx.split(self.gate_up_proj(hidden[order // top_k], experts), 2, axis=-1)
        out = self.down_proj(geglu(gate, up), experts)
        out = out[mx.argsort(order)].reshape(tokens, top_k, -1)
        # The weights are float32, so the sum is too; it is rounded once.
        return (out * weights[..., None]).sum(axis=1).astype(hidden.dtype)
