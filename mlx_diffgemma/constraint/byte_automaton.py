"""A regular expression as an automaton over bytes.

outlines-core compiles the expression. Its index over a vocabulary of tokens holds the state after each token, for every
state; over a vocabulary of the 256 single bytes, that index is an automaton over bytes.

Two things are done about its result.

It finds leftmost-first matches: `a|ab` stops at "a" and never matches "ab" as a whole. So the pattern is compiled with
an end marker after it, a character that no text contains. To reach the marker the automaton has to try every way to
match, and the states that can read the marker are those in which a text may end.

It also has more states than are needed. States from which no text can be completed are dropped, and states that accept
the same continuations are merged, because every later cost grows with the number of states.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from mlx_diffgemma.constraint.regex import full_match_pattern, shortened
from mlx_diffgemma.errors import ConstraintError

Numbers: TypeAlias = npt.NDArray[np.int32]
Flags: TypeAlias = npt.NDArray[np.bool_]

_END_MARKER = "\U0010ffff"
"""A noncharacter: Unicode reserves it for uses like this one."""
_MAX_MERGED = 5000
"""States are not merged in a larger automaton: merging takes as many passes over the states as texts have bytes."""
_END_TOKEN = 256
"""The end token of the vocabulary of bytes: the first id after all bytes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ByteAutomaton:
    """A deterministic automaton with the states 0 to S - 1; it starts in state 0."""

    steps: Numbers
    """[S, 256] the state after a byte; S if the byte cannot be read"""
    accepting: Flags
    """[S] whether a text may end in the state"""

    def nonempty(self) -> ByteAutomaton:
        """Return an automaton of the same texts but the empty one. Raises ConstraintError if no text is left."""
        if not self.accepting[0]:
            return self
        size = len(self.steps)
        # The new first state has the transitions of the old one, and does not accept.
        moved = np.where(self.steps == size, size + 1, self.steps + 1).astype(np.int32)
        steps = np.concatenate([moved[:1], moved])
        if (steps[0] == size + 1).all():
            raise ConstraintError("only the empty text matches, and the answer may not be empty: see allow_empty")
        return ByteAutomaton(steps=steps, accepting=np.concatenate([[False], self.accepting]))

    def with_prefix(self, prefix: bytes) -> ByteAutomaton:
        """Return an automaton of the same texts, each with `prefix` before it."""
        steps, accepting = self.steps, self.accepting
        for byte in reversed(prefix):
            # A new first state, from which this byte leads to the old first state.
            size = len(steps)
            first = np.full((1, 256), size + 1, np.int32)
            first[0, byte] = 1
            steps = np.concatenate([first, np.where(steps == size, size + 1, steps + 1).astype(np.int32)])
            accepting = np.concatenate([[False], accepting])
        return ByteAutomaton(steps=steps, accepting=accepting)


@lru_cache(maxsize=8)
def compiled(regex: str) -> ByteAutomaton:
    """Return the automaton of all texts that `regex` matches from beginning to end.

    Raises ConstraintError for a pattern with a mistake, and for one that matches no text.
    """
    pattern = full_match_pattern(regex)
    # Alone first: an error is about the user's pattern then, not about one with a marker.
    _index(pattern, regex)
    start, transitions = _index(f"(?:{pattern}){_END_MARKER}", regex)
    steps, accepting = _before_end_marker(start, transitions)
    steps, accepting = _trimmed(steps, accepting, regex)
    if len(steps) <= _MAX_MERGED:
        steps, accepting = _merged(steps, accepting)
    return ByteAutomaton(steps=steps, accepting=accepting)


def _index(pattern: str, regex: str) -> tuple[int, dict[int, dict[int, int]]]:
    """Return outlines-core's first state, and for each state the states after each byte."""
    # Imported here: only a constraint needs the library.
    from outlines_core import Index, Vocabulary

    vocabulary = Vocabulary(_END_TOKEN, {bytes([byte]): [byte] for byte in range(256)})
    try:
        index = Index(pattern, vocabulary)
    except ValueError as error:
        raise ConstraintError(f"regex {shortened(regex)} cannot be used: {_reason(regex, str(error))}") from None
    transitions = cast("dict[int, dict[int, int]]", index.get_transitions())
    return index.get_initial_state(), transitions


