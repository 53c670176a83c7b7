"""Sequences: the elements of one way through a pattern, and what its anchors and word boundaries demand of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice, takewhile

from mlx_diffgemma.constraint.characters import NO_CHARACTER
from mlx_diffgemma.constraint.expression import ANY_TEXT, EMPTY, NOTHING, Expression, concatenation, either
from mlx_diffgemma.constraint.patterns.assertions import EXPRESSIONS, Beside, Boundary, Element, Guard, Look, Place
from mlx_diffgemma.constraint.patterns.neighbours import (
    Neighbour,
    first_of,
    is_subset,
    outermost,
    overlaps,
    restricted,
    single_characters,
)


def next_to(elements: Iterable[Element], is_ahead: bool, outside: Neighbour) -> Neighbour:
    """Return what stands next to a position that elements follow, and then `outside`.

    is_ahead: whether the elements stand after the position. If not, they are in reversed order.
    """
    return first_of((each for each in elements if isinstance(each, EXPRESSIONS)), is_ahead, outside)


def before_index(sequence: Sequence[Element], index: int, outside: Neighbour) -> Neighbour:
    """Return what stands before the element at an index."""
    return next_to((sequence[at] for at in range(index - 1, -1, -1)), False, outside)


def after_index(sequence: Sequence[Element], index: int, outside: Neighbour) -> Neighbour:
    """Return what stands after the element at an index."""
    return next_to(islice(sequence, index + 1, None), True, outside)


def any_neighbour(neighbours: Iterable[Neighbour]) -> Neighbour:
    """Return what stands where one of several neighbours does."""
    characters, or_none = NO_CHARACTER, False
    for each in neighbours:
        characters |= each.characters
        or_none = or_none or each.or_none
    return Neighbour(characters, or_none)


def holds(beside: Beside, neighbour: Neighbour) -> bool | None:
    """Whether a condition holds for all that can stand there, True, or for nothing of it, False; None: for some."""
    if is_subset(neighbour.characters, beside.characters) and (beside.or_none or not neighbour.or_none):
        return True
    if not overlaps(neighbour.characters, beside.characters) and not (beside.or_none and neighbour.or_none):
        return False
    return None


def without_certain(sequence: list[Element], before: Neighbour, after: Neighbour) -> list[Element] | Place:
    """Return a sequence without the boundaries that always hold; or where one is that never holds."""
    kept: list[Element] = []
    for index, element in enumerate(sequence):
        if not isinstance(element, Boundary):
            kept.append(element)
            continue
        beside = {True: after_index(sequence, index, after), False: before_index(sequence, index, before)}
        open_options: list[tuple[Beside, ...]] = []
        for option in element.options:
            verdicts = [(each, holds(each, beside[each.is_ahead])) for each in option]
            if all(verdict is not False for _, verdict in verdicts):
                open_options.append(tuple(each for each, verdict in verdicts if verdict is None))
        if not open_options:
            return element.place
        if () not in open_options:
            kept.append(Boundary(tuple(open_options), element.place))
    return kept


def meeting(elements: list[Element], beside: Beside, outside: Neighbour) -> Iterator[list[Element] | None]:
    """Yield the ways in which elements, in the direction of a condition, can meet it.

    The last one is None if that depends on what `outside` is.
    """
    emptied: list[Element] = []
    for index, element in enumerate(elements):
        if not isinstance(element, EXPRESSIONS):
            emptied.append(element)
            continue
        begun = restricted(element, beside.characters, beside.is_ahead)
        if begun is not NOTHING:
            yield [*emptied, begun, *elements[index + 1 :]]
        if not outermost(element, beside.is_ahead).or_none:
            return
        emptied.append(EMPTY)
    verdict = holds(beside, outside)
    if verdict is not False:
        yield emptied if verdict else None


def without_empty(sequence: list[Element]) -> list[Element]:
    """Return a sequence without its empty parts, and without the guards of those."""
    kept: list[Element] = []
    for element in sequence:
        if element is not EMPTY:
            kept.append(element)
            continue
        while kept and isinstance(kept[-1], Guard):
            kept.pop()
    return kept


def without_absorbed(sequence: list[Element]) -> list[Element]:
    """Return a sequence without the parts that may be empty and stand beside any text: they allow nothing more."""
    kept: list[Element] = []
    for element in sequence:
        if kept and kept[-1] is ANY_TEXT and _may_be_empty(element):
            continue
        if element is ANY_TEXT:
            while kept and _may_be_empty(kept[-1]) and not isinstance(kept[-2:][0], Guard):
                kept.pop()
        kept.append(element)
    return kept


def _may_be_empty(element: Element) -> bool:
    return isinstance(element, EXPRESSIONS) and outermost(element, True).or_none


def as_boundary(look: Look, bodies: list[list[Element]]) -> Look | Boundary:
    """Return a look-around at a single character, or at an end, as a boundary; every other one as it is.

    bodies: the sequences of its body.
    """
    options: list[tuple[Beside, ...]] = []
    for body in bodies:
        characters = single_characters(body[0]) if len(body) == 1 and isinstance(body[0], EXPRESSIONS) else None
        match body:
            case []:
                options.append(())
            case [Boundary(options=inner)]:
                options.extend(inner)
            case _ if characters is not None:
                options.append((Beside(look.is_ahead, characters, False),))
            case _:
                return look
    if not look.is_negative:
        return Boundary(tuple(options), look.place)
    if () in options:
        return Boundary((), look.place)
    if any(len(option) > 1 for option in options) or len({each.is_ahead for (each,) in options}) > 1:
        return look
    excluded = any_neighbour(Neighbour(each.characters, each.or_none) for (each,) in options)
    opposite = [Beside(each.is_ahead, ~excluded.characters, not excluded.or_none) for (each,) in options[:1]]
    return Boundary((tuple(opposite),), look.place)


def first_assertion(sequences: list[list[Element]]) -> Place:
    """Return where the first assertion of sequences stands."""
    elements = (element for sequence in sequences for element in sequence)
    return next(element.place for element in elements if not isinstance(element, EXPRESSIONS))


def either_sequence(sequences: list[list[Expression]]) -> Expression:
    """Return any of several sequences; the parts that all begin or end with stand once."""
    if not sequences:
        return NOTHING
    shortest = min(map(len, sequences))
    prefix = _shared(sequences, shortest)
    suffix = _shared([each[::-1] for each in sequences], shortest - prefix)
    middle = either(concatenation(each[prefix : len(each) - suffix]) for each in sequences)
    first = sequences[0]
    return concatenation([*first[:prefix], middle, *first[len(first) - suffix :]])


def _shared(sequences: Sequence[Sequence[Expression]], limit: int) -> int:
    """Return with how many equal parts all sequences begin, `limit` at most."""
    columns = islice(zip(*sequences, strict=False), limit)
    return len(list(takewhile(lambda column: all(each is column[0] for each in column), columns)))
