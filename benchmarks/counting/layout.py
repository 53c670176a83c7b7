"""Which primitives only look at memory in another way, and which reshapes have to copy.

Every array is followed as shape and strides in elements over the array that owns the memory. A primitive that reads a
broadcast or a slice reads what lies under it; a reshape copies where the strides leave it no other way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from counting.nodes import Node, Ref

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How an array lies in the memory of the array named `owner`."""

    owner: str
    shape: Shape
    strides: Shape

    @property
    def elements(self) -> int:
        """Different elements in it: what is broadcast counts once."""
        count = 1
        for length, stride in zip(self.shape, self.strides, strict=True):
            count *= length if stride else 1
        return count


def row_major(shape: Shape) -> Shape:
    """The strides of an array that lies in one piece, the last axis innermost."""
    strides: list[int] = []
    step = 1
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def fresh(ref: Ref) -> Layout:
    """An array with memory of its own."""
    return Layout(owner=ref.name, shape=ref.shape, strides=row_major(ref.shape))


def view(node: Node, source: Layout) -> tuple[Layout, ...] | None:
    """The outputs of a node that is a view of its first input, None where it is no view or has to copy."""
    if node.kind in SAME:
        return tuple(replace(source, shape=output.shape) for output in node.outputs[:1])
    rule = RULES.get(node.kind)
    if rule is None:
        return None
    layouts: list[Layout] = []
    for output in node.outputs:
        strides = rule(node, source, output.shape)
        if strides is None:
            return None
        layouts.append(replace(source, shape=output.shape, strides=strides))
    return tuple(layouts)


def elementwise(output: Ref, inputs: Sequence[Layout]) -> Layout:
    """The result of a kernel over elements: it lies as the one array that it reads in full does, if there is one."""
    full = [layout for layout in inputs if layout.elements == output.size and layout.shape == output.shape]
    if len({layout.strides for layout in full}) == 1 and sorted(full[0].strides) == sorted(row_major(output.shape)):
        return Layout(owner=output.name, shape=output.shape, strides=full[0].strides)
    return fresh(output)


def reshaped(source: Layout, shape: Shape) -> Shape | None:
    """The strides of `source` as an array of `shape`, None where only a copy has that shape."""
    # Axes that follow each other without a gap are one; lengths of 1 have no say.
    pieces: list[list[int]] = []
    for length, stride in zip(source.shape, source.strides, strict=True):
        if length == 1:
            continue
        if pieces and pieces[-1][1] == length * stride:
            pieces[-1] = [pieces[-1][0] * length, stride]
        else:
            pieces.append([length, stride])
    strides: list[int] = []
    for length in reversed(shape):
        if length == 1:
            strides.append(1)
            continue
        while pieces and pieces[-1][0] == 1:
            pieces.pop()
        if not pieces or pieces[-1][0] % length:
            return None
        strides.append(pieces[-1][1])
        pieces[-1] = [pieces[-1][0] // length, pieces[-1][1] * length]
    return tuple(reversed(strides))


def _transpose(node: Node, source: Layout, _: Shape) -> Shape:
    return tuple(source.strides[axis] for axis in node.arguments[0])


def _broadcast(_: Node, source: Layout, shape: Shape) -> Shape:
    added = len(shape) - len(source.shape)
    kept = zip(source.shape, source.strides, shape[added:], strict=True)
    return (0,) * added + tuple(stride if length == wanted else 0 for length, stride, wanted in kept)


def _slice(node: Node, source: Layout, _: Shape) -> Shape:
    return tuple(stride * step for stride, step in zip(source.strides, node.arguments[2], strict=True))


def _reshape(_: Node, source: Layout, shape: Shape) -> Shape | None:
    return reshaped(source, shape)


def _kept(_: Node, source: Layout, __: Shape) -> Shape:
    return source.strides


RULES: dict[str, Callable[[Node, Layout, Shape], Shape | None]] = {
    "Broadcast": _broadcast,
    "ExpandDims": _reshape,
    "Flatten": _reshape,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _kept,
    "Squeeze": _reshape,
    "Transpose": _transpose,
    "Unflatten": _reshape,
}
"""Primitives that are views where they can be -> the strides of the result."""

SAME = frozenset({"Copy", "CustomTransforms", "Depends", "StopGradient", "View"})
"""Primitives whose first result is their first input."""

VIEWS = SAME | RULES.keys()
"""Primitives that move nothing, but for a reshape that has to."""
