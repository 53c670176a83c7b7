"""An automaton over bytes, and what bytes every token adds, as an automaton over tokens.

What a token does to all states at once is a function from states to states: the one of its bytes, one after another.
Tokens are read side by side, a byte at a time; whatever functions come out equal are one from there on, so that each
pair of a function and a byte is computed once. Those of complete tokens are the classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlx_diffgemma.constraint.byte_automaton import ByteAutomaton, Flags, Numbers
from mlx_diffgemma.constraint.token_automaton import NOWHERE, TokenAutomaton
from mlx_diffgemma.errors import ConstraintError

MOST_CELLS = 2**28
"""Functions times states, at most: 1 GB while the automaton is made."""


def over_tokens(automaton: ByteAutomaton, vocabulary: Sequence[bytes], stops: tuple[int, ...]) -> TokenAutomaton:
    """The texts of `automaton` as sequences of tokens, of which `stops` end one; a token without bytes is never read.

    Raises ConstraintError where the automaton is too large, or no tokens make up any of its texts.
    """
    functions, function_of = _functions(automaton, _without(vocabulary, stops))
    states = len(automaton.steps)
    named, sources = (found.astype(np.int32) for found in np.nonzero(functions != states))
    targets = functions[named, sources]
    kept = _useful(sources, targets, automaton)
    named, sources, targets = named[kept], sources[kept], targets[kept]
    # Functions that lead nowhere are no classes.
    used, classes = np.unique(named, return_inverse=True)
    renamed = np.full(len(functions), NOWHERE, np.int32)
    renamed[used] = np.arange(len(used))
    order = np.argsort(targets, kind="stable")
    return TokenAutomaton(
        class_of=renamed[function_of],
        accepting=automaton.accepting,
        classes=classes[order].astype(np.int32),
        sources=sources[order].astype(np.int32),
        targets=targets[order].astype(np.int32),
        stops=tuple(token for token in stops if token < len(vocabulary)),
    )


def _without(vocabulary: Sequence[bytes], stops: Sequence[int]) -> list[bytes]:
    """The vocabulary, in which `stops` say nothing."""
    return [b"" if token in stops else piece for token, piece in enumerate(vocabulary)]


def _functions(automaton: ByteAutomaton, vocabulary: Sequence[bytes]) -> tuple[Numbers, Numbers]:
    """The functions of tokens [F, S], one of them that of tokens that are never read; and which is each token's [V]."""
    states = len(automaton.steps)
    # The state nowhere leads to itself.
    steps = np.concatenate([automaton.steps, np.full((1, 256), states, np.int32)])
    dead = np.full(states, states, np.int32)
    rows: list[Numbers] = [dead, np.arange(states, dtype=np.int32)]
    known = {row.tobytes(): number for number, row in enumerate(rows)}
    lengths = np.array([len(piece) for piece in vocabulary])
    current = np.where(lengths > 0, 1, 0)
    flat = np.frombuffer(b"".join(vocabulary), np.uint8)
    starts = np.cumsum(lengths) - lengths
    for place in range(int(lengths.max(initial=0))):
        reading = np.flatnonzero((lengths > place) & (current > 0))
        pairs, inverse = np.unique(current[reading] * 256 + flat[starts[reading] + place], return_inverse=True)
        numbers = np.empty(len(pairs), np.int64)
        for n, pair in enumerate(pairs.tolist()):
            row = steps[rows[pair // 256], pair % 256]
            number = known.setdefault(row.tobytes(), len(rows))
            if number == len(rows):
                rows.append(row)
            numbers[n] = number
        if len(rows) * states > MOST_CELLS:
            raise ConstraintError(
                f"the constraint is too large: {states} states; allow shorter strings, or fewer repetitions"
            )
        current[reading] = numbers[inverse]
    # Functions of beginnings only are none of a token.
    used, function_of = np.unique(current, return_inverse=True)
    return np.stack([rows[number] for number in used.tolist()]), function_of.astype(np.int32)


def _useful(sources: Numbers, targets: Numbers, automaton: ByteAutomaton) -> Flags:
    """bool [E]: transitions that tokens can reach, and behind which they can make up a text."""
    reached = np.zeros(len(automaton.steps), np.bool_)
    reached[0] = True
    ending = automaton.accepting.copy()
    while True:
        found = reached.sum() + ending.sum()
        reached[targets[reached[sources]]] = True
        ending[sources[ending[targets]]] = True
        if found == reached.sum() + ending.sum():
            break
    if not ending[0] or not len(targets):
        raise ConstraintError("no text that matches can be made up of this model's tokens")
    return reached[sources] & ending[targets]
