"""Regular expressions for ranges of whole numbers, as JSON writes them."""

from __future__ import annotations


def integer_between(low: int | None, high: int | None) -> str:
    """Return a pattern of the integers from `low` to `high`, both included; None is no limit.

    The range must contain at least one integer.
    """
    parts: list[str] = []
    if low is None or low < 0:
        # The negative numbers, written as a minus sign and their absolute value.
        smallest = 1 if high is None or high >= 0 else -high
        parts.append(f"-(?:{_natural_between(smallest, None if low is None else -low)})")
    if high is None or high >= 0:
        parts.append(_natural_between(max(0, low or 0), high))
    return f"(?:{'|'.join(parts)})"


def _natural_between(low: int, high: int | None) -> str:
    """Return a pattern of the integers from `low`, which is not negative, to `high`."""
    if high is None:
        if low <= 1:
            return f"{'0|' if low == 0 else ''}[1-9][0-9]*"
        digits = len(str(low))
        return f"{_natural_between(low, 10**digits - 1)}|[1-9][0-9]{{{digits},}}"
    # One alternative per number of digits: 7 to 120 is 7 to 9, 10 to 99, 100 to 120.
    parts: list[str] = []
    while low <= high:
        digits = len(str(low))
        top = min(high, 10**digits - 1)
        parts.append(_same_length_between(str(low), str(top)))
        low = top + 1
    return "|".join(parts)


def _same_length_between(low: str, high: str) -> str:
    """Return a pattern of the numbers between two numbers of equally many digits.

    A common first digit is written once. Otherwise there are up to three alternatives: the first digit of `low` with a
    rest that is not below its rest, the digits between with any rest, the first digit of `high` with a rest that is not
    above its rest.
    """
    if not low:
        return ""
    if low[0] == high[0]:
        return low[0] + _group(_same_length_between(low[1:], high[1:]))
    rest = len(low) - 1
    first, last = int(low[0]), int(high[0])
    parts: list[str] = []
    if low[1:] != "0" * rest:
        parts.append(low[0] + _group(_same_length_between(low[1:], "9" * rest)))
        first += 1
    if high[1:] != "9" * rest:
        parts.append(high[0] + _group(_same_length_between("0" * rest, high[1:])))
        last -= 1
    if first <= last:
        parts.append(f"[{first}-{last}]" + ("[0-9]" * rest))
    return "|".join(parts)


def _group(pattern: str) -> str:
    return f"(?:{pattern})" if "|" in pattern else pattern
