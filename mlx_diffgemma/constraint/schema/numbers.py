"""Numbers between limits, and multiples, as expressions of their JSON texts."""

from __future__ import annotations

from fractions import Fraction
from math import ceil, floor

from mlx_diffgemma.constraint.expression import (
    NOTHING,
    Expression,
    Intersection,
    Table,
    concatenation,
    either,
    literal,
    one_of,
    optional,
    repetition,
)
from mlx_diffgemma.constraint.patterns.pattern import PYTHON, whole_match
from mlx_diffgemma.constraint.schema.integers import integer_between
from mlx_diffgemma.constraint.schema.shapes import Limit, NumberShape

_NOT_NEGATIVE = r"(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?"
_DIGIT = one_of("0123456789")
_MAX_REMAINDERS = 2000
"""The largest step, in units of its last digit, whose multiples an automaton tells from other numbers."""
_FRACTION_DIGITS = 10
"""Digits after the point of a number with a limit: more could be rounded to the limit when they are read."""
_LARGEST = Fraction(10**40)
"""Limits beyond it are this large."""


class UnkeptError(Exception):
    """A number cannot be described; the message says why."""


def number_expression(numbers: NumberShape) -> Expression:
    """Return an expression of the JSON texts of the numbers. Raises UnkeptError for a step that is too fine."""
    low, high = _within_reach(numbers.low, 1), _within_reach(numbers.high, -1)
    if numbers.is_integer:
        integers = _integers(low, high)
        if numbers.step is None or integers is NOTHING:
            return integers
        # The integers among the multiples of p / q are the multiples of p.
        return Intersection(integers, _multiples(Fraction(numbers.step.numerator)))
    if numbers.step is not None:
        return Intersection(_decimals(low, high), _multiples(numbers.step))
    if high is None and (low is None or (low.value == 0 and not low.is_excluded)):
        return whole_match(("" if low else "-?") + _NOT_NEGATIVE, PYTHON)
    return _decimals(low, high)


def _within_reach(limit: Limit | None, sign: int) -> Limit | None:
    """Return a limit that an automaton can hold, and that allows no more; sign is 1 for lower limits."""
    if limit is None:
        return None
    if sign * limit.value > _LARGEST:
        side = "above " if sign > 0 else "below -"
        raise UnkeptError(f"numbers {side}{float(_LARGEST):g} cannot be told apart")
    return Limit(-sign * min(-sign * limit.value, _LARGEST), limit.is_excluded)


def _integers(low: Limit | None, high: Limit | None) -> Expression:
    first = None if low is None else floor(low.value) + 1 if low.is_excluded else ceil(low.value)
    last = None if high is None else ceil(high.value) - 1 if high.is_excluded else floor(high.value)
    if first is not None and last is not None and first > last:
        return NOTHING
    return whole_match(integer_between(first, last), PYTHON)


def _decimals(low: Limit | None, high: Limit | None) -> Expression:
    """Return an expression of the numbers between two limits, written without an exponent."""
    branches: list[Expression] = []
    if low is None or low.value < 0:
        # The absolute values of the negative numbers.
        smallest = _opposite(high) if high is not None and high.value <= 0 else Limit(Fraction(0), False)
        branches.append(concatenation([literal("-"), _not_negative(smallest, _opposite(low))]))
    if high is None or high.value >= 0:
        branches.append(_not_negative(low if low is not None and low.value >= 0 else Limit(Fraction(0), False), high))
    return either(branches)


def _opposite(limit: Limit | None) -> Limit | None:
    return None if limit is None else Limit(-limit.value, limit.is_excluded)


def _not_negative(low: Limit | None, high: Limit | None) -> Expression:
    """Return an expression of the numbers from `low`, which is not negative, to `high`."""
    assert low is not None
    first, above = divmod(low.value, 1)
    first_digits = _digits(above)
    if high is None:
        places = max(_FRACTION_DIGITS, len(first_digits))
        later = concatenation([whole_match(integer_between(first + 1, None), PYTHON), _any_fraction(places)])
        return either([_with_integer(first, _fraction_from(first_digits, low.is_excluded, places)), later])
    last, below = divmod(high.value, 1)
    last_digits = _digits(below)
    places = max(_FRACTION_DIGITS if last < 10**5 else 2, len(first_digits), len(last_digits))
    least, greatest = (
        _fraction_from(first_digits, low.is_excluded, places),
        _fraction_to(last_digits, high.is_excluded, places),
    )
    if first == last:
        return _with_integer(first, Intersection(least, greatest)) if low.value <= high.value else NOTHING
    branches = [_with_integer(first, least), _with_integer(last, greatest)] if first < last else []
    if last - first > 1:
        between = whole_match(integer_between(first + 1, last - 1), PYTHON)
        branches.append(concatenation([between, _any_fraction(places)]))
    return either(branches)


