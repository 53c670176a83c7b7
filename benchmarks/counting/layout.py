"""Follow the memory layout of arrays: which primitives are views, and which reshapes copy.

The layout of an array is its shape and its strides, in elements, over the array that owns the memory. A primitive that
reads a broadcast or a slice reads the elements of that memory; a reshape copies if no strides give the new shape.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from counting.nodes import Node, Ref

Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The layout of an array in the memory of the array named `owner`."""

    owner: str
    shape: Shape
    strides: Shape

    @property
    def elements(self) -> int:
        """Number of different elements; a broadcast element counts once."""
        count = 1
        for length, stride in zip(self.shape, self.strides, strict=True):
            count *= length if stride else 1
        return count


def row_major(shape: Shape) -> Shape:
    """Return the strides of a contiguous array, the last axis innermost."""
    strides: list[int] = []
    step = 1
    for length in reversed(shape):
        strides.append(step)
        step *= length
    return tuple(reversed(strides))


def fresh(ref: Ref) -> Layout:
    """Return the layout of an array that owns its memory."""
    return Layout(owner=ref.name, shape=ref.shape, strides=row_major(ref.shape))


def view(node: Node, source: Layout) -> tuple[Layout, ...] | None:
    """Return the layouts of a node's outputs if it is a view of its first input; None if it is not, or copies."""
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
    """Return the layout of an elementwise result: that of the input that is read in full, if there is one."""
    full = [layout for layout in inputs if layout.elements == output.size and layout.shape == output.shape]
    if len({layout.strides for layout in full}) == 1 and sorted(full[0].strides) == sorted(row_major(output.shape)):
        return Layout(owner=output.name, shape=output.shape, strides=full[0].strides)
    return fresh(output)


def reshaped(source: Layout, shape: Shape) -> Shape | None:
    """Return the strides of `source` as an array of `shape`; None if that needs a copy."""
    # Axes without a gap between them are merged into one chunk; axes of length 1 are ignored.
    chunks: list[list[int]] = []
    for length, stride in zip(source.shape, source.strides, strict=True):
        if length == 1:
            continue
        if chunks and chunks[-1][1] == length * stride:
            chunks[-1] = [chunks[-1][0] * length, stride]
        else:
            chunks.append([length, stride])
    strides: list[int] = []
    for length in reversed(shape):
        if length == 1:
            strides.append(1)
            continue
        while chunks and chunks[-1][0] == 1:
            chunks.pop()
        if not chunks or chunks[-1][0] % length:
            return None
        strides.append(chunks[-1][1])
        chunks[-1] = [chunks[-1][0] // length, chunks[-1][1] * length]
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
"""Primitives that are views if the strides allow it -> the strides of the result."""

SAME = frozenset({"Copy", "CustomTransforms", "Depends", "StopGradient", "View"})
"""Primitives whose first output is their first input."""

VIEWS = SAME | RULES.keys()
"""Primitives that move nothing, except for a reshape that copies."""
