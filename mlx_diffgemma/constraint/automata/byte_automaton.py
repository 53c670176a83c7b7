"""A deterministic automaton over bytes: all texts that an expression matches from beginning to end.

Bytes that do the same in every state are one class, so the table of states has a column per class instead of 256.
"""

from __future__ import annotations

import gc
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from mlx_diffgemma.constraint.automata.adjacency import Flags, Numbers, random_hashes
from mlx_diffgemma.constraint.automata.graph import MAX_SIZE, MAX_WORK, ByteGraph, Edge, Subset, TooLargeError
from mlx_diffgemma.constraint.automata.minimal import merged, trimmed
from mlx_diffgemma.constraint.automata.nondeterministic import Compiler
from mlx_diffgemma.constraint.automata.words import words_automaton
from mlx_diffgemma.constraint.expression import (
    Difference,
    Expression,
    Intersection,
    Words,
    largest_repetition,
)
from mlx_diffgemma.errors import ConstraintError

_MANY_WORDS = 2000
"""Lists of more texts are compiled on arrays, which is faster."""
_MAX_MERGED = 5000
"""States are not merged in a larger automaton: that takes a pass over it for every byte of its longest text."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ByteAutomaton:
    """A deterministic automaton with the states 0 to S - 1 and C classes of bytes; it starts in state 0."""

    steps: Numbers
    """[S, C] the state after a byte of a class; S if it cannot be read"""
    accepting: Flags
    """[S] whether a text may end in the state"""
    class_of_byte: Numbers
    """[256]"""

    def after(self, state: int, data: bytes) -> int:
        """Return the state after bytes are read in a state; S if they cannot be read."""
        for byte in data:
            if state == len(self.steps):
                break
            state = int(self.steps[state, self.class_of_byte[byte]])
        return state

    def nonempty(self) -> ByteAutomaton:
        """Return an automaton of the same texts but the empty one. Raises ConstraintError if no text is left."""
        if not self.accepting[0]:
            return self
        size = len(self.steps)
        if (self.steps[0] == size).all():
            raise ConstraintError("only the empty text matches, and the answer may not be empty: see allow_empty")
        # The new first state has the transitions of the old one, and does not accept.
        steps = np.where(self.steps == size, size + 1, self.steps + 1).astype(np.int32)
        accepting = np.concatenate([[False], self.accepting])
        return replace(self, steps=np.concatenate([steps[:1], steps]), accepting=accepting)

    def with_prefix(self, prefix: bytes) -> ByteAutomaton:
        """Return an automaton of the same texts, each with `prefix` before it."""
        steps, accepting, class_of_byte = self.steps, self.accepting, self.class_of_byte.copy()
        for byte in set(prefix):
            # The byte may be of a class with others, and is to be one of its own.
            steps = np.concatenate([steps, steps[:, class_of_byte[byte], None]], axis=1)
            class_of_byte[byte] = steps.shape[1] - 1
        for byte in reversed(prefix):
            size = len(steps)
            first = np.full((1, steps.shape[1]), size + 1, np.int32)
            first[0, class_of_byte[byte]] = 1
            steps = np.concatenate([first, np.where(steps == size, size + 1, steps + 1).astype(np.int32)])
            accepting = np.concatenate([[False], accepting])
        return replace(self, steps=steps, accepting=accepting, class_of_byte=class_of_byte)

    def accepts(self, text: str) -> bool:
        """Return whether the automaton accepts a text."""
        state = self.after(0, text.encode())
        return state < len(self.steps) and bool(self.accepting[state])


def compiled(expression: Expression, *, allow_empty: bool = True, prefix: str = "") -> ByteAutomaton:
    """Return the automaton of all texts that an expression matches, but the empty one if it is not allowed.

    prefix: a text before each of them. Raises ConstraintError if there is no such text, and if the automaton would be
    too large.
    """
    try:
        automaton = _compiled(expression)
    except TooLargeError:
        raise _too_large(expression) from None
    except RecursionError:
        raise ConstraintError("the constraint is nested too deeply: give one with fewer levels") from None
    if not allow_empty:
        automaton = automaton.nonempty()
    return automaton.with_prefix(prefix.encode())


def is_buildable(expression: Expression) -> bool:
    """Return whether the automaton of an expression is not too large; it is kept, so `compiled` is quick then.

    Raises ConstraintError if no text matches.
    """
    try:
        return bool(len(_compiled(expression).steps))
    except TooLargeError:
        return False


@contextmanager
def _without_garbage_collection() -> Generator[None]:
    """Let no collection look again and again at the states of a graph, which are all in use: that took a quarter."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_without_garbage_collection()
def _compiled(expression: Expression) -> ByteAutomaton:
    if expression.size > MAX_SIZE and not _is_long_list(expression):
        raise TooLargeError
    automaton = part_automaton(expression)
    if not len(automaton.steps):
        raise ConstraintError("no text at all matches: a part of it cannot match anything")
    return automaton


def _is_long_list(expression: Expression) -> bool:
    return isinstance(expression, Words) and len(expression.texts) > _MANY_WORDS


def are_disjoint(one: Expression, other: Expression) -> bool:
    """Return whether no text matches both expressions; False if that cannot be found out."""
    try:
        return not _product(Intersection(one, other)).accepting.any()
    except TooLargeError:
        return False


def _too_large(expression: Expression) -> ConstraintError:
    part = largest_repetition(expression)
    where = f"{part} makes the constraint too large" if part else "the constraint is too large"
    return ConstraintError(f"{where}: allow shorter texts, or fewer repetitions and alternatives")


