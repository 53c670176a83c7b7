"""Assign primitives to parts of the model: the part of the parameter that is read, or else the part of the inputs.

signal: the soft embedding. conditioning: the block that mixes it in. experts: with the router. head: with the
temperature. sampling: everything after the head, which `programs` assigns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from counting.nodes import Node

PATTERNS = {
    "conditioning": r"self_conditioning\.",
    "attention": r"\.self_attn\.",
    "mlp": r"\.mlp\.",
    "experts": r"\.(?:router|experts)\.",
    "norms": r"norm|layer_scalar",
    "embedding": r"embed_tokens\.",
}
"""Part -> pattern in the names of its parameters; the first match counts."""
EMBEDDING, HEAD, SAMPLING, SIGNAL = "embedding", "head", "sampling", "signal"
PARTS = (EMBEDDING, SIGNAL, "conditioning", "attention", "mlp", "experts", "norms", HEAD, SAMPLING)
OVER_VOCABULARY = (SIGNAL, HEAD, SAMPLING)
GATHERS = frozenset({"Gather", "GatherAxis"})


def part_of(parameter: str) -> str:
    """Return the part of the parameter with this name."""
    return next((part for part, pattern in PATTERNS.items() if re.search(pattern, parameter)), "norms")


def layer_parts(nodes: Sequence[Node], parameters: Mapping[str, str], starts: Mapping[str, str]) -> list[str]:
    """Return the part of every node that leads to the logits, in order.

    parameters: name in the graph -> name of the parameter, also for views of parameters. starts: the parts of other
    arrays that exist before.
    """
    fixed = {name: part_of(parameter) for name, parameter in parameters.items()}
    # Array -> (its part, the index of the node that made it).
    made = {name: (part, -1) for name, part in starts.items()}
    found: list[str | None] = []
    for index, node in enumerate(nodes):
        reads = [fixed[ref.name] for ref in node.inputs if ref.name in fixed]
        origins = [made[ref.name] for ref in node.inputs if ref.name in made]
        latest = max(origins, key=lambda origin: origin[1])[0] if origins else None
        part = reads[0] if reads else latest
        if part == EMBEDDING and reads:
            part = _of_table(node, latest)
        found.append(part)
        made |= {ref.name: (part, index) for ref in node.outputs if part is not None}
    return _filled(nodes, found)


def _of_table(node: Node, latest: str | None) -> str:
    """Return the part of a node that reads the embedding table: the embedding, the soft embedding, or the head."""
    if latest in (None, EMBEDDING, SIGNAL):
        return latest or EMBEDDING
    return EMBEDDING if node.kind in GATHERS else HEAD


def _filled(nodes: Sequence[Node], found: Sequence[str | None]) -> list[str]:
    """Give a node without inputs, such as a mask, the part of the node that uses it."""
    used: dict[str, str] = {}
    parts: list[str] = []
    for node, part in zip(reversed(nodes), reversed(found), strict=True):
        own = part or next((used[ref.name] for ref in node.outputs if ref.name in used), EMBEDDING)
        parts.append(own)
        used |= {ref.name: own for ref in node.inputs}
    return parts[::-1]
