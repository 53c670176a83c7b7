"""What a text must match, as a tree: the common form of patterns, JSON schemas and lists of choices.

The tree describes characters, not bytes. A node may stand in several places of a tree; `size` says how many states of
an automaton it needs at most where nothing can be shared, so that a tree that would become too large is noticed before
it is compiled.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from mlx_diffgemma.constraint.characters import ANY_CHARACTER, Characters, byte_tree


@dataclass(frozen=True, eq=False)
class OneOf:
    """One character of a set. The empty set matches no text at all."""

    characters: Characters

    @cached_property
    def size(self) -> int:
        """States of an automaton."""
        return 1 + _edges(byte_tree(self.characters)) // 2


@dataclass(frozen=True, eq=False)
class Concatenation:
    """A text of each part, one after another. No parts match the empty text."""

    parts: tuple[Expression, ...]

    @cached_property
    def size(self) -> int:
        """States of an automaton."""
        return 1 + sum(part.size for part in self.parts)


@dataclass(frozen=True, eq=False)
class Alternatives:
    """A text of any branch. No branches match no text."""

    branches: tuple[Expression, ...]

    @cached_property
    def size(self) -> int:
        """States of an automaton."""
        return 1 + sum(branch.size for branch in self.branches)


@dataclass(frozen=True, eq=False)
class Repetition:
    """From `minimum` to `maximum` texts of the body, with a separator between each two; None is no limit."""

    body: Expression
    minimum: int
    maximum: int | None
    separator: Expression

    @cached_property
    def size(self) -> int:
        """States of an automaton."""
        copies = max(1, self.minimum if self.maximum is None else self.maximum)
        return 1 + copies * (self.body.size + self.separator.size)


@dataclass(frozen=True, eq=False)
class OptionalList:
    """Texts in a fixed order, of which some may be left out, with a separator between each two that are there."""

    members: tuple[tuple[Expression, bool], ...]
    """each with whether it must be there"""
    separator: Expression

    @cached_property
    def size(self) -> int:
        """States of an automaton."""
        return 1 + sum(member.size + self.separator.size for member, _ in self.members)


@dataclass(frozen=True, eq=False)
class Intersection:
    """A text that both sides match."""

    one: Expression
    other: Expression

    @cached_property
    def size(self) -> int:
        """States of an automaton: a guess, because the product of both is seldom reached."""
        return self.one.size + self.other.size


@dataclass(frozen=True, eq=False)
class Difference:
    """A text that the first side matches and the second does not."""

    one: Expression
    other: Expression

    @cached_property
    def size(self) -> int:
        """States of an automaton: a guess, because the product of both is seldom reached."""
        return self.one.size + self.other.size


Expression: TypeAlias = OneOf | Concatenation | Alternatives | Repetition | OptionalList | Intersection | Difference

EMPTY = Concatenation(())
"""Only the empty text."""
NOTHING = Alternatives(())
"""No text at all."""
ANY_TEXT = Repetition(OneOf(ANY_CHARACTER), 0, None, EMPTY)


def literal(text: str) -> Expression:
    """Return what matches exactly `text`."""
    return concatenation([OneOf(Characters.among(character)) for character in text])


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
    body: Expression, minimum: int = 0, maximum: int | None = None, separator: Expression = EMPTY
) -> Expression:
    """Return what matches `minimum` to `maximum` texts of the body, separated; None is no limit.

    There is no such text if `maximum` is below `minimum`.
    """
    if body is NOTHING:
        return EMPTY if minimum == 0 else NOTHING
    if maximum == 0:
        return EMPTY if minimum == 0 else NOTHING
    if maximum is not None and maximum < minimum:
        return NOTHING
    return body if minimum == maximum == 1 else Repetition(body, minimum, maximum, separator)


def optional_list(members: Sequence[tuple[Expression, bool]], separator: Expression) -> Expression:
    """Return what matches the members in this order; those whose flag is False may be left out."""
    if any(member is NOTHING and is_required for member, is_required in members):
        return NOTHING
    return OptionalList(tuple(each for each in members if each[0] is not NOTHING), separator)


def _edges(tree: object) -> int:
    return sum(1 + _edges(rest) for _, rest in tree) if isinstance(tree, tuple) else 0
