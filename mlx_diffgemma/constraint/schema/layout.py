"""Arrays and objects of JSON, with marks and blanks as programs usually write them."""

from __future__ import annotations

from collections.abc import Sequence

from mlx_diffgemma.constraint.expression import (
    NOTHING,
    Expression,
    concatenation,
    either,
    literal,
    one_of,
    optional,
    optional_list,
    repetition,
)

_BLANK = optional(one_of(" "))
_BREAK = either([concatenation([one_of("\n"), repetition(one_of(" "))]), _BLANK])
"""A line break and indentation, or at most one blank."""
COMMA = concatenation([one_of(","), _BREAK])
_COLON = concatenation([one_of(":"), _BLANK])


EMPTY_ARRAY, _EMPTY_OBJECT = (concatenation([literal(opening), _BLANK, literal(end)]) for opening, end in ("[]", "{}"))


def _filled(marks: str, inside: Expression) -> Expression:
    if inside is NOTHING:
        return NOTHING
    return concatenation([literal(marks[0]), _BREAK, inside, _BREAK, literal(marks[1])])


def array(items: Expression) -> Expression:
    """Return an expression of arrays with items, which are written with commas between them."""
    return _filled("[]", items)


def array_of(item: Expression, fewest: int, most: int | None, source: str = "") -> Expression:
    """Return an expression of the arrays of `fewest` to `most` items of one kind; None is no limit."""
    filled = array(repetition(item, max(1, fewest), most, COMMA, source))
    return filled if fewest else either([filled, EMPTY_ARRAY])


def member(name: Expression, value: Expression) -> Expression:
    """Return an expression of a property: its name in quotation marks, a colon and its value."""
    return NOTHING if value is NOTHING else concatenation([name, _COLON, value])


def object_of(members: Sequence[tuple[Expression, bool]], fewest: int, most: int | None) -> Expression:
    """Return an expression of the objects of `fewest` to `most` members, each with whether it is required, in order."""
    filled = _filled("{}", optional_list(members, COMMA, max(1, fewest), most))
    is_empty_allowed = not fewest and not any(is_required for _, is_required in members)
    return either([filled, _EMPTY_OBJECT]) if is_empty_allowed else filled
