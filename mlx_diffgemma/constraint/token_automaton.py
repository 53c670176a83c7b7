"""A constraint as an automaton over token ids.

Most tokens do the same to every state: " house" and " horse" both leave a JSON string open. Tokens that lead from every
state to the same state are one *class*; of 262,144 tokens a schema of twenty fields makes some hundreds. So the
automaton is a class per token, and the transitions of each class:

    token --class_of--> class,   (class, source) -> target
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mlx_diffgemma.constraint.byte_automaton import Flags, Numbers

NOWHERE = -1
"""The class of a token that cannot be read in any state, and the state behind one that cannot be read."""
UNREACHED = np.iinfo(np.int32).max
"""The distance of a state from which nothing accepts."""
MEMBERS = 4
"""Tokens of a class that are looked at at every position, likely or not."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenAutomaton:
    """States 0 .. S-1, the first is where it starts; classes 0 .. F-1; transitions in the order of their targets."""

    class_of: Numbers
    """[V]; NOWHERE for a token that can never be read"""
    accepting: Flags
    """[S]"""
    classes: Numbers
    """[E]"""
    sources: Numbers
    """[E]"""
    targets: Numbers
    """[E], ascending"""
    stops: tuple[int, ...]
    """tokens that end the text, where it may end; they are in no class"""

    @property
    def states(self) -> int:
        """S"""
        return len(self.accepting)

    @cached_property
    def class_count(self) -> int:
        """F"""
        return int(self.class_of.max(initial=NOWHERE)) + 1

    @cached_property
    def arrivals(self) -> tuple[Numbers, Numbers]:
        """The states that transitions lead to, ascending, and where those into each begin."""
        states, starts = np.unique(self.targets, return_index=True)
        return states, starts.astype(np.int32)

    @cached_property
    def distance(self) -> Numbers:
        """[S] tokens of the shortest way to where the text may end"""
        distance = np.where(self.accepting, 0, UNREACHED).astype(np.int32)
        while True:
            ahead = distance[self.targets]
            nearer = distance.copy()
            np.minimum.at(nearer, self.sources, np.where(ahead == UNREACHED, UNREACHED, ahead + 1))
            if (nearer == distance).all():
                return distance
            distance = nearer

    def finishing(self, least: int, most: int) -> Flags:
        """[S] whether a text may end behind `least` to `most` more tokens."""
        if least <= 0:
            return self.distance <= most
        ends = self._ends()
        levels = [next(ends) for _ in range(most + 1)]
        return np.logical_or.reduce(levels[least:])

    def lengths(self, state: int, least: int, most: int) -> list[int]:
        """In how many tokens, from `least` to `most`, a text may end that is in `state` now."""
        ends = self._ends()
        return [count for count in range(most + 1) if next(ends)[state] and count >= least]

    def _ends(self) -> Iterator[Flags]:
        """[S] whether a text may end behind exactly 0, 1, 2 .. more tokens."""
        here = self.accepting
        while True:
            yield here
            before = np.zeros_like(here)
            before[self.sources[here[self.targets]]] = True
            here = before

    @cached_property
    def members(self) -> tuple[Numbers, Numbers]:
        """Some tokens of every class, and where those of each class begin: [M] ids in the order of classes, [F]."""
        order = np.argsort(self.class_of, kind="stable").astype(np.int32)
        order = order[np.searchsorted(self.class_of[order], 0) :]
        classes = self.class_of[order]
        rank = np.arange(len(order)) - np.searchsorted(classes, classes)
        chosen = rank < MEMBERS
        return order[chosen], np.searchsorted(classes[chosen], np.arange(self.class_count)).astype(np.int32)

    @cached_property
    def _followers(self) -> dict[tuple[int, int], int]:
        read = zip(self.classes.tolist(), self.sources.tolist(), strict=True)
        return dict(zip(read, self.targets.tolist(), strict=True))

    def after(self, state: int, tokens: Iterable[int]) -> int:
        """The state behind tokens that are read in `state`; NOWHERE where one of them cannot be."""
        for token in tokens:
            state = self._followers.get((int(self.class_of[token]), state), NOWHERE)
        return state

    def allowed(self, state: int, most: int) -> Flags:
        """bool [V]: the tokens behind which the text can end after at most `most` more."""
        here = self.sources == state
        classes = self.classes[here & (self.distance[self.targets] <= most)]
        # One more than there are classes: NOWHERE, from the end.
        named = np.zeros(self.class_count + 1, np.bool_)
        named[classes] = True
        return named[self.class_of]
