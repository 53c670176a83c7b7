"""Count the cost of every primitive.

operations  a product: two per multiplication and addition of every element of the result. A reduction or a sort: one
            per element that it reads. A move or a view: none. Everything else: one per element of the result. A
            compiled kernel: the operations of all its members.
bytes       read and written, every array of a primitive once. A view moves none; a gather reads the rows that it
            takes; a product with experts reads as many experts as can be chosen. The processor's caches, and copies
            that a kernel makes for itself, are not seen.
primitives  all but views.
vocabulary  elements read or written of arrays over the whole vocabulary. Divided by the elements of the canvas's
            logits they are passes over the vocabulary, whether it is computed at once or in parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

from counting.fusion import FUSABLE
from counting.instrument import ATTENTION, DEQUANTIZE, CountError
from counting.layout import RULES, SAME, Layout, elementwise, fresh, view
from counting.nodes import Node, Ref


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Exact sums over primitives."""

    products: int = 0
    """floating-point operations of matrix products"""
    others: int = 0
    """all other operations"""
    weights: int = 0
    """bytes of parameters read"""
    read: int = 0
    """bytes of other arrays read"""
    written: int = 0
    """bytes written"""
    primitives: int = 0
    vocabulary: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(Cost)})


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A node and its cost, which is zero for a view."""

    node: Node
    cost: Cost


def count(nodes: Iterable[Node], *, parameters: Iterable[Ref] = (), vocabulary: int = 0) -> list[Counted]:
    """Return the costs of nodes, from the first of their graph on. Raises CountError for a kind without a rule."""
    layouts: dict[str, Layout] = {}
    fixed = {ref.name for ref in parameters}

    def layout(ref: Ref) -> Layout:
        return layouts.setdefault(ref.name, fresh(ref))

    counted: list[Counted] = []
    for node in nodes:
        sources = [layout(ref) for ref in node.inputs]
        seen = view(node, sources[0]) if sources else None
        if seen is not None:
            layouts |= zip((output.name for output in node.outputs), seen, strict=False)
            counted.append(Counted(node=node, cost=Cost()))
            continue
        for output in node.outputs:
            layouts[output.name] = elementwise(output, sources) if _is_elementwise(node) else fresh(output)
        counted.append(Counted(node=node, cost=_cost(node, sources, fixed, vocabulary)))
    return counted


def _cost(node: Node, sources: Sequence[Layout], fixed: set[str], vocabulary: int) -> Cost:
    """Return the cost of a node that is not a view."""
    products, others = operations(node)
    read = _reads(node, sources)
    written = _written(node)
    weights = sum(size for size, source in zip(read, sources, strict=True) if source.owner in fixed)
    wide = 0
    for ref, size, owner in [
        *((ref, size, source.owner) for ref, size, source in zip(node.inputs, read, sources, strict=True)),
        *((ref, size, ref.name) for ref, size in zip(node.outputs, written, strict=True)),
    ]:
        elements = size // ref.dtype.size
        if vocabulary and elements >= vocabulary and owner not in fixed and is_wide(ref.shape, vocabulary):
            wide += elements
    return Cost(
        products=products,
        others=others,
        weights=weights,
        read=sum(read) - weights,
        written=sum(written),
        primitives=1,
        vocabulary=wide,
    )


def total(counted: Iterable[Counted]) -> Cost:
    """Return the sum of costs."""
    return sum((each.cost for each in counted), Cost())


def operations(node: Node) -> tuple[int, int]:
    """Return (operations of matrix products, other operations). Raises CountError for a kind without a rule."""
    if node.members:
        return 0, sum(operations(member)[1] for member in node.members)
    if node.kind in PRODUCTS:
        return PRODUCTS[node.kind](node)
    if node.kind in MOVES or node.kind in RULES or node.kind in SAME:
        return 0, 0
    if node.kind in READERS:
        return 0, node.inputs[0].size
    if node.kind in FUSABLE or node.kind in MAKERS:
        return 0, sum(output.size for output in node.outputs)
    raise CountError(f"there is no rule for what the primitive {node.kind} costs")


def _matmul(node: Node) -> tuple[int, int]:
    return 2 * node.outputs[0].size * node.inputs[0].shape[-1], 0


def _add_matmul(node: Node) -> tuple[int, int]:
    # The inputs are A, B, C of alpha * A @ B + beta * C.
    return 2 * node.outputs[0].size * node.inputs[0].shape[-1], node.outputs[0].size


def _attention(node: Node) -> tuple[int, int]:
    queries, keys, values = node.inputs[:3]
    scores = queries.size // queries.shape[-1] * keys.shape[-2]
    return 2 * scores * (queries.shape[-1] + values.shape[-1]), scores


PRODUCTS: dict[str, Callable[[Node], tuple[int, int]]] = {
    "AddMM": _add_matmul,
    "GatherMM": _matmul,
    "GatherQMM": _matmul,
    "Matmul": _matmul,
    "QuantizedMatmul": _matmul,
    ATTENTION: _attention,
}
"""Matrix products. Unpacking weights is not counted; attention has one more operation per score."""

MOVES = frozenset(
    """Arange AsType Broadcast Concatenate Contiguous DynamicSlice DynamicSliceUpdate Full Gather GatherAxis Pad Scatter
    ScatterAxis SliceUpdate""".split()
)
"""Primitives that only move values."""

READERS = frozenset(
    """ArgPartition ArgReduce ArgSort LayerNorm LogSumExp Partition Reduce RMSNorm Scan Softmax Sort""".split()
)
"""Primitives with one operation per element of their first input."""

MAKERS = frozenset({DEQUANTIZE, "DivMod", "FloorDivide", "RandomBits", "RoPE"})
"""Primitives with one operation per element of their result that mx.compile does not fuse."""

ROWS = {"Gather", "GatherAxis"}
CHOSEN = {"GatherMM": 1, "GatherQMM": 1}
"""Products with experts -> index of the first input that has an entry per expert; the last inputs are indices."""
INTO = {"SliceUpdate", "DynamicSliceUpdate"}


def _is_elementwise(node: Node) -> bool:
    return node.kind in FUSABLE or bool(node.members)


def _reads(node: Node, sources: Sequence[Layout]) -> list[int]:
    """Return the bytes read of each input; an array that is an input twice is read once."""
    sizes: list[int] = []
    seen: set[str] = set()
    for index, (ref, source) in enumerate(zip(node.inputs, sources, strict=True)):
        size = 0 if ref.name in seen else source.elements * ref.dtype.size
        seen.add(ref.name)
        if index == 0 and node.kind in ROWS:
            size = min(size, node.outputs[0].size * ref.dtype.size)
        elif index == 0 and node.kind in INTO:
            # Written in place, because nothing else refers to a cache that is being extended.
            size = 0
        elif node.kind in CHOSEN and index >= CHOSEN[node.kind] and len(ref.shape) == 3:
            tiles = node.outputs[0].size // (node.outputs[0].shape[-1] * node.outputs[0].shape[-2])
            size = size * min(ref.shape[0], tiles) // ref.shape[0]
        sizes.append(size)
    return sizes


def _written(node: Node) -> list[int]:
    if node.kind in INTO:
        return [node.inputs[1].size * node.inputs[1].dtype.size]
    return [output.size * output.dtype.size for output in node.outputs]


def is_wide(shape: Sequence[int], vocabulary: int) -> bool:
    """Return whether the last axis, or several last axes together, span the vocabulary."""
    return any(math.prod(shape[axis:]) == vocabulary for axis in range(len(shape)))
