"""Low-rank adaptation of experts: mlx-lm's LoRA layers cover every other linear map of the model."""

from __future__ import annotations

from typing import Protocol, cast

import mlx.core as mx
import mlx.nn as nn


class Linear(Protocol):
    """A stack of linear maps over tiles of rows, packed or not."""

    def __call__(self, rows: mx.array, experts: mx.array) -> mx.array:
        """rows [T, n, in], experts [T] -> [T, n, out]"""
        ...


class LoRAExpertLinear(nn.Module):
    """base(x) + scale * b(a(x)) with an a [experts, rank, in] and a b [experts, out, rank] per expert."""

    def __init__(self, linear: nn.Module, sizes: tuple[int, int, int], *, r: int, scale: float, dropout: float) -> None:
        """`linear` is the map to adapt, of `sizes` (experts, out, in)."""
        super().__init__()
        experts, out_features, in_features = sizes
        self.linear = linear
        self.dropout = nn.Dropout(p=dropout)
        self.scale = scale
        bound = in_features**-0.5
        self.lora_a = mx.random.uniform(-bound, bound, (experts, r, in_features))
        self.lora_b = mx.zeros((experts, out_features, r))

    def __call__(self, rows: mx.array, experts: mx.array) -> mx.array:
        """rows [T, n, in], the experts of the T tiles in ascending order -> [T, n, out]"""
        out = cast("Linear", self.linear)(rows, experts)
        inner = mx.gather_mm(self.dropout(rows), self.lora_a.swapaxes(-1, -2), rhs_indices=experts, sorted_indices=True)
        change = mx.gather_mm(inner, self.lora_b.swapaxes(-1, -2), rhs_indices=experts, sorted_indices=True)
        return out + (self.scale * change).astype(out.dtype)

    def change(self) -> mx.array:
        """What is added to the weights [experts, out, in]."""
        return self.scale * (self.lora_b @ self.lora_a)
