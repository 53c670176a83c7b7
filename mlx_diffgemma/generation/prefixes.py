"""A store of prefixes: the caches of prompts that were read, found by their tokens, within a number of bytes.

Sliding layers keep only the last tokens of a prefix, so a cache cannot be cut back to an earlier token. It is kept
whole, at the ends of messages, and a prompt goes on from the longest one that it begins with.

The store is a trie: a node's edge is a run of tokens, and nodes at which a cache is kept hold it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mlx_diffgemma.errors import OptionError
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.prefix import common_length

DEFAULT_BYTES = 2**30
"""At full size a cache takes 0.2 GB for the sliding layers, and 20 KB a token for the others."""


@dataclass(eq=False)
class _Node:
    """The tokens on the edge to this node, what goes on after them, and the cache that is kept here."""

    edge: tuple[int, ...] = ()
    children: dict[int, _Node] = field(default_factory=dict["int", "_Node"])
    """by the first token of their edges"""
    cache: Cache | None = None
    is_system: bool = False
    used: int = 0
    """when it was found or kept last; higher is later"""


class Prefixes:
    """Kept prefixes of one model. The least recently used is dropped first, and system prompts last of all."""

    def __init__(self, max_bytes: int = DEFAULT_BYTES) -> None:
        """max_bytes: what all caches may take together. Raises OptionError for less than 0."""
        if max_bytes < 0:
            raise OptionError(f"max_bytes={max_bytes} must be at least 0")
        self.max_bytes = max_bytes
        self._root = _Node()
        self._clock = 0

    def __len__(self) -> int:
        """Return the number of caches that are kept."""
        return sum(1 for _ in self._kept())

    @property
    def nbytes(self) -> int:
        """Size of all caches in bytes."""
        return sum(node.cache.nbytes for node in self._kept() if node.cache is not None)

    def find(self, tokens: Sequence[int]) -> Cache | None:
        """Return the cache of the most leading tokens that are kept."""
        found = None
        for node, _ in self._path(tuple(tokens)):
            if node.cache is not None:
                found = node
        if found is None:
            return None
        self._touch(found)
        return found.cache

    def keep(self, tokens: Sequence[int], cache: Cache, *, is_system: bool = False) -> None:
        """Keep the cache of these tokens, and drop others if all together are too large."""
        node = self._node_at(tuple(tokens))
        node.cache, node.is_system = cache, node.is_system or is_system
        self._touch(node)
        while self.nbytes > self.max_bytes:
            oldest = min(self._kept(), key=lambda each: (each.is_system, each.used))
            oldest.cache = None
            self._prune()

    def clear(self) -> None:
        """Drop everything."""
        self._root = _Node()

    def _touch(self, node: _Node) -> None:
        self._clock += 1
        node.used = self._clock

    def _path(self, tokens: tuple[int, ...]) -> Iterator[tuple[_Node, int]]:
        """Yield the nodes that `tokens` begin with, each with the number of tokens up to it."""
        node, length = self._root, 0
        while length < len(tokens) and (child := node.children.get(tokens[length])) is not None:
            if tokens[length : length + len(child.edge)] != child.edge:
                return
            node, length = child, length + len(child.edge)
            yield node, length

    def _node_at(self, tokens: tuple[int, ...]) -> _Node:
        """Return the node of these tokens; it is made if it is missing, and an edge that goes past it is split."""
        node, length = self._root, 0
        for inner, reached in self._path(tokens):
            node, length = inner, reached
        rest = tokens[length:]
        if not rest:
            return node
        child = node.children.get(rest[0])
        if child is None:
            node.children[rest[0]] = made = _Node(rest)
            return made
        common = common_length(child.edge, rest)
        middle = _Node(rest[:common], {child.edge[common]: child})
        child.edge = child.edge[common:]
        node.children[rest[0]] = middle
        return middle if common == len(rest) else self._node_at(tokens)

    def _kept(self) -> Iterator[_Node]:
        nodes = [self._root]
        while nodes:
            node = nodes.pop()
            nodes += node.children.values()
            if node.cache is not None:
                yield node

    def _prune(self) -> None:
        """Remove the nodes at which and after which nothing is kept."""
        order = [self._root]
        for node in order:
            order += node.children.values()
        for node in reversed(order):
            node.children = {first: child for first, child in node.children.items() if child.cache or child.children}
