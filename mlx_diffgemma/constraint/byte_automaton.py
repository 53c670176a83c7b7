"""A regular expression as an automaton over bytes.

outlines-core builds it: its index over a vocabulary of the 256 single bytes is the automaton itself. Two things are
done about what it is made for. It knows leftmost-first matches, under which `a|ab` never matches "ab": so the pattern
is compiled with a closing character behind it, which no text contains, and the states that can read that one accept.
And states that differ in nothing are merged, those from which nothing accepts are dropped.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias, cast

import numpy as np
import numpy.typing as npt

from mlx_diffgemma.constraint.regex import short, whole
from mlx_diffgemma.errors import ConstraintError

Numbers: TypeAlias = npt.NDArray[np.int32]
Flags: TypeAlias = npt.NDArray[np.bool_]

CLOSING = "\U0010ffff"
"""A noncharacter: Unicode reserves it for uses like this one."""
MOST_MERGED = 5000
"""Merging takes as many rounds as texts are long: what has more states than this is left as it is."""
TOKENS = 256
"""The end token of the vocabulary of bytes, an id behind all of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ByteAutomaton:
    """States 0 .. S-1, the first is where it starts."""

    steps: Numbers
    """[S, 256] the state behind a byte, S where there is none"""
    accepting: Flags
    """[S]"""

    def nonempty(self) -> ByteAutomaton:
        """The same language without the empty text. Raises ConstraintError where that is all there is."""
        if not self.accepting[0]:
            return self
        size = len(self.steps)
        # A new first state that differs from the old one in not accepting.
        moved = np.where(self.steps == size, size + 1, self.steps + 1).astype(np.int32)
        steps = np.concatenate([moved[:1], moved])
        if (steps[0] == size + 1).all():
            raise ConstraintError("only the empty text matches, and the answer may not be empty: see allow_empty")
        return ByteAutomaton(steps=steps, accepting=np.concatenate([[False], self.accepting]))

    def behind(self, prefix: bytes) -> ByteAutomaton:
        """The texts of the language, each with `prefix` before it."""
        steps, accepting = self.steps, self.accepting
        for byte in reversed(prefix):
            size = len(steps)
            first = np.full((1, 256), size + 1, np.int32)
            first[0, byte] = 1
            steps = np.concatenate([first, np.where(steps == size, size + 1, steps + 1).astype(np.int32)])
            accepting = np.concatenate([[False], accepting])
        return ByteAutomaton(steps=steps, accepting=accepting)


@lru_cache(maxsize=8)
def compiled(regex: str) -> ByteAutomaton:
    """The automaton of all texts that `regex` matches from beginning to end. Raises ConstraintError."""
    pattern = whole(regex)
    _index(pattern, regex)
    start, transitions = _index(f"(?:{pattern}){CLOSING}", regex)
    return _numbered(start, transitions, regex)


def _index(pattern: str, regex: str) -> tuple[int, dict[int, dict[int, int]]]:
    """outlines-core's first state, and per state the states behind bytes."""
    # Here, not above: what needs no constraint does not need the library.
    from outlines_core import Index, Vocabulary

    vocabulary = Vocabulary(TOKENS, {bytes([byte]): [byte] for byte in range(256)})
    try:
        index = Index(pattern, vocabulary)
    except ValueError as error:
        raise ConstraintError(f"regex {short(regex)} cannot be used: {_reason(regex, str(error))}") from None
    transitions = cast("dict[int, dict[int, int]]", index.get_transitions())
    return index.get_initial_state(), transitions


def _reason(regex: str, told: str) -> str:
    """What is wrong with a pattern: the library tells little, Python's own parser where."""
    if "incompatible" in told:
        return "a part of it cannot match anything"
    try:
        re.compile(regex)
    except re.error as error:
        return str(error)
    return "look-around, back-references and word boundaries are not supported"


def _numbered(start: int, transitions: dict[int, dict[int, int]], regex: str) -> ByteAutomaton:
    """The automaton of what stands before the closing character."""
    names = [start, *(state for state in transitions if state != start)]
    numbers = {name: number for number, name in enumerate(names)}
    nowhere = len(names)
    steps = np.full((nowhere + 1, 256), nowhere, np.int32)
    for name, followers in transitions.items():
        for byte, target in followers.items():
            if byte < TOKENS:
                steps[numbers[name], byte] = numbers.get(target, nowhere)
    finals = np.arange(nowhere + 1)
    for byte in CLOSING.encode()[:-1]:
        finals = steps[finals, byte]
    # The last byte leads to a state in which the whole pattern has matched: the end token may follow there.
    matched = np.array([TOKENS in transitions[name] for name in names] + [False])
    accepting = matched[steps[finals, CLOSING.encode()[-1]]]
    accepting[nowhere] = False
    return _trimmed(steps, accepting, regex)


def _trimmed(steps: Numbers, accepting: Flags, regex: str) -> ByteAutomaton:
    """Without the states that cannot be reached or from which nothing accepts; steps [S + 1, 256], the last nowhere."""
    nowhere = len(steps) - 1
    useful = accepting.copy()
    while True:
        more = useful | useful[steps].any(axis=1)
        if (more == useful).all():
            break
        useful = more
    reached = np.zeros(nowhere + 1, np.bool_)
    front = np.array([0])
    while front.size:
        reached[front] = True
        ahead = np.unique(steps[front])
        front = ahead[~reached[ahead] & useful[ahead]]
    kept = np.flatnonzero(reached & useful)
    if not useful[0]:
        raise ConstraintError(f"regex {short(regex)} matches no text at all")
    numbers = np.full(nowhere + 1, len(kept), np.int32)
    numbers[kept] = np.arange(len(kept))
    steps, accepting = numbers[steps[kept]], accepting[kept]
    if len(kept) > MOST_MERGED:
        return ByteAutomaton(steps=steps, accepting=accepting)
    return _merged(steps, accepting)


def _merged(steps: Numbers, accepting: Flags) -> ByteAutomaton:
    """With one state for all that accept the same; steps [S, 256].

    Moore's refinement: states are told apart by whether they accept, then again and again by where their bytes lead,
    until no more are. A state's row of followers is compared by a 64-bit sum of random numbers.
    """
    random = np.random.default_rng(0)
    columns = np.unique(steps, axis=1)
    weights = random.integers(2**63, size=columns.shape[1], dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    values = random.integers(2**63, size=len(steps) + 1, dtype=np.uint64)
    labels, count = accepting.astype(np.int64), 0
    while True:
        # One label more: nowhere, which is like no other state.
        followed = values[np.append(labels, len(steps))[columns]]
        sums = (followed * weights).sum(axis=1, dtype=np.uint64) + values[labels]
        _, first, labels = np.unique(sums, return_index=True, return_inverse=True)
        if len(first) == count:
            break
        count = len(first)
    # The first state stays the first.
    order = np.argsort(first, kind="stable")
    numbers = np.empty(count + 1, np.int32)
    numbers[order] = np.arange(count)
    numbers[count] = count
    followers = np.append(labels, count)[steps[first[order]]]
    return ByteAutomaton(steps=numbers[followers], accepting=accepting[first[order]])
