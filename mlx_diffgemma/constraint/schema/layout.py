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


def array(items: Expression) -> Expression:
    """Return an expression of arrays with items, which are written with commas between them."""
    return concatenation([literal("["), _BREAK, items, _BREAK, literal("]")])


def array_of(item: Expression, fewest: int, most: int | None, source: str = "") -> Expression:
    """Return an expression of the arrays of `fewest` to `most` items of one kind; None is no limit."""
    filled = (
        array(repetition(item, max(1, fewest), most, COMMA, source)) if most != 0 and item is not NOTHING else NOTHING
    )
    return filled if fewest else either([filled, concatenation([literal("["), _BLANK, literal("]")])])


def member(name: Expression, value: Expression) -> Expression:
    """Return an expression of a property: its name in quotation marks, a colon and its value."""
    return NOTHING if value is NOTHING else concatenation([name, _COLON, value])


def object_of(members: Sequence[tuple[Expression, bool]], fewest: int, most: int | None) -> Expression:
    """Return an expression of the objects of `fewest` to `most` members, each with whether it is required, in order."""
    inside = optional_list(members, COMMA, max(1, fewest), most)
    filled = NOTHING if inside is NOTHING else concatenation([literal("{"), _BREAK, inside, _BREAK, literal("}")])
    is_empty_allowed = not fewest and not any(is_required for _, is_required in members)
    return either([filled, concatenation([literal("{"), _BLANK, literal("}")])]) if is_empty_allowed else filled
