"""Random texts that an automaton over bytes accepts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from mlx_diffgemma.constraint.automata.byte_automaton import ByteAutomaton

_LONGEST = 120
"""Bytes after which a text takes a shortest way to its end."""


class ByteWalker:
    """A matcher that reads an automaton's table of steps, byte by byte."""

    def __init__(self, automaton: ByteAutomaton) -> None:
        self._steps, self._accepting = automaton.steps, automaton.accepting
        self._column_of_byte = automaton.class_of_byte.tolist()

    def accepts(self, text: bytes) -> bool:
        """Return whether the whole text matches."""
        state, dead = 0, len(self._steps)
        for byte in text:
            state = int(self._steps[state, self._column_of_byte[byte]])
            if state == dead:
                return False
        return bool(self._accepting[state])

    def answers(self, count: int) -> Sequence[bytes]:
        """Return random texts that match, the same in every run."""
        rng = random.Random(0)
        return [self._random_text(rng) for _ in range(count)]

    def _random_text(self, rng: random.Random) -> bytes:
        """Some random bytes, then a shortest way to an end."""
        distance, state, text, random_bytes = self._distance, 0, bytearray(), rng.randint(0, _LONGEST)
        while not (self._accepting[state] and len(text) >= random_bytes):
            row = self._steps[state]
            ahead = distance[row]
            # States are drawn before bytes: most bytes of a string only make it longer.
            possible = np.unique(row[ahead < len(distance)]).tolist()
            if not possible:
                break
            if len(text) >= random_bytes:
                possible = [each for each in possible if distance[each] == distance[possible].min()]
            target = rng.choice(possible)
            text.append(rng.choice([byte for byte, column in enumerate(self._column_of_byte) if row[column] == target]))
            state = target
        return bytes(text)

    @cached_property
    def _distance(self) -> npt.NDArray[np.int64]:
        """[S + 1] bytes from each state to an end; more than S from one without an end."""
        size, width = self._steps.shape
        targets = self._steps.reshape(-1)
        order = np.argsort(targets, kind="stable")
        begins = np.searchsorted(targets[order], np.arange(size + 1))
        distance = np.full(size + 1, size + 1)
        front = np.flatnonzero(self._accepting)
        distance[front], steps = 0, 0
        while front.size:
            steps += 1
            into = np.concatenate([order[begins[state] : begins[state + 1]] for state in front.tolist()])
            before = np.unique(into // width)
            front = before[distance[before] > size]
            distance[front] = steps
        return distance
