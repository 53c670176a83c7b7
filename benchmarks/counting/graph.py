"""A function and the shapes of its arguments -> the primitives of its graph, in the order in which MLX runs them.

1  mx.export_function calls the function with placeholders and reports every primitive, nothing being computed
2  marked nodes become what they stand for (instrument.py)
3  a compiled function is traced on its own and falls into kernels (fusion.py)
4  what is asked for is followed back to what is given: primitives that lead nowhere never run

MLX's trace keeps one of several equal primitives; `runs` knows what a run has.
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
    """The graph of function(*arguments); of the arguments only shapes and dtypes count. Raises CountError."""
    with record(gpu=gpu) as recording:
        graph = _export(function, arguments)
    return _expand(graph, recording)


def between(graph: Graph, wanted: Iterable[Ref], given: Iterable[Ref] = ()) -> list[Node]:
    """The nodes that compute `wanted` from `given` and from what needs no computing, in order."""
    needed = {ref.name for ref in wanted} - {ref.name for ref in given}
    known = {ref.name for ref in given}
    nodes: list[Node] = []
    for node in reversed(graph.nodes):
        if any(output.name in needed for output in node.outputs):
            nodes.append(node)
            needed |= {ref.name for ref in node.inputs} - known
    return nodes[::-1]


def runs(wanted: Sequence[mx.array], before: Sequence[mx.array], given: Sequence[mx.array]) -> list[str]:
    """The names of the primitives that a run has which makes `wanted` of what is given and has made `before`.

    From MLX's own picture of a graph that was not traced: equal primitives are all there. Views are left out.
    """
    text = io.StringIO()
    # What is given may have been made too: one array that depends on all of it stands for its making.
    gate = mx.depends([mx.zeros((1,))], list(given))
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
    """Every primitive of a graph in DOT: its name, the arrays that go in, those that come out.

    Calls of one compiled function share their primitives, and with them their places in the picture: only the order of
    the lines tells them apart.
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
    """The primitives by which the ends are made."""
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
        mx.export_function(take, lambda *given: tuple(function(*given)), *arguments, shapeless=shapeless)
    except (ValueError, RuntimeError) as error:
        raise CountError(f"MLX cannot trace this: {error}") from error
    return graph


def _refs(arrays: Iterable[tuple[str, Sequence[int], mx.Dtype]]) -> tuple[Ref, ...]:
    return tuple(Ref(name=name, shape=tuple(shape), dtype=dtype) for name, shape, dtype in arrays)


def _expand(graph: Graph, recording: Recording) -> Graph:
    """Phases 2 and 3."""
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
    """Which call a node stands for, where it is a marked one."""
    place = len(node.outputs)
    if node.kind != "Depends" or len(node.inputs) <= place:
        return None
    tag = constants.get(node.inputs[place].name)
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
    """The nodes of a call's graph, with the names of the arrays outside."""
    names = {inside.name: outside for inside, outside in zip(inner.inputs, node.inputs, strict=True)}
    aliases: list[Node] = []
    for inside, outside in zip(inner.outputs, node.outputs, strict=True):
        if inside.name in names:
            # The same array goes out twice, or one that came in goes out as it is.
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
    """Raise CountError where MLX makes other kernels of a compiled function than `fuse` does."""
    theirs = runs(compiled(*arguments), [], arguments)
    ours = [node.kind + "".join(member.kind for member in node.members) for node in kernels if node.kind not in VIEWS]
    # A reshape copies or not; a trace spells Sum as Reduce, LeftShift as BitwiseBinary: only numbers are compared.
    if [len(theirs), len(_fused(theirs))] != [len(ours), len(_fused(ours))]:
        raise CountError(f"mx.compile makes {', '.join(theirs)} of a function, the count {', '.join(ours)}")


def _fused(names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith("Compiled")]
