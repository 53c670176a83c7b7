"""Several linear maps of one input as one: their weights below each other, their results beside each other.

One product with 8,192 columns keeps a GPU busier than three smaller ones, and is one kernel instead of three. Every
result is what it was, because each is computed from its own row of weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy

import mlx.core as mx
import mlx.nn as nn

_ARRAYS = ("weight", "scales", "biases")


def joined_maps(maps: Sequence[nn.Module]) -> nn.Module | None:
    """Return one map [.., in] -> [.., sum of out] with the weights of all, None if they are not of one format."""
    first = maps[0]
    if type(first) not in (nn.Linear, nn.QuantizedLinear) or len({_format(each) for each in maps}) > 1:
        return None
    whole = copy(first)
    for name in _ARRAYS:
        if first.get(name) is not None:
            whole[name] = mx.concatenate([each[name] for each in maps])
    # So that the old weights of one layer are given back before the new ones of the next are made.
    mx.eval(whole.parameters())
    return whole


def _format(linear: nn.Module) -> tuple[object, ...]:
    """Return what is equal for maps that can be joined."""
    arrays = tuple((name, linear[name].dtype, linear[name].shape[1:]) for name in sorted(linear.parameters()))
    return type(linear), arrays, *(getattr(linear, name, None) for name in ("bits", "group_size", "mode"))
