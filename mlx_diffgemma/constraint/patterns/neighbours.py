"""Which characters the texts of an expression begin or end with, and the texts that begin or end with given ones."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from typing import NamedTuple

from mlx_diffgemma.constraint.characters import ANY_CHARACTER, LAST_CHARACTER, NO_CHARACTER, Characters
from mlx_diffgemma.constraint.expression import (
    ANY_TEXT,
    NOTHING,
    Alternatives,
    Concatenation,
    Difference,
    Expression,
    Intersection,
    OneOf,
    Repetition,
    Words,
    concatenation,
    either,
    repetition,
)


class Neighbour(NamedTuple):
    """What can stand next to a position of a text: one of these characters, or no character if `or_none`."""

    characters: Characters
    """all that are possible, and perhaps some that are not"""
    or_none: bool


END_OF_TEXT = Neighbour(NO_CHARACTER, True)


def is_subset(some: Characters, others: Characters) -> bool:
    """Whether all of `some` are among the others."""
    for first, last in some.ranges:
        at = bisect_right(others.ranges, (first, LAST_CHARACTER)) - 1
        if at < 0 or others.ranges[at][1] < last:
            return False
    return True


def overlaps(some: Characters, others: Characters) -> bool:
    """Whether two sets have a character in common."""
    fewer, more = sorted((some.ranges, others.ranges), key=len)
    for first, last in fewer:
        at = bisect_right(more, (last, LAST_CHARACTER)) - 1
        if at >= 0 and more[at][1] >= first:
            return True
    return False


def single_characters(expression: Expression) -> Characters | None:
    """Return the set of an expression whose texts are all one character; None for every other expression."""
    match expression:
        case OneOf(characters=characters):
            return characters
        case Words(texts=texts) if all(len(text) == 1 for text in texts):
            return Characters.among("".join(texts))
        case _:
            return None


def first_of(parts: Iterable[Expression], is_ahead: bool, then: Neighbour) -> Neighbour:
    """Return what stands next to a position that parts follow, and `then` after them.

    is_ahead: whether the parts stand after the position. If not, they are in reversed order.
    """
    found = NO_CHARACTER
    for part in parts:
        characters, or_none = outermost(part, is_ahead)
        found |= characters
        if not or_none:
            return Neighbour(found, False)
    return Neighbour(found | then.characters, then.or_none)


def outermost(expression: Expression, is_ahead: bool) -> Neighbour:
    """Return the first characters of an expression's texts, or the last ones; and whether a text may be empty."""
    match expression:
        case OneOf(characters=characters):
            found = Neighbour(characters, False)
        case Words(texts=texts):
            found = Neighbour(Characters.among("".join(text[0 if is_ahead else -1] for text in texts)), False)
        case Concatenation(parts=parts):
            found = first_of(parts if is_ahead else reversed(parts), is_ahead, END_OF_TEXT)
        case Alternatives(branches=branches):
            found = _union(outermost(branch, is_ahead) for branch in branches)
        case Repetition(body=body, minimum=minimum, separator=separator):
            inner = outermost(body, is_ahead)
            after = outermost(separator, is_ahead).characters if inner.or_none else NO_CHARACTER
            found = Neighbour(inner.characters | after, inner.or_none or minimum == 0)
        case Intersection(one=one, other=other) | Difference(one=one, other=other):
            left, right = outermost(one, is_ahead), outermost(other, is_ahead)
            is_difference = isinstance(expression, Difference)
            found = Neighbour(left.characters, left.or_none and right.or_none != is_difference)
        case _:  # no pattern contains what is left
            found = Neighbour(ANY_CHARACTER, True)
    return found


def _union(neighbours: Iterable[Neighbour]) -> Neighbour:
    characters, or_none = NO_CHARACTER, False
    for each in neighbours:
        characters |= each.characters
        or_none = or_none or each.or_none
    return Neighbour(characters, or_none)


def restricted(expression: Expression, characters: Characters, is_ahead: bool) -> Expression:
    """Return the texts of an expression that begin with one of `characters`, or that end with one."""
    possible, or_none = outermost(expression, is_ahead)
    if not overlaps(possible, characters):
        return NOTHING
    if not or_none and is_subset(possible, characters):
        return expression
    outer: Expression = OneOf(possible & characters)
    match expression:
        case OneOf():
            begun = outer
        case Words(texts=texts):
            begun = Words(tuple(text for text in texts if text[0 if is_ahead else -1] in characters))
        case Alternatives(branches=branches):
            begun = either(restricted(branch, characters, is_ahead) for branch in branches)
        case Concatenation(parts=parts):
            begun = either(_restricted_parts(parts, characters, is_ahead))
        case Repetition(body=OneOf() as body, separator=Concatenation(parts=())) as repeated:
            minimum, maximum, source = repeated.minimum, repeated.maximum, repeated.source
            others = repetition(body, max(minimum - 1, 0), None if maximum is None else maximum - 1, source=source)
            begun = in_direction([outer, others], is_ahead)
        case _:
            begun = Intersection(expression, in_direction([outer, ANY_TEXT], is_ahead))
    return begun


def _restricted_parts(parts: tuple[Expression, ...], characters: Characters, is_ahead: bool) -> Iterable[Expression]:
    """Yield, for each part that may be the first with a text, what remains then."""
    ordered = parts if is_ahead else parts[::-1]
    for index, part in enumerate(ordered):
        yield in_direction([restricted(part, characters, is_ahead), *ordered[index + 1 :]], is_ahead)
        if not outermost(part, is_ahead).or_none:
            return


def in_direction(parts: list[Expression], is_ahead: bool) -> Expression:
    """Return one part after another; the first one is the last of the text if not `is_ahead`."""
    return concatenation(parts if is_ahead else parts[::-1])


def longest(expression: Expression) -> int | None:
    """Return how many characters the longest text of an expression has; None if that is not known."""
    match expression:
        case OneOf():
            return 1
        case Words(texts=texts):
            return max(map(len, texts), default=0)
        case Concatenation(parts=parts):
            lengths = [longest(part) for part in parts]
            return None if None in lengths else sum(each or 0 for each in lengths)
        case Alternatives(branches=branches):
            lengths = [longest(branch) for branch in branches]
            return None if None in lengths else max((each or 0 for each in lengths), default=0)
        case _:
            return None


def fixed_length(expression: Expression) -> int | None:
    """Return how many characters all texts of an expression have; None if that is not known, or if it differs."""
    match expression:
        case OneOf():
            return 1
        case Words(texts=texts):
            return len(texts[0]) if len(set(map(len, texts))) == 1 else None
        case Concatenation(parts=parts):
            lengths = [fixed_length(part) for part in parts]
            return None if None in lengths else sum(each or 0 for each in lengths)
        case Alternatives(branches=branches):
            lengths = {fixed_length(branch) for branch in branches}
            return lengths.pop() if len(lengths) == 1 else None
        case Repetition(body=OneOf(), minimum=minimum, maximum=maximum, separator=Concatenation(parts=())):
            return minimum if minimum == maximum else None
        case _:
            return None