def _reason(regex: str, message: str) -> str:
    """Return what is wrong with a pattern. The library's message does not say where; Python's own parser does."""
    if "incompatible" in message:
        return "a part of it cannot match anything"
    try:
        re.compile(regex)
    except re.error as error:
        return str(error)
    return "look-around, back-references and word boundaries are not supported"


def _before_end_marker(start: int, transitions: dict[int, dict[int, int]]) -> tuple[Numbers, Flags]:
    """Return steps [S + 1, 256] and accepting [S + 1] of the texts before the end marker.

    The last state, S, is the one that cannot be left. A state accepts if the bytes of the marker, read one after
    another, lead from it to a state in which the pattern with the marker has matched.
    """
    names = [start, *(state for state in transitions if state != start)]
    numbers = {name: number for number, name in enumerate(names)}
    dead = len(names)
    steps = np.full((dead + 1, 256), dead, np.int32)
    for name, targets in transitions.items():
        for byte, target in targets.items():
            if byte < _END_TOKEN:
                steps[numbers[name], byte] = numbers.get(target, dead)
    reached = np.arange(dead + 1)
    for byte in _END_MARKER.encode():
        reached = steps[reached, byte]
    # Where a pattern has matched, outlines-core allows its end token.
    has_matched = np.array([_END_TOKEN in transitions[name] for name in names] + [False])
    accepting = has_matched[reached]
    accepting[dead] = False
    return steps, accepting


def _trimmed(steps: Numbers, accepting: Flags, regex: str) -> tuple[Numbers, Flags]:
    """Drop the states that no text reaches, and those from which no text can be completed.

    steps [S + 1, 256] with the dead state as a row of its own -> [S', 256] without it.
    """
    dead = len(steps) - 1
    useful = accepting.copy()
    while True:
        more = useful | useful[steps].any(axis=1)
        if (more == useful).all():
            break
        useful = more
    reached = np.zeros(dead + 1, np.bool_)
    front = np.array([0])
    while front.size:
        reached[front] = True
        targets = np.unique(steps[front])
        front = targets[~reached[targets] & useful[targets]]
    kept = np.flatnonzero(reached & useful)
    if not useful[0]:
        raise ConstraintError(f"regex {shortened(regex)} matches no text at all")
    numbers = np.full(dead + 1, len(kept), np.int32)
    numbers[kept] = np.arange(len(kept))
    return numbers[steps[kept]], accepting[kept]


def _merged(steps: Numbers, accepting: Flags) -> tuple[Numbers, Flags]:
    """Merge the states that accept the same continuations; steps [S, 256].

    Moore's partition refinement. A label per state says which states are still taken for equal. At first it says
    whether the state accepts. In each round, states of one label get different labels if some byte leads them to
    different labels; a round that makes no new label is the last. Rows of labels are compared by a 64-bit sum of
    random numbers, one per label and byte, instead of byte by byte.
    """
    random = np.random.default_rng(0)
    # Bytes that do the same in every state need to be looked at once.
    columns = np.unique(steps, axis=1)
    weights = random.integers(2**63, size=columns.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    values = random.integers(2**63, size=len(steps) + 1, dtype=np.uint64)
    labels, count = accepting.astype(np.int64), 0
    while True:
        # The dead state has a label of its own, the number of states.
        target_values = values[np.append(labels, len(steps))[columns]]
        sums = (target_values * weights).sum(axis=1, dtype=np.uint64) + values[labels]
        _, first, labels = np.unique(sums, return_index=True, return_inverse=True)
        if len(first) == count:
            break
        count = len(first)
    # Merged states are numbered in the order of their first member, so that state 0 remains the start.
    order = np.argsort(first, kind="stable")
    numbers = np.empty(count + 1, np.int32)
    numbers[order] = np.arange(count)
    numbers[count] = count
    target_labels = np.append(labels, count)[steps[first[order]]]
    return numbers[target_labels], accepting[first[order]]