def _determinized(graph: ByteGraph, start: Subset) -> ByteAutomaton:
    """Return the automaton whose states are the subsets of the graph's states that some text leads to."""
    numbers = {start: 0}
    subsets = [start]
    moves: list[tuple[int, int, int, int]] = []
    for number, subset in enumerate(subsets):
        for first, last, target in graph.moves(subset):
            found = numbers.get(target)
            if found is None:
                found = numbers[target] = len(subsets)
                subsets.append(target)
            moves.append((number, first, last, found))
    sources, firsts, lasts, targets = np.array(moves, np.int64).reshape(-1, 4).T
    cuts = np.unique(np.concatenate([firsts, lasts + 1, [0, 256]]))
    class_of_byte = np.searchsorted(cuts, np.arange(256), side="right").astype(np.int32) - 1
    begins, ends = np.searchsorted(cuts, firsts), np.searchsorted(cuts, lasts + 1)
    steps = np.full((len(subsets), len(cuts) - 1), len(subsets), np.int32)
    counts = ends - begins
    columns = np.repeat(begins - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
    steps[np.repeat(sources, counts), columns] = np.repeat(targets, counts)
    accepting = np.array([ByteGraph.END in subset for subset in subsets])
    return _reduced(steps, accepting, class_of_byte)


def _reduced(steps: Numbers, accepting: Flags, class_of_byte: Numbers) -> ByteAutomaton:
    """Return the automaton with the fewest classes of bytes, and, unless it is large, with the fewest states."""
    steps, accepting = trimmed(steps, accepting)
    if len(steps) <= _MAX_MERGED:
        steps, accepting = merged(steps, accepting)
    columns = (random_hashes(len(steps), seed=0)[:, None] * steps.astype(np.uint64)).sum(axis=0, dtype=np.uint64)
    _, first, class_of_class = np.unique(columns, return_index=True, return_inverse=True)
    return ByteAutomaton(
        steps=np.ascontiguousarray(steps[:, first]),
        accepting=accepting,
        class_of_byte=class_of_class[class_of_byte].astype(np.int32),
    )


@lru_cache(maxsize=256)
def part_automaton(expression: Expression) -> ByteAutomaton:
    """Return the automaton of an expression, which may be a part of others; it may accept no text.

    Raises TooLargeError.
    """
    if isinstance(expression, Intersection | Difference):
        return _product(expression)
    if isinstance(expression, Words) and _is_long_list(expression):
        steps, accepting, class_of_byte = words_automaton([text.encode() for text in expression.texts])
        return ByteAutomaton(steps=steps, accepting=accepting, class_of_byte=class_of_byte)
    graph = ByteGraph()
    start = Compiler(graph, _product_rows).state_before(expression, ByteGraph.END)
    return _determinized(graph, graph.closure(start))


@lru_cache(maxsize=256)
def _product(product: Intersection | Difference) -> ByteAutomaton:
    """Return the automaton of an intersection or a difference: its states are pairs of states of the two sides."""
    one, other = part_automaton(product.one), part_automaton(product.other)
    dead, other_dead = len(one.steps), len(other.steps)
    pairs_of_classes, class_of_byte = np.unique(
        np.stack([one.class_of_byte, other.class_of_byte]), axis=1, return_inverse=True
    )
    # The states that cannot be left are rows of their own.
    steps = np.pad(one.steps, ((0, 1), (0, 0)), constant_values=dead)[:, pairs_of_classes[0]]
    other_steps = np.pad(other.steps, ((0, 1), (0, 0)), constant_values=other_dead)[:, pairs_of_classes[1]]
    is_wanted = np.append(other.accepting, False)
    if isinstance(product, Difference):
        is_wanted = ~is_wanted
    width = other_dead + 1
    found = front = np.array([0])
    while front.size:
        after = np.unique(steps[front // width].astype(np.int64) * width + other_steps[front % width])
        front = np.setdiff1d(after[after // width != dead], found, assume_unique=True)
        found = np.union1d(found, front)
        if found.size * steps.shape[1] > MAX_WORK:
            raise TooLargeError
    targets = steps[found // width].astype(np.int64) * width + other_steps[found % width]
    numbers = np.searchsorted(found, targets)
    numbers[targets // width == dead] = len(found)
    accepting = np.append(one.accepting, False)[found // width] & is_wanted[found % width]
    return _reduced(numbers.astype(np.int32), accepting, class_of_byte.reshape(-1).astype(np.int32))


def _product_rows(product: Intersection | Difference) -> list[tuple[list[Edge], bool]]:
    """Return the transitions of a product's states, and whether each accepts; one state without any if it is empty."""
    automaton = _product(product)
    size = len(automaton.steps)
    if not size:
        return [([], False)]
    rows = automaton.steps[:, automaton.class_of_byte]
    # Neighbouring bytes with the same target are one transition.
    begins = np.ones((size, 256), np.bool_)
    begins[:, 1:] = rows[:, 1:] != rows[:, :-1]
    sources, firsts = np.nonzero(begins)
    lasts = np.append(firsts[1:] - 1, 255)
    lasts[lasts < 0] = 255
    edges: list[list[Edge]] = [[] for _ in range(size)]
    for source, first, last, target in np.stack([sources, firsts, lasts, rows[sources, firsts]], axis=1).tolist():
        if target < size:
            edges[source].append((first, last, target))
    return list(zip(edges, automaton.accepting.tolist(), strict=True))
