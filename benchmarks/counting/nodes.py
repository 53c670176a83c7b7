"""Arrays, primitives and graphs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import mlx.core as mx


@dataclass(frozen=True, kw_only=True)
class Ref:
    """An array of a graph; arrays with equal names are one array."""

    name: str
    shape: tuple[int, ...]
    dtype: mx.Dtype

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Node:
    """A primitive; `members` are the primitives of a compiled kernel."""

    kind: str
    inputs: tuple[Ref, ...]
    outputs: tuple[Ref, ...]
    arguments: tuple[Any, ...] = ()
    members: tuple[Node, ...] = ()


@dataclass(kw_only=True)
class Graph:
    """Primitives in the order in which they run; inputs and outputs in the order of the function."""

    nodes: list[Node] = field(default_factory=list)
    inputs: tuple[Ref, ...] = ()
    outputs: tuple[Ref, ...] = ()
    constants: dict[str, mx.array] = field(default_factory=dict)
