"""Low-rank adaptation of experts. mlx-lm has the LoRA layers of every other linear map of the model."""

from __future__ import annotations

from typing import Protocol, cast

import mlx.core as mx
import mlx.nn as nn


class ExpertMap(Protocol):
    """One linear map per expert, packed or not: see experts.ExpertLinear."""

    def __call__(self, rows: mx.array, experts: mx.array) -> mx.array:
        """Map tiles of rows [T, n, in] by the experts of these tiles [T] -> [T, n, out]."""
        ...


class LoRAExpertLinear(nn.Module):
    """linear(x) + scale * b(a(x)); a is [experts, rank, in] and b [experts, out, rank]."""

    def __init__(self, linear: nn.Module, sizes: tuple[int, int, int], *, r: int, scale: float, dropout: float) -> None:
        """Adapt the map `linear`, whose weights have the `sizes` (experts, out, in)."""
        super().__init__()
        experts, out_features, in_features = sizes
        self.linear = linear
        self.dropout = nn.Dropout(p=dropout)
        self.scale = scale
        limit = in_features**-0.5
        self.lora_a = mx.random.uniform(-limit, limit, (experts, r, in_features))
        self.lora_b = mx.zeros((experts, out_features, r))

    def __call__(self, rows: mx.array, experts: mx.array) -> mx.array:
        """Map tiles of rows [T, n, in] by the experts of these tiles [T], in ascending order -> [T, n, out]."""
        out = cast("ExpertMap", self.linear)(rows, experts)
        inner = mx.gather_mm(self.dropout(rows), self.lora_a.swapaxes(-1, -2), rhs_indices=experts, sorted_indices=True)
        change = mx.gather_mm(inner, self.lora_b.swapaxes(-1, -2), rhs_indices=experts, sorted_indices=True)
        return out + (self.scale * change).astype(out.dtype)

    def change(self) -> mx.array:
        """Return what is added to the weights [experts, out, in]."""
        return self.scale * (self.lora_b @ self.lora_a)