def _with_integer(whole: int, fraction: Expression) -> Expression:
    return concatenation([literal(str(whole)), fraction])


def _digits(fraction: Fraction) -> str:
    """Return the digits after the point of a number below 1; a limit is decimal, so they end."""
    digits = ""
    while fraction:
        digit, fraction = divmod(fraction * 10, 1)
        digits += str(digit)
    return digits


def _up_to(places: int) -> Expression:
    return repetition(_DIGIT, 0, places)


def _any_fraction(places: int) -> Expression:
    return optional(concatenation([literal("."), repetition(_DIGIT, 1, places)]))


def _fraction_from(digits: str, is_excluded: bool, places: int) -> Expression:
    """Return an expression of the point and the digits of fractions from 0.`digits` on."""
    pointed = concatenation([literal("."), _digits_from(digits, is_excluded, places)])
    return pointed if digits or is_excluded else _any_fraction(places)


def _digits_from(digits: str, is_excluded: bool, places: int) -> Expression:
    if not digits:
        if not is_excluded:
            return _up_to(places)
        return concatenation([repetition(literal("0"), 0, max(0, places - 1)), one_of("123456789"), _up_to(places)])
    larger = (
        [concatenation([one_of("0123456789"[int(digits[0]) + 1 :]), _up_to(places - 1)])] if digits[0] != "9" else []
    )
    return either([*larger, concatenation([literal(digits[0]), _digits_from(digits[1:], is_excluded, places - 1)])])


def _fraction_to(digits: str, is_excluded: bool, places: int) -> Expression:
    """Return an expression of the point and the digits of fractions up to 0.`digits`."""
    if not digits:
        return NOTHING if is_excluded else optional(concatenation([literal("."), repetition(literal("0"), 1, places)]))
    return optional(concatenation([literal("."), _digits_to(digits, is_excluded, places)]))


def _digits_to(digits: str, is_excluded: bool, places: int) -> Expression:
    """Return an expression of one digit or more, which are at most `digits`, where shorter ones are followed by 0."""
    if not digits:
        return NOTHING if is_excluded else repetition(literal("0"), 0, places)
    smaller = one_of("0123456789"[: int(digits[0])]) if digits[0] != "0" else NOTHING
    rest = _digits_to(digits[1:], is_excluded, places - 1)
    # The digit alone is smaller, unless it is the last.
    same = rest if len(digits) == 1 else optional(rest)
    return either([concatenation([smaller, _up_to(places - 1)]), concatenation([literal(digits[0]), same])])


def _multiples(step: Fraction) -> Expression:
    """Return an expression of the multiples of a step as decimal numbers; zeros may stand before them."""
    places = 0
    while (step * 10**places).denominator != 1:
        places += 1
    unit = int(step * 10**places)
    zeros = 0
    while places == 0 and unit % 10 == 0:
        unit, zeros = unit // 10, zeros + 1
    if unit > _MAX_REMAINDERS:
        raise UnkeptError(f"'multipleOf' {float(step):g} has too many remainders: use a rounder number")
    multiples = Table(tuple(_remainders(unit, places)))
    if not zeros:
        return multiples
    return either([literal("0"), concatenation([multiples, literal("0" * zeros)])])


def _remainders(unit: int, places: int) -> list[tuple[tuple[tuple[str, int], ...], bool]]:
    """Return the states of an automaton that reads a decimal number and knows its remainder.

    State 0 is the start, state 1 follows a minus sign. There is a state for each remainder, in units of the last of
    `places` digits after the point, and for each number of digits read after the point; one more has read the point.
    """

    def state(remainder: int, place: int, *, is_pointed: bool = False) -> int:
        return 2 + (place + (1 if is_pointed or place else 0)) * unit + remainder

    def reading(remainder: int, next_place: int) -> tuple[tuple[str, int], ...]:
        return tuple((str(digit), state((10 * remainder + digit) % unit, next_place)) for digit in range(10))

    begun = reading(0, 0)
    rows: list[tuple[tuple[tuple[str, int], ...], bool]] = [((("-", 1), *begun), False), (begun, False)]
    for remainder in range(unit):
        point = ((".", state(remainder, 0, is_pointed=True)),) if places else ()
        rows.append(((*point, *reading(remainder, 0)), remainder * 10**places % unit == 0))
    if places:
        rows.extend((reading(remainder, 1), False) for remainder in range(unit))
    for place in range(1, places + 1):
        for remainder in range(unit):
            further = reading(remainder, place + 1) if place < places else ()
            rows.append((further, remainder * 10 ** (places - place) % unit == 0))
    return rows
