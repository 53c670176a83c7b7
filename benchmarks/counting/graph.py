"""Trace a function with arguments of known shapes: the primitives of its graph, in the order in which MLX runs them.

1  mx.export_function calls the function with placeholders and reports every primitive; nothing is computed
2  marked nodes are replaced by the calls that they mark (instrument.py)
3  a compiled function is traced separately and grouped into kernels (fusion.py)
4  only primitives between the inputs and the wanted results are kept, because no other ever runs

MLX's trace merges equal primitives, which a run does not; `runs` returns the primitives of a run.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx

from counting.fusion import fuse
from counting.instrument import MARK, Call, CountError, Recording, record
from counting.layout import VIEWS
from counting.nodes import Graph, Node, Ref

Function = Callable[..., Sequence[mx.array]]


def trace(function: Function, arguments: Sequence[mx.array], *, gpu: bool = False) -> Graph:
    """Return the graph of function(*arguments), of which only shapes and dtypes matter. Raises CountError."""
    with record(gpu=gpu) as recording:
        graph = _export(function, arguments)
    return _expand(graph, recording)


def between(graph: Graph, wanted: Iterable[Ref], sources: Iterable[Ref] = ()) -> list[Node]:
    """Return the nodes that compute `wanted` from `sources` and from constants, in order."""
    needed = {ref.name for ref in wanted} - {ref.name for ref in sources}
    known = {ref.name for ref in sources}
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if any(output.name in needed for output in node.outputs):
            nodes.append(node)
            needed |= {ref.name for ref in node.inputs} - known
    return nodes[::-1]


def runs(wanted: Sequence[mx.array], before: Sequence[mx.array], sources: Sequence[mx.array]) -> list[str]:
    """Return the names of the primitives in a run that computes `wanted` from `sources` after it computed `before`.

    They are read from MLX's drawing of an untraced graph, which has all equal primitives. Views are left out.
    """
    text = io.StringIO()
    # `sources` may have been computed too: one array that depends on all of it represents that.
    gate = mx.depends([mx.zeros((1,))], list(sources))
    mx.export_to_dot(
        text,
        *before,
        *gate,
        *wanted,
        **{f"before{index}": array for index, array in enumerate([*before, *gate])},
        **{f"wanted{index}": array for index, array in enumerate(wanted)},
    )
    made = _applied(text.getvalue())
    done = _reached((name for _, _, outputs in made for name in outputs if name.startswith("before")), made)
    found = _reached((name for _, _, outputs in made for name in outputs if name.startswith("wanted")), made) - done
    return [kind for index, (kind, _, _) in enumerate(made) if index in found and kind not in VIEWS]


def _applied(dot: str) -> list[tuple[str, list[str], list[str]]]:
    """Return every primitive of a graph in DOT: its name, its inputs, its outputs.

    Calls of one compiled function share their primitives and so the numbers in the drawing; only the order of the lines
    tells them apart.
    """
    applied: list[tuple[str, list[str], list[str]]] = []
    for line in dot.splitlines():
        if match := re.match(r'\{ \d+ \[label ="([^"]*)"', line):
            applied.append((match[1].split()[0], [], []))
        elif match := re.match(r'"(\w+)" -> \d+', line):
            applied[-1][1].append(match[1])
        elif match := re.match(r'\d+ -> "(\w+)"', line):
            applied[-1][2].append(match[1])
    return applied


def _reached(ends: Iterable[str], applied: Sequence[tuple[str, list[str], list[str]]]) -> set[int]:
    """Return the indices of the primitives that the ends depend on."""
    maker = {name: index for index, (_, _, outputs) in enumerate(applied) for name in outputs}
    reached: set[int] = set()
    left = list(ends)
    while left:
        at = maker.get(left.pop())
        if at is not None and at not in reached:
            reached.add(at)
            left += applied[at][1]
    return reached


def _export(function: Function, arguments: Sequence[mx.array], *, shapeless: bool = False) -> Graph:
    graph = Graph()

    def take(event: dict[str, Any]) -> None:
        match event:
            case {"type": "inputs", "inputs": inputs}:
                graph.inputs = _refs(inputs)
            case {"type": "outputs", "outputs": outputs}:
                graph.outputs = _refs(outputs)
            case {"type": "constants", "constants": constants}:
                graph.constants = dict(constants)
            case {"type": "primitive", "name": kind, "inputs": inputs, "outputs": outputs, "arguments": state}:
                made = Node(kind=kind, inputs=_refs(inputs), outputs=_refs(outputs), arguments=tuple(state))
                graph.nodes.append(made)
            case _:
                pass

    try:
        mx.export_function(take, lambda *sources: tuple(function(*sources)), *arguments, shapeless=shapeless)
    except (ValueError, RuntimeError) as error:
        raise CountError(f"MLX cannot trace this: {error}") from error
    return graph


def _refs(arrays: Iterable[tuple[str, Sequence[int], mx.Dtype]]) -> tuple[Ref, ...]:
    return tuple(Ref(name=name, shape=tuple(shape), dtype=dtype) for name, shape, dtype in arrays)


def _expand(graph: Graph, recording: Recording) -> Graph:
    """Carry out phases 2 and 3."""
    nodes: list[Node] = []
    known: dict[Hashable, Graph] = {}
    for node in graph.nodes:
        found = _call(node, graph.constants, recording)
        if found is None:
            nodes.append(node)
            continue
        index, call = found
        real = replace(node, kind=call.kind, inputs=node.inputs[len(node.outputs) + 1 :])
        if call.function is None:
            nodes.append(real)
            continue
        key = (call.key, tuple((ref.shape, str(ref.dtype)) for ref in real.inputs))
        if key not in known:
            known[key] = _inner(call, real, gpu=recording.gpu)
        nodes += _placed(known[key], real, f"{index}/")
    return replace(graph, nodes=nodes)


def _call(node: Node, constants: Mapping[str, mx.array], recording: Recording) -> tuple[int, Call] | None:
    """Return the call that a node marks, with its number; None for a node that is not marked."""
    position = len(node.outputs)
    if node.kind != "Depends" or len(node.inputs) <= position:
        return None
    tag = constants.get(node.inputs[position].name)
    if tag is None or tag.shape != (2,) or tag[0].item() != MARK:
        return None
    index = int(tag[1].item())
    return index, recording.calls[index]


def _inner(call: Call, node: Node, *, gpu: bool) -> Graph:
    """The graph of one call, fused where it is compiled."""
    assert call.function is not None
    arguments = [mx.zeros(ref.shape, ref.dtype) for ref in node.inputs]
    with record(gpu=gpu, inside=True) as recording:
        inner = _export(call.function, arguments, shapeless=call.shapeless)
    inner = _expand(inner, recording)
    nodes = between(inner, inner.outputs)
    if call.compiled is not None:
        nodes = fuse(nodes, inner.outputs)
        if not gpu:
            _check(nodes, call.compiled, arguments)
    return replace(inner, nodes=nodes)


def _placed(inner: Graph, node: Node, prefix: str) -> list[Node]:
    """Return the nodes of a call's graph with the array names of the graph around it."""
    names = {inside.name: outside for inside, outside in zip(inner.inputs, node.inputs, strict=True)}
    aliases: list[Node] = []
    for inside, outside in zip(inner.outputs, node.outputs, strict=True):
        if inside.name in names:
            # One array is a result twice, or an input is a result.
            aliases.append(Node(kind="Copy", inputs=(names[inside.name],), outputs=(outside,)))
        else:
            names[inside.name] = outside

    def outside_of(ref: Ref) -> Ref:
        return names.get(ref.name) or replace(ref, name=prefix + ref.name)

    return [_renamed(kernel, outside_of) for kernel in inner.nodes] + aliases


def _renamed(node: Node, new: Callable[[Ref], Ref]) -> Node:
    return replace(
        node,
        inputs=tuple(map(new, node.inputs)),
        outputs=tuple(map(new, node.outputs)),
        members=tuple(_renamed(member, new) for member in node.members),
    )


def _check(kernels: Sequence[Node], compiled: Function, arguments: Sequence[mx.array]) -> None:
    """Raise CountError if MLX groups a compiled function into other kernels than `fuse` does."""
    theirs = runs(compiled(*arguments), [], arguments)
    ours = [node.kind + "".join(member.kind for member in node.members) for node in kernels if node.kind not in VIEWS]
    # Only numbers are compared, because names differ: a trace calls Sum Reduce and LeftShift BitwiseBinary.
    if [len(theirs), len(_fused(theirs))] != [len(ours), len(_fused(ours))]:
        raise CountError(f"mx.compile makes {', '.join(theirs)} of a function, the count {', '.join(ours)}")


def _fused(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith("Compiled")]
