"""Expressions at random, and a slow, obvious matcher: what automata and patterns are compared with."""

from __future__ import annotations

import random

from mlx_diffgemma.constraint.characters import Characters
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
    optional_list,
    repetition,
)

Positions = frozenset[int]


def matches(expression: Expression, text: str) -> bool:
    """Whether an expression matches a whole text."""
    return len(text) in ends(expression, text, frozenset([0]))


def ends(expression: Expression, text: str, starts: Positions) -> Positions:
    """Return where the matches end that begin at one of `starts`."""
    match expression:
        case OneOf() | Words() | Table() | Intersection() | Difference():
            return frozenset().union(*(_ends_from(expression, text, at) for at in starts))
        case Concatenation(parts=parts):
            for part in parts:
                starts = ends(part, text, starts)
            return starts
        case Alternatives(branches=branches):
            return frozenset().union(*(ends(branch, text, starts) for branch in branches))
        case Repetition():
            return _ends_of_repetition(expression, text, starts)
        case OptionalList():
            return _ends_of_list(expression, text, starts)


def _ends_from(expression: OneOf | Words | Table | Intersection | Difference, text: str, start: int) -> Positions:
    match expression:
        case OneOf(characters=characters):
            return frozenset([start + 1] if start < len(text) and text[start] in characters else [])
        case Words(texts=words):
            return frozenset(start + len(word) for word in words if text.startswith(word, start))
        case Table():
            return _ends_of_table(expression, text, start)
        case Intersection(one=one, other=other):
            return ends(one, text, frozenset([start])) & ends(other, text, frozenset([start]))
        case Difference(one=one, other=other):
            return ends(one, text, frozenset([start])) - ends(other, text, frozenset([start]))


def _ends_of_table(table: Table, text: str, start: int) -> Positions:
    state, found = 0, set[int]()
    for at in range(start, len(text) + 1):
        steps, is_end = table.rows[state]
        found |= {at} if is_end else set()
        following = dict(steps).get(text[at : at + 1])
        if following is None:
            break
        state = following
    return frozenset(found)


def _ends_of_repetition(repeated: Repetition, text: str, starts: Positions) -> Positions:
    found = starts if repeated.minimum == 0 else frozenset[int]()
    here, count, seen = starts, 0, set[tuple[bool, Positions]]()
    while here and (repeated.maximum is None or count < repeated.maximum):
        if count:
            here = ends(repeated.separator, text, here)
        here = ends(repeated.body, text, here)
        count += 1
        is_enough = count >= repeated.minimum
        found |= here if is_enough else frozenset()
        # The same positions again bring nothing new; positions that stay the same make up the minimum.
        if is_enough and (is_enough, here) in seen:
            break
        seen.add((is_enough, here))
    return found


def _ends_of_list(listed: OptionalList, text: str, starts: Positions) -> Positions:
    # The positions after each number of members.
    after = {0: starts}
    for member, is_required in listed.members:
        further = {} if is_required else dict(after)
        for count, positions in after.items():
            begun = ends(listed.separator, text, positions) if count else positions
            further[count + 1] = further.get(count + 1, frozenset()) | ends(member, text, begun)
        after = further
    most = len(listed.members) if listed.most is None else listed.most
    return frozenset().union(*(found for count, found in after.items() if listed.fewest <= count <= most))


ALPHABET = "abé\n"


def random_text(rng: random.Random) -> str:
    """A short text."""
    return "".join(rng.choices(ALPHABET, k=rng.randint(0, 6)))


def random_expression(rng: random.Random, levels: int = 3) -> Expression:  # noqa: PLR0911 (one for each node)
    """An expression of all kinds of nodes."""
    kind = rng.choice(["one", "words", "table"] if levels == 0 else [*_LEAVES, *_INNER])

    def inner() -> Expression:
        return random_expression(rng, levels - 1)

    def some(least: int) -> list[Expression]:
        return [inner() for _ in range(rng.randint(least, 3))]

    match kind:
        case "one":
            chosen = Characters.among("".join(rng.sample(ALPHABET, rng.randint(1, 3))))
            return OneOf(chosen if rng.random() < 0.8 else ~chosen)
        case "words":
            return Words(tuple({random_text(rng)[:3] for _ in range(rng.randint(1, 4))}))
        case "table":
            return _random_table(rng)
        case "concatenation":
            return Concatenation(tuple(some(0)))
        case "alternatives":
            return Alternatives(tuple(some(1)))
        case "repetition":
            least = rng.randint(0, 3)
            most = rng.choice([None, least + rng.randint(0, 3)])
            return repetition(inner(), least, most, rng.choice([EMPTY, inner()]))
        case "list":
            members = [(each, rng.random() < 0.3) for each in some(1)]
            fewest = rng.randint(0, len(members))
            return optional_list(members, inner(), fewest, rng.choice([None, rng.randint(fewest, len(members))]))
        case "intersection":
            return Intersection(inner(), inner())
        case _:
            return Difference(inner(), inner())


_LEAVES = ("one", "words", "table")
_INNER = ("concatenation", "alternatives", "repetition", "list", "intersection", "difference")


def _random_table(rng: random.Random) -> Table:
    size = rng.randint(1, 4)
    rows = [
        (tuple((each, rng.randrange(size)) for each in "ab" if rng.random() < 0.7), rng.random() < 0.5)
        for _ in range(size)
    ]
    return Table(tuple(rows))
