"""The edges of a directed graph as arrays: which edges leave some nodes, what is reached, and in how many steps."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

Numbers: TypeAlias = npt.NDArray[np.int32]
Flags: TypeAlias = npt.NDArray[np.bool_]
Indices: TypeAlias = npt.NDArray[np.int64]
Hashes: TypeAlias = npt.NDArray[np.uint64]

_FEW = 20


def ranges(starts: Indices, counts: Indices) -> Indices:
    """Return start, start + 1, ..., start + count - 1 for every start and count, one after another."""
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())


def grouped(keys: Indices) -> tuple[Indices, Indices, Indices]:
    """Return an order in which equal keys are neighbours, where each group begins in it, and the key of each group."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(keys)])
    return order, starts, ordered[starts]


def random_hashes(size: int, seed: int) -> Hashes:
    """Return `size` odd random numbers of 64 bits, the same for every call with this seed."""
    return np.random.default_rng(seed).integers(2**63, size=size, dtype=np.uint64) * np.uint64(2) + np.uint64(1)


@dataclass(frozen=True, eq=False)
class Adjacency:
    """E edges between the nodes 0 to `size` - 1."""

    sources: npt.NDArray[np.integer]
    """[E]"""
    targets: npt.NDArray[np.integer]
    """[E]"""
    size: int

    @cached_property
    def _by_source(self) -> tuple[Indices, Indices]:
        """The edges in the order of their sources, and where those of each node begin [size + 1]."""
        order = np.argsort(self.sources, kind="stable")
        return order, np.searchsorted(self.sources[order], np.arange(self.size + 1))

    @cached_property
    def degrees(self) -> Indices:
        """[size] the number of edges that leave each node."""
        return np.diff(self._by_source[1])

    def edges_from(self, nodes: npt.NDArray[np.integer]) -> Indices:
        """Return the edges that leave some nodes, node after node."""
        order, starts = self._by_source
        return order[ranges(starts[nodes], self.degrees[nodes])]

    def reversed(self) -> Adjacency:
        """Return the same graph with every edge turned round."""
        return Adjacency(self.targets, self.sources, self.size)

    def distances(self, starts: npt.NDArray[np.integer]) -> Numbers:
        """[size] the number of edges on the shortest way from the nearest of `starts` to each node; -1 without a way.

        All nodes of one distance are handled at once, or one by one where they are few, as they are along a chain.
        """
        distances = np.full(self.size, -1, np.int32)
        order, begins = self._by_source
        targets = self.targets[order]
        front, distance = np.unique(starts).astype(np.int64), 0
        while len(front):
            distances[front] = distance
            distance += 1
            if len(front) > _FEW:
                after = self.targets[self.edges_from(front)]
                front = np.unique(after[distances[after] < 0]).astype(np.int64)
            else:
                ends = [(begins[node], begins[node + 1]) for node in front.tolist()]
                near = {target for begin, end in ends for target in targets[begin:end].tolist()}
                front = np.array([target for target in near if distances[target] < 0], np.int64)
        return distances

    def reached(self, starts: npt.NDArray[np.integer]) -> Flags:
        """[size] whether a node can be reached from `starts`, which can be reached themselves."""
        return self.distances(starts) >= 0
