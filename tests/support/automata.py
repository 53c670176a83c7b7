"""Automata of constraints for tests: built, read at random, and compared."""

from __future__ import annotations

import random
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from mlx_diffgemma.constraint.automata.adjacency import Adjacency, Numbers
from mlx_diffgemma.constraint.automata.byte_automaton import ByteAutomaton, compiled
from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.constraint.automata.token_reading import over_tokens
from mlx_diffgemma.constraint.description import described
from mlx_diffgemma.constraint.spec import JsonSchema, Regex

STOPS = (0, 6)
VOCABULARY = (b"<end>", b"a", b"b", b"ab", b"ba", b"c", b"", b"bb", b"")


def of_regex(pattern: str) -> ByteAutomaton:
    """The automaton of a pattern."""
    return compiled(described(Regex(pattern)).expression)


def of_schema(schema: Mapping[str, Any], max_depth: int = 5) -> ByteAutomaton:
    """The automaton of a JSON schema."""
    return compiled(described(JsonSchema(schema, max_depth=max_depth)).expression)


def over(pattern: str) -> TokenAutomaton:
    """The automaton of a pattern over the tokens of VOCABULARY."""
    return over_tokens(of_regex(pattern), VOCABULARY, STOPS)


def sampled(automaton: ByteAutomaton, rng: random.Random, longest: int = 30) -> str:
    """A random text that the automaton accepts: some random bytes, then the shortest way to an end."""
    distance, dead = _distances(automaton), len(automaton.steps)
    state, text, random_bytes = 0, bytearray(), rng.randint(0, longest)
    while not (automaton.accepting[state] and len(text) >= random_bytes):
        row = automaton.steps[state, automaton.class_of_byte]
        possible = np.flatnonzero(row < dead)
        if not possible.size:
            break
        if len(text) >= random_bytes:
            ahead = distance[row[possible]]
            possible = possible[ahead == ahead.min()]
        byte = _chosen(possible, row, rng)
        text.append(byte)
        state = int(row[byte])
    return text.decode()


def _chosen(possible: Numbers | np.ndarray, row: Numbers, rng: random.Random) -> int:
    """A byte, seldom one that begins a longer character; half of the time, each next state is equally probable."""
    ascii_bytes = possible[possible < 128]
    if ascii_bytes.size and rng.random() < 0.9:
        possible = ascii_bytes
    if rng.random() < 0.5:
        target = rng.choice(np.unique(row[possible]).tolist())
        possible = possible[row[possible] == target]
    return int(rng.choice(possible.tolist()))


@lru_cache(maxsize=1)
def _distances(automaton: ByteAutomaton) -> Numbers:
    """Bytes from each state to an end."""
    sources, classes = np.nonzero(automaton.steps < len(automaton.steps))
    edges = Adjacency(sources, automaton.steps[sources, classes], len(automaton.steps))
    return edges.reversed().distances(np.flatnonzero(automaton.accepting))


def are_alike(one: ByteAutomaton, other: ByteAutomaton) -> bool:
    """Whether two automata differ in nothing but the numbers of their states: they have the same states and texts."""
    if len(one.steps) != len(other.steps):
        return False
    pairs, waiting = {0: 0}, [0]
    while waiting:
        state = waiting.pop()
        if one.accepting[state] != other.accepting[pairs[state]]:
            return False
        rows = one.steps[state, one.class_of_byte], other.steps[pairs[state], other.class_of_byte]
        for target, its in set(zip(*(row.tolist() for row in rows), strict=True)):
            if (target == len(one.steps)) != (its == len(other.steps)):
                return False
            if target < len(one.steps) and target not in pairs:
                pairs[target] = its
                waiting.append(target)
            elif pairs.get(target, its) != its:
                return False
    return True
