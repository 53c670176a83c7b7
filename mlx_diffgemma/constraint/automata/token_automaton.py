"""A constraint as an automaton over token ids.

The tokens of a model's vocabulary are taken together to classes, because most of them can be read in the same states
with the same result: a schema of twenty fields divides 262,144 tokens into some hundreds of classes. Classes are taken
together to symbols: all classes that lead from one state to another are the symbol of that one transition. Most strings
of a schema, for example, have the same symbol for "any text that leaves the string open".

    token --class_of--> class,   (symbol that has the class, source state) -> target state
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mlx_diffgemma.constraint.automata.adjacency import Adjacency, Flags, Numbers

NOWHERE = -1
"""The class of a token that no state can read, and the state after a token that cannot be read."""
_UNREACHABLE = np.iinfo(np.int32).max
"""The distance of a state from which no text can be completed."""
_MEMBERS_PER_CLASS = 4
"""How many tokens of each class the search considers at every position, even if the model finds them unlikely."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenAutomaton:
    """A deterministic automaton over V token ids, with states 0 to S - 1, classes 0 to F - 1 and E transitions.

    It starts in state 0. The transitions are three columns of equal length, sorted by target.
    """

    class_of: Numbers
    """[V] the class of every token, NOWHERE for a token that no state can read"""
    accepting: Flags
    """[S] whether a text may end in the state"""
    symbol_classes: Numbers
    """the classes of every symbol, symbol after symbol"""
    symbol_starts: Numbers
    """[Y + 1] where the classes of each symbol begin"""
    symbols: Numbers
    """[E] the symbol of which a token is read"""
    sources: Numbers
    """[E] the state before it"""
    targets: Numbers
    """[E] the state after it, ascending"""
    stops: tuple[int, ...]
    """the tokens that end a text where it may end; they are in no class"""

    @property
    def states(self) -> int:
        """The number of states, S."""
        return len(self.accepting)

    @cached_property
    def class_count(self) -> int:
        """The number of classes, F."""
        return int(self.class_of.max(initial=NOWHERE)) + 1

    @cached_property
    def arrivals(self) -> tuple[Numbers, Numbers]:
        """The states that some transition leads to, ascending, and where the transitions into each of them begin."""
        states, starts = np.unique(self.targets, return_index=True)
        return states, starts.astype(np.int32)

    @cached_property
    def _edges(self) -> Adjacency:
        return Adjacency(self.sources, self.targets, self.states)

    @cached_property
    def distance(self) -> Numbers:
        """[S] the smallest number of tokens from each state to one in which a text may end."""
        distance = self._edges.reversed().distances(np.flatnonzero(self.accepting))
        return np.where(distance < 0, _UNREACHABLE, distance).astype(np.int32)

    def finishing(self, minimum: int, maximum: int) -> Flags:
        """[S] whether a text in each state can be completed with `minimum` to `maximum` more tokens."""
        if minimum <= 0:
            return self.distance <= maximum
        completions = self._completions()
        by_count = [next(completions) for _ in range(maximum + 1)]
        return np.logical_or.reduce(by_count[minimum:])

    def lengths(self, state: int, minimum: int, maximum: int) -> list[int]:
        """Return the numbers of tokens, from `minimum` to `maximum`, with which a text in `state` can be completed."""
        completions = self._completions()
        return [count for count in range(maximum + 1) if next(completions)[state] and count >= minimum]

    def _completions(self) -> Iterator[Flags]:
        """Yield [S] whether a text in each state can be completed with exactly 0, 1, 2, ... more tokens."""
        completes = self.accepting
        while True:
            yield completes
            earlier = np.zeros_like(completes)
            earlier[self.sources[completes[self.targets]]] = True
            completes = earlier

    @cached_property
    def members(self) -> tuple[Numbers, Numbers]:
        """Some tokens of every class: [M] ids, class after class, and [F] where those of each class begin."""
        order = np.argsort(self.class_of, kind="stable").astype(np.int32)
        # Tokens of no class come first.
        order = order[np.searchsorted(self.class_of[order], 0) :]
        classes = self.class_of[order]
        rank_in_class = np.arange(len(order)) - np.searchsorted(classes, classes)
        chosen = rank_in_class < _MEMBERS_PER_CLASS
        return order[chosen], np.searchsorted(classes[chosen], np.arange(self.class_count)).astype(np.int32)

    def classes_of(self, symbol: int) -> Numbers:
        """Return the classes of a symbol."""
        return self.symbol_classes[self.symbol_starts[symbol] : self.symbol_starts[symbol + 1]]

    @cached_property
    def _ways(self) -> dict[int, dict[int, int]]:
        """The state after each class of tokens, for every state that was asked for."""
        return {}

    def _after_classes(self, state: int) -> dict[int, int]:
        found = self._ways.get(state)
        if found is None:
            edges = self._edges.edges_from(np.array([state]))
            read = zip(self.symbols[edges].tolist(), self.targets[edges].tolist(), strict=True)
            found = {each: target for symbol, target in read for each in self.classes_of(symbol).tolist()}
            self._ways[state] = found
        return found

    def after(self, state: int, tokens: Iterable[int]) -> int:
        """Return the state after `tokens` are read in `state`; NOWHERE if one of them cannot be read."""
        for token in tokens:
            if state == NOWHERE:
                break
            state = self._after_classes(state).get(int(self.class_of[token]), NOWHERE)
        return state

    def allowed(self, state: int, remaining: int) -> Flags:
        """[V] whether a text in `state` can go on with each token and be completed with `remaining` tokens more."""
        classes = [each for each, after in self._after_classes(state).items() if self.distance[after] <= remaining]
        # One flag more than there are classes: the class NOWHERE, -1, reads the last one.
        is_allowed = np.zeros(self.class_count + 1, np.bool_)
        is_allowed[classes] = True
        return is_allowed[self.class_of]
