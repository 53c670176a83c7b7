"""A nondeterministic automaton over bytes while it is built, and its states taken together to a deterministic one.

A text may be read in several ways at once: in `.{1,20}: .{1,20}` every ": " may be the one between the two parts, and
what follows it may go on for a number of characters that depends on where it was. The states of a deterministic
automaton are sets of states of the graph, and there would be a set for every combination. But where up to 19 characters
may follow, up to 7 may follow too. So the copies of a body that may be left out are ranked, and of the same state of
several copies a set keeps only the one of the highest rank: it accepts whatever the others do.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import TypeAlias

MAX_SIZE = 150_000
"""Transitions of the largest automaton that is built."""
MAX_WORK = 4 * MAX_SIZE
"""Transitions that are looked at while an automaton is built."""
Edge: TypeAlias = tuple[int, int, int]
"""A transition: any byte from the first to the second number leads to a state. A plain tuple: there are very many."""
Subset: TypeAlias = frozenset[int]
"""States of the graph that are one state of the deterministic automaton."""


class TooLargeError(Exception):
    """An automaton needs more transitions than are allowed."""


class ByteGraph:
    """States with transitions over bytes, and with transitions that read nothing; state 0 is where a text ends.

    States with the same transitions are one state. Raises TooLargeError when there are too many transitions.
    """

    END = 0

    def __init__(self) -> None:
        self._edges: list[tuple[Edge, ...]] = [()]
        self._free: list[tuple[int, ...]] = [()]
        """for each state the states that are reached without reading a byte"""
        self._states: dict[tuple[object, ...], int] = {}
        self._closures: dict[int, Subset] = {}
        self._ranks: dict[int, tuple[tuple[int, int, int], int]] = {}
        """for a state in one of several copies: what is the same in all of them, and the rank of its copy"""
        self._chains = 0
        self._work = 0

    def state(self, edges: tuple[Edge, ...]) -> int:
        """Return the state with these transitions, in ascending order."""
        found = self._states.get(edges)
        if found is None:
            found = self._states[edges] = self._new(edges, ())
        return found

    def union(self, states: Iterable[int]) -> int:
        """Return a state that has the transitions of all the states; of none, a state that nothing leaves."""
        joined = tuple(sorted(set(states)))
        if len(joined) == 1:
            return joined[0]
        found = self._states.get((None, *joined))
        if found is None:
            found = self._states[None, *joined] = self._new((), joined)
        return found

    def open(self) -> int:
        """Return a new state, whose transitions are given later to `close`."""
        return self._new((), ())

    def close(self, state: int, edges: Iterable[Edge] = (), states: Iterable[int] = ()) -> None:
        """Give an open state its transitions, and those of other states."""
        self._edges[state], self._free[state] = tuple(edges), tuple(states)
        self.work(len(self._edges[state]) + len(self._free[state]))

    def chain(self) -> int:
        """Return a number for copies of the same body, of which each may be followed by those of lower rank."""
        self._chains += 1
        return self._chains

    @contextmanager
    def copies(self, chain: int, rank: int) -> Generator[None]:
        """Rank the states that are made meanwhile: a higher rank accepts what a lower one does, and more."""
        begin = len(self._edges)
        yield
        count = len(self._edges) - begin
        for number in range(count):
            self._ranks.setdefault(begin + number, ((chain, count, number), rank))

    def work(self, amount: int) -> None:
        """Count what was done. Raises TooLargeError when it is too much."""
        self._work += amount
        if self._work > MAX_WORK:
            raise TooLargeError

    def _new(self, edges: tuple[Edge, ...], free: tuple[int, ...]) -> int:
        self._edges.append(edges)
        self._free.append(free)
        self.work(1 + len(edges) + len(free))
        return len(self._edges) - 1

    def closure(self, state: int) -> Subset:
        """Return the states that are reached from a state without reading a byte, and that read one or are the end."""
        found = self._closures.get(state)
        if found is None:
            seen, waiting = {state}, [state]
            while waiting:
                for further in self._free[waiting.pop()]:
                    if further not in seen:
                        seen.add(further)
                        waiting.append(further)
            self.work(len(seen))
            found = self._without_lower_ranks({each for each in seen if self._edges[each] or each == self.END})
            self._closures[state] = found
        return found

    def moves(self, subset: Subset) -> list[tuple[int, int, Subset]]:
        """Return ranges of bytes, ascending and disjoint, and the subset that each leads to."""
        edges = [edge for state in subset for edge in self._edges[state]]
        if len(subset) > 1:
            edges.sort()
        self.work(len(edges))
        last_read = -1
        for edge in edges:
            if edge[0] <= last_read:
                break
            last_read = edge[1]
        else:
            return [(first, last, self.closure(target)) for first, last, target in edges]
        return [(first, last, self._joined(targets)) for first, last, targets in _overlaid(edges)]

    def _joined(self, targets: Sequence[int]) -> Subset:
        if len(targets) == 1:
            return self.closure(targets[0])
        closures = [self.closure(target) for target in targets]
        self.work(sum(map(len, closures)))
        return self._without_lower_ranks(set().union(*closures))

    def _without_lower_ranks(self, states: set[int]) -> Subset:
        """Drop the states that accept nothing but what another one accepts."""
        ranks = self._ranks
        ranked = [state for state in states if state in ranks]
        if len(ranked) < 2:
            return frozenset(states)
        best: dict[tuple[int, int, int], tuple[int, int]] = {}
        for state in ranked:
            place, rank = ranks[state]
            best[place] = max(best.get(place, (rank, state)), (rank, state))
        kept = {state for _, state in best.values()}
        return frozenset(state for state in states if state in kept or state not in ranks)


def _overlaid(edges: Sequence[Edge]) -> Iterator[tuple[int, int, Sequence[int]]]:
    """Cut ranges that overlap into ranges that do not; each has all targets that its bytes lead to."""
    cuts = sorted({cut for first, last, _ in edges for cut in (first, last + 1)})
    places = {cut: place for place, cut in enumerate(cuts)}
    targets: list[list[int]] = [[] for _ in cuts]
    for first, last, target in edges:
        for place in range(places[first], places[last + 1]):
            targets[place].append(target)
    for (first, after), found in zip(pairwise(cuts), targets, strict=False):
        if found:
            yield first, after - 1, found
