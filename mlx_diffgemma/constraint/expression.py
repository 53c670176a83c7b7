"""What a text must match, as a tree: the common form of patterns, JSON schemas and lists of choices.

The tree describes characters, not bytes. A node may stand in several places of a tree. `size` is about the number of
transitions over bytes that an automaton of it needs, so a tree that would become too large is noticed before it is
compiled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TypeAlias

from mlx_diffgemma.constraint.characters import ANY_CHARACTER, Characters, byte_steps


@dataclass(frozen=True, eq=False)
class OneOf:
    """One character of a set. The empty set matches no text at all."""

    characters: Characters

    @cached_property
    def size(self) -> int:
        """Transitions of an automaton."""
        return sum(map(len, byte_steps(self.characters)))


@dataclass(frozen=True, eq=False)
class Words:
    """Exactly one of several texts."""

    texts: tuple[str, ...]

    @cached_property
    def size(self) -> int:
        """Transitions of an automaton."""
        return sum(len(text.encode()) for text in self.texts)


@dataclass(frozen=True, eq=False)
class Table:
    """The texts of an automaton whose states are given one by one; the first is its start."""

    rows: tuple[tuple[tuple[tuple[str, int], ...], bool], ...]
    """for each state the state after each ASCII character, in ascending order, and whether a text may end there"""

    @cached_property
    def size(self) -> int:
        """Transitions of an automaton."""
        return sum(len(steps) for steps, _ in self.rows)


@dataclass(frozen=True, eq=False)
class Concatenation:
    """A text of each part, one after another. No parts match the empty text."""

    parts: tuple[Expression, ...]

    @cached_property
    def size(self) -> int:
        """Transitions of an automaton."""
        return sum(part.size for part in self.parts)


@dataclass(frozen=True, eq=False)
class Alternatives:
    """A text of any branch. No branches match no text."""

    branches: tuple[Expression, ...]

    @cached_property
    def size(self) -> int:
        """Transitions of an automaton."""
        return sum(branch.size for branch in self.branches)


@dataclass(frozen=True, eq=False)
class Repetition:
    """From `minimum` to `maximum` texts of the body, with a separator between each two; None is no limit."""

    body: Expression
    minimum: int
    maximum: int | None
    separator: Expression
    source: str = ""
    """how the user wrote it, for the message that it makes an automaton too large"""

    @cached_property
    def size(self) -> int:
        """Transitions of an automaton."""
        copies = max(1, self.minimum if self.maximum is None else self.maximum)
        return copies * (self.body.size + self.separator.size)


@dataclass(frozen=True, eq=False)
class OptionalList:
    """Texts in a fixed order, of which some may be left out, with a separator between each two that are there."""

    members: tuple[tuple[Expression, bool], ...]
    """each with whether it must be there"""
    separator: Expression
    fewest: int = 0
    most: int | None = None
    """how many there are in all; None is no limit"""

    @cached_property
    def size(self) -> int:
        """Transitions of an automaton."""
        return self.counts * sum(member.size + self.separator.size for member, _ in self.members)

    @property
    def counts(self) -> int:
        """The number of members up to which an automaton has to count."""
        return max(1, self.fewest) if self.most is None else self.most


@dataclass(frozen=True, eq=False)
class Intersection:
    """A text that both sides match."""

    one: Expression
    other: Expression

    @cached_property
    def size(self) -> int:
        """Transitions of an automaton: a guess, because the product of both is seldom reached."""
        return self.one.size + self.other.size


@dataclass(frozen=True, eq=False)
class Difference:
    """A text that the first side matches and the second does not."""

    one: Expression
    other: Expression

    @cached_property
    def size(self) -> int:
        """Transitions of an automaton: a guess, because the product of both is seldom reached."""
        return self.one.size + self.other.size


Expression: TypeAlias = (
    OneOf | Words | Table | Concatenation | Alternatives | Repetition | OptionalList | Intersection | Difference
)


class Described(NamedTuple):
    """What a constraint allows."""

    expression: Expression
    notes: tuple[str, ...] = ()
    """what a schema allows and the answer will not be, because no automaton can hold it"""
    unknown: tuple[str, ...] = ()
    """the keywords of a schema that were taken for annotations"""


EMPTY = Concatenation(())
"""Only the empty text."""
NOTHING = Alternatives(())
"""No text at all."""
ANY_CHARACTER_ONCE = OneOf(ANY_CHARACTER)
ANY_TEXT = Repetition(ANY_CHARACTER_ONCE, 0, None, EMPTY)


def literal(text: str) -> Expression:
    """Return what matches exactly `text`."""
    return Words((text,)) if text else EMPTY


def one_of(characters: Characters | str) -> Expression:
    """Return what matches one character of a set, or of a text."""
    return OneOf(Characters.among(characters) if isinstance(characters, str) else characters)


def concatenation(parts: Iterable[Expression]) -> Expression:
    """Return what matches one part after another."""
    kept = tuple(parts)
    if any(part is NOTHING for part in kept):
        return NOTHING
    kept = tuple(part for part in kept if part is not EMPTY)
    return kept[0] if len(kept) == 1 else Concatenation(kept) if kept else EMPTY


def either(branches: Iterable[Expression]) -> Expression:
    """Return what matches any of the branches."""
    kept = tuple(branch for branch in branches if branch is not NOTHING)
    return kept[0] if len(kept) == 1 else Alternatives(kept) if kept else NOTHING


def optional(body: Expression) -> Expression:
    """Return what matches the body, or nothing."""
    return either([EMPTY, body])


def repetition(
    body: Expression,
    minimum: int = 0,
    maximum: int | None = None,
    separator: Expression = EMPTY,
    source: str = "",
) -> Expression:
    """Return what matches `minimum` to `maximum` texts of the body, separated; None is no limit.

    There is no such text if `maximum` is below `minimum`. source: how the user wrote it.
    """
    if body is NOTHING or maximum == 0:
        return EMPTY if minimum == 0 else NOTHING
    if maximum is not None and maximum < minimum:
        return NOTHING
    return body if minimum == maximum == 1 else Repetition(body, minimum, maximum, separator, source)


def optional_list(
    members: Sequence[tuple[Expression, bool]], separator: Expression, fewest: int = 0, most: int | None = None
) -> Expression:
    """Return what matches `fewest` to `most` of the members in this order; those whose flag is True must be there."""
    kept = tuple(each for each in members if each[0] is not NOTHING)
    if len(kept) < fewest or any(member is NOTHING and is_required for member, is_required in members):
        return NOTHING
    if most is None or most >= len(kept):
        needed = sum(is_required for _, is_required in kept)
        return OptionalList(kept, separator, fewest if fewest > needed else 0)
    return OptionalList(kept, separator, fewest, most)


def largest_repetition(expression: Expression) -> str:
    """Return how the user wrote the repetition that is most of an expression; "" if no repetition with a source is."""
    source, half = "", expression.size / 2
    while True:
        if isinstance(expression, Repetition) and expression.source and expression.size >= half:
            source = expression.source
        inner = _parts(expression)
        if not inner:
            return source
        expression = max(inner, key=lambda part: part.size)


def _parts(expression: Expression) -> tuple[Expression, ...]:
    match expression:
        case OneOf() | Words() | Table():
            return ()
        case Concatenation(parts=parts) | Alternatives(branches=parts):
            return parts
        case Repetition(body=body, separator=separator):
            return (body, separator)
        case OptionalList(members=members):
            return tuple(member for member, _ in members)
        case Intersection(one=one, other=other) | Difference(one=one, other=other):
            return (one, other)
