"""What each primitive costs: the one place that says what is counted how.

operations  products: two per multiplication and addition of every element of the result. Everything else: one per
            element of the result, reductions and sorts one per element that they read, moves and views none. A
            compiled kernel has the operations of all its members.
bytes       what a primitive reads and writes, each of its arrays once. Views move none; gathers read the rows they
            take; products with experts read the experts that can be chosen at most. What stays in a cache of the
            processor, and what a kernel copies for itself, is not seen.
primitives  what is run: everything but views.
vocabulary  elements of arrays over the whole vocabulary that are read or written. Divided by the elements of the
            canvas's logits: passes over them, in whatever pieces they are made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

from counting.fusion import FUSABLE
from counting.instrument import ATTENTION, CountError
from counting.layout import RULES, SAME, Layout, elementwise, fresh, view
from counting.nodes import Node, Ref


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Sums over primitives; all exact."""

    products: int = 0
    """Floating-point operations of matrix products."""
    others: int = 0
    """All other operations."""
    weights: int = 0
    """Bytes of parameters read."""
    read: int = 0
    """Bytes of everything else read."""
    written: int = 0
    """Bytes written."""
    primitives: int = 0
    vocabulary: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(**{field.name: getattr(self, field.name) + getattr(other, field.name) for field in fields(Cost)})


@dataclass(frozen=True, kw_only=True)
class Counted:
    """One node and its cost; a view costs nothing."""

    node: Node
    cost: Cost


def count(nodes: Iterable[Node], *, parameters: Iterable[Ref] = (), vocabulary: int = 0) -> list[Counted]:
    """The costs of nodes, which start with the first of their graph. Raises CountError for one that is in no table."""
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
    """The cost of a node that is no view."""
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
    """The sum."""
    return sum((each.cost for each in counted), Cost())


def operations(node: Node) -> tuple[int, int]:
    """(operations of matrix products, other operations). Raises CountError for a kind that has no rule."""
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
    # Inputs are A, B, C of alpha * A @ B + beta * C.
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
"""Matrix products; the operations of unpacking weights are not counted. Attention has one more per score."""

MOVES = frozenset(
    """Arange AsType Broadcast Concatenate Contiguous DynamicSlice DynamicSliceUpdate Full Gather GatherAxis Pad Scatter
    ScatterAxis SliceUpdate""".split()
)
"""Primitives that write without computing."""

READERS = frozenset(
    """ArgPartition ArgReduce ArgSort LayerNorm LogSumExp Partition Reduce RMSNorm Scan Softmax Sort""".split()
)
"""Primitives with one operation per element of their first input."""

MAKERS = frozenset({"DivMod", "FloorDivide", "RandomBits", "RoPE"})
"""Primitives that mx.compile does not fuse, with one operation per element of their result."""

ROWS = {"Gather", "GatherAxis"}
CHOSEN = {"GatherMM": 1, "GatherQMM": 1}
"""Products with experts -> the first input that has one entry per expert; the indices are the last inputs."""
INTO = {"SliceUpdate", "DynamicSliceUpdate"}


def _is_elementwise(node: Node) -> bool:
    return node.kind in FUSABLE or bool(node.members)


def _reads(node: Node, sources: Sequence[Layout]) -> list[int]:
    """Bytes read of each input; of an array that is given twice only once."""
    sizes: list[int] = []
    seen: set[str] = set()
    for index, (ref, source) in enumerate(zip(node.inputs, sources, strict=True)):
        size = 0 if ref.name in seen else source.elements * ref.dtype.size
        seen.add(ref.name)
        if index == 0 and node.kind in ROWS:
            size = min(size, node.outputs[0].size * ref.dtype.size)
        elif index == 0 and node.kind in INTO:
            # It is written into where it lies: nothing else looks at a cache that is being appended to.
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
    """Whether the last axes of an array, one or several, hold the vocabulary."""
    return any(math.prod(shape[axis:]) == vocabulary for axis in range(len(shape)))
