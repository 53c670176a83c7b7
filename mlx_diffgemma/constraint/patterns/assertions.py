"""Patterns with assertions, as trees: anchors, word boundaries and look-arounds are not yet compiled away."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

from mlx_diffgemma.constraint.characters import NO_CHARACTER, Characters
from mlx_diffgemma.constraint.expression import (
    EMPTY,
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
    concatenation,
    either,
    repetition,
)
from mlx_diffgemma.constraint.patterns.neighbours import single_characters


class Place(NamedTuple):
    """Where the user wrote an assertion."""

    text: str
    position: int


@dataclass(frozen=True)
class Beside:
    """Holds where the next character, or the one before, is in a set; or where there is none, if `or_none`."""

    is_ahead: bool
    characters: Characters
    or_none: bool


@dataclass(frozen=True, eq=False)
class Boundary:
    """Holds at a position where all conditions of one option hold: anchors and word boundaries."""

    options: tuple[tuple[Beside, ...], ...]
    place: Place


@dataclass(frozen=True, eq=False)
class Look:
    """Holds at a position that a match of the body follows, or precedes; if negative, where there is no such match."""

    is_ahead: bool
    is_negative: bool
    body: Node
    place: Place


@dataclass(frozen=True, eq=False)
class Guard:
    """Look-aheads that hold at every character of the expression that comes next."""

    looks: tuple[Look, ...]
    place: Place


@dataclass(frozen=True, eq=False)
class InOrder:
    """One part after another, of which some contain assertions."""

    parts: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class AnyOf:
    """Any of the branches, of which some contain assertions."""

    branches: tuple[Node, ...]


@dataclass(frozen=True, eq=False)
class Repeated:
    """From `minimum` to `maximum` matches of a body that contains assertions; None is no limit."""

    body: Node
    minimum: int
    maximum: int | None
    place: Place


Element: TypeAlias = Expression | Boundary | Look | Guard
Node: TypeAlias = Element | InOrder | AnyOf | Repeated

EXPRESSIONS = (OneOf, Words, Table, Concatenation, Alternatives, Repetition, OptionalList, Intersection, Difference)


def boundary(is_ahead: bool, place: Place, characters: Characters = NO_CHARACTER) -> Boundary:
    """Return the assertion that the text ends at a position, or that one of `characters` stands there."""
    return Boundary(((Beside(is_ahead, characters, True),),), place)


def one_after_another(parts: Iterable[Node]) -> Node:
    """Return one part after another."""
    kept = tuple(_joined_words(parts))
    if all(isinstance(part, EXPRESSIONS) for part in kept):
        return concatenation(part for part in kept if isinstance(part, EXPRESSIONS))
    return kept[0] if len(kept) == 1 else InOrder(kept)


def _joined_words(parts: Iterable[Node]) -> Iterator[Node]:
    """Join texts that follow one another."""
    texts: list[str] = []
    for part in parts:
        if isinstance(part, Words) and len(part.texts) == 1:
            texts.append(part.texts[0])
            continue
        if texts:
            yield Words(("".join(texts),))
            texts = []
        yield part
    if texts:
        yield Words(("".join(texts),))


def any_of(branches: list[Node]) -> Node:
    """Return any of the branches; those without assertions become one."""
    if len(branches) == 1:
        return branches[0]
    plain = [branch for branch in branches if isinstance(branch, EXPRESSIONS)]
    others = [branch for branch in branches if not isinstance(branch, EXPRESSIONS)]
    sets = [each for each in map(single_characters, plain) if each is not None]
    words = [branch for branch in plain if isinstance(branch, Words) and single_characters(branch) is None]
    rest: list[Expression] = [
        branch for branch in plain if single_characters(branch) is None and not isinstance(branch, Words)
    ]
    if sets:
        rest.append(OneOf(Characters.of(each for characters in sets for each in characters.ranges)))
    if words:
        rest.append(Words(tuple(dict.fromkeys(text for branch in words for text in branch.texts))))
    if any(branch is EMPTY for branch in rest):
        rest = [EMPTY, *(branch for branch in rest if branch is not EMPTY)]
    if not others:
        return either(rest)
    return AnyOf((either(rest), *others) if rest else tuple(others))


def repeated_node(body: Node, minimum: int, maximum: int | None, place: Place) -> Node:
    """Return `minimum` to `maximum` matches of a body, one after another; None is no limit."""
    if body is EMPTY or maximum == 0:
        return EMPTY
    if isinstance(body, EXPRESSIONS):
        return repetition(body, minimum, maximum, source=place.text)
    return Repeated(body, minimum, maximum, place)
