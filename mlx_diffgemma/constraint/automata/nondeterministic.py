"""An expression as a nondeterministic automaton over bytes.

The automaton is built from its end: the states of an expression are made for a given state that follows them. States
with the same transitions are made once, so texts that end alike share their ends.

A repetition without limit needs its body once, because the way back leads to the body's own first state. So does a list
of optional members: after the separator, and without one, the way leads to the same first state of a member.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mlx_diffgemma.constraint.automata.graph import ByteGraph, Edge
from mlx_diffgemma.constraint.characters import Characters, byte_steps
from mlx_diffgemma.constraint.expression import (
    Alternatives,
    Concatenation,
    Difference,
    Expression,
    Intersection,
    OneOf,
    OptionalList,
    Repetition,
    Table,
    Words,
)


class Compiler:
    """Adds the states of expressions to a graph.

    `rows` returns the transitions of the deterministic automaton of an intersection or a difference: for each of its
    states, of which the first is its start, the transitions, and whether a text may end there.
    """

    def __init__(
        self, graph: ByteGraph, rows: Callable[[Intersection | Difference], list[tuple[list[Edge], bool]]]
    ) -> None:
        self._graph = graph
        self._rows = rows
        self._made: dict[tuple[Expression, int], int] = {}

    def state_before(self, expression: Expression, following: int) -> int:
        """Return the state from which every text of an expression leads to the state `following`."""
        found = self._made.get((expression, following))
        if found is None:
            found = self._made[expression, following] = self._new_state_before(expression, following)
        return found

    def _new_state_before(self, expression: Expression, following: int) -> int:  # noqa: PLR0911 (one for each node)
        match expression:
            case OneOf(characters=characters):
                return self._before_character(characters, following)
            case Words(texts=texts):
                return self._graph.union([self._before_bytes(text.encode(), following) for text in texts])
            case Concatenation(parts=parts):
                for part in reversed(parts):
                    following = self.state_before(part, following)
                return following
            case Alternatives(branches=branches):
                return self._graph.union([self.state_before(branch, following) for branch in branches])
            case Repetition():
                return self._before_repetition(expression, following)
            case OptionalList():
                return self._before_list(expression, following)
            case Table(rows=rows):
                edges = [([(ord(each), ord(each), after) for each, after in steps], ends) for steps, ends in rows]
                return self._before_rows(edges, following)
            case Intersection() | Difference():
                return self._before_rows(self._rows(expression), following)

    def _before_character(self, characters: Characters, following: int) -> int:
        states: list[int] = []
        for edges in byte_steps(characters):
            # The last of the list is `following`, whose number is AFTER, -1.
            states.append(following)
            moved = tuple([(first, last, states[target]) for first, last, target in edges])
            states[-1] = self._graph.state(moved)
        return states[-1] if states else self._graph.union([])

    def _before_bytes(self, data: bytes, following: int) -> int:
        for byte in reversed(data):
            following = self._graph.state(((byte, byte, following),))
        return following

    def _before_repetition(self, repetition: Repetition, following: int) -> int:
        body, separator = repetition.body, repetition.separator
        required = max(1, repetition.minimum)
        if repetition.maximum is None:
            after = self._graph.open()
            first = self.state_before(body, after)
            self._graph.close(after, states=[following, self.state_before(separator, first)])
        else:
            first = self.state_before(body, following)
            chain = self._graph.chain()
            for rank in range(repetition.maximum - required):
                with self._graph.copies(chain, rank):
                    after = self._graph.union([self.state_before(separator, first), following])
                    first = self.state_before(body, after)
        for _ in range(required - 1):
            first = self.state_before(body, self.state_before(separator, first))
        return self._graph.union([first, following]) if repetition.minimum == 0 else first

    def _before_list(self, listed: OptionalList, following: int) -> int:
        union = self._graph.union
        # For each number of members that were written: the state before those that may be next, and whether the list
        # may end instead.
        counts = range(listed.counts + 1)
        following_member = [union([]) for _ in counts]
        may_end = [count >= listed.fewest for count in counts]
        for member, is_required in reversed(listed.members):
            after = [
                union([*[following] * ends, self.state_before(listed.separator, begun)])
                for begun, ends in zip(following_member, may_end, strict=True)
            ]
            begun = [
                union([]) if count == listed.most else self.state_before(member, after[min(count + 1, listed.counts)])
                for count in counts
            ]
            following_member = begun if is_required else list(map(union, zip(begun, following_member, strict=True)))
            may_end = [ends and not is_required for ends in may_end]
        return union([*[following] * may_end[0], following_member[0]])

    def _before_rows(self, rows: Sequence[tuple[Sequence[Edge], bool]], following: int) -> int:
        states = [self._graph.open() for _ in rows]
        for state, (edges, accepts) in zip(states, rows, strict=True):
            moved = [(first, last, states[target]) for first, last, target in edges]
            self._graph.close(state, moved, [following] if accepts else [])
        return states[0]
