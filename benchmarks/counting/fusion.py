"""Group the primitives of a compiled function into kernels by mx.compile's rule, which `graph` checks against MLX.

From the last primitive to the first, an elementwise primitive takes in the primitives that compute its inputs. Each of
them must be elementwise, must be used by no other kernel, and may be a result of the function only if it has the
kernel's shape. A kernel ends at a depth of 11 and at 24 inputs. A broadcast that several kernels use is a member of
each of them; a broadcast is never the result of a kernel.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from counting.nodes import Node, Ref

FUSABLE = frozenset(
    """Abs Add ArcCos ArcCosh ArcSin ArcSinh ArcTan ArcTan2 ArcTanh AsType BitwiseBinary BitwiseInvert Broadcast Ceil
    Conjugate Cos Cosh Divide Equal Erf ErfInv Exp Expm1 Floor Greater GreaterEqual Imag Less LessEqual Log Log1p
    LogAddExp LogicalAnd LogicalNot LogicalOr Maximum Minimum Multiply Negative NotEqual Power Real Remainder Round
    Select Sigmoid Sign Sin Sinh Sqrt Square Subtract Tan Tanh""".split()
)
DEPTH = 11
INPUTS = 24


def fuse(nodes: Sequence[Node], results: Sequence[Ref]) -> list[Node]:
    """Return the kernels of a compiled function, in order."""
    maker = {output.name: index for index, node in enumerate(nodes) for output in node.outputs}
    users: defaultdict[str, set[int]] = defaultdict(set)
    for index, node in enumerate(nodes):
        for ref in node.inputs:
            users[ref.name].add(index)
    wanted = {ref.name for ref in results}
    taken: set[int] = set()
    kernels: list[Node] = []
    for last in reversed(range(len(nodes))):
        if last in taken:
            continue
        group = _group(nodes, last, maker, users, wanted)
        # A broadcast that another kernel uses too stays available.
        taken |= {at for at in group if nodes[at].kind != "Broadcast" or users[nodes[at].outputs[0].name] <= group}
        kernels.append(_kernel([nodes[at] for at in sorted(group)], wanted) if len(group) > 1 else nodes[last])
    return kernels[::-1]


def _group(
    nodes: Sequence[Node], last: int, maker: dict[str, int], users: dict[str, set[int]], wanted: set[str]
) -> set[int]:
    """Return the indices of the nodes that run in one kernel with the node `last`."""
    group: set[int] = set()
    borders: set[str] = set()
    shape = nodes[last].outputs[0].shape

    def visit(ref: Ref, depth: int) -> None:
        at = maker.get(ref.name)
        if at in group:
            return
        fits = at is not None and nodes[at].kind in FUSABLE and (ref.name not in wanted or ref.shape == shape)
        if at is None or depth >= DEPTH or not fits:
            borders.add(ref.name)
            return
        if depth and not users[ref.name] <= group and (nodes[at].kind != "Broadcast" or len(borders) >= INPUTS):
            borders.add(ref.name)
            return
        if ref.name in wanted:
            borders.add(ref.name)
        else:
            borders.discard(ref.name)
        if len(borders) >= INPUTS:
            return
        group.add(at)
        for source in nodes[at].inputs:
            visit(source, depth + 1)

    if nodes[last].kind != "Broadcast":
        visit(nodes[last].outputs[0], 0)
    return group or {last}


def _kernel(members: Sequence[Node], wanted: set[str]) -> Node:
    """Return one node for all members, with the inputs from outside and the results that are used outside."""
    made = {output.name for member in members for output in member.outputs}
    inputs = {ref.name: ref for member in members for ref in member.inputs if ref.name not in made}
    outputs = [out for member in members[:-1] for out in member.outputs if out.name in wanted]
    return Node(
        kind="Compiled",
        inputs=tuple(inputs.values()),
        outputs=(*outputs, *members[-1].outputs),
        members=tuple(members),
    )
