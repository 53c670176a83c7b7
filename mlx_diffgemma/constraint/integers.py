"""Patterns of the whole numbers between two bounds, as JSON writes them."""

from __future__ import annotations


def integer_between(low: int | None, high: int | None) -> str:
    """A pattern of the integers from `low` to `high`, both included; None is no bound. At least one lies there."""
    parts: list[str] = []
    if low is None or low < 0:
        # Of the negative ones the sizes lie between these.
        least = 1 if high is None or high >= 0 else -high
        parts.append(f"-(?:{_natural(least, None if low is None else -low)})")
    if high is None or high >= 0:
        parts.append(_natural(max(0, low or 0), high))
    return f"(?:{'|'.join(parts)})"


def _natural(low: int, high: int | None) -> str:
    """The same of numbers from 0 on."""
    if high is None:
        if low <= 1:
            return f"{'0|' if low == 0 else ''}[1-9][0-9]*"
        digits = len(str(low))
        return f"{_natural(low, 10**digits - 1)}|[1-9][0-9]{{{digits},}}"
    parts: list[str] = []
    while low <= high:
        digits = len(str(low))
        top = min(high, 10**digits - 1)
        parts.append(_equally_long(str(low), str(top)))
        low = top + 1
    return "|".join(parts)


def _equally_long(low: str, high: str) -> str:
    """The numbers between two of equally many digits."""
    if not low:
        return ""
    if low[0] == high[0]:
        return low[0] + _group(_equally_long(low[1:], high[1:]))
    rest = len(low) - 1
    first, last = int(low[0]), int(high[0])
    parts: list[str] = []
    if low[1:] != "0" * rest:
        parts.append(low[0] + _group(_equally_long(low[1:], "9" * rest)))
        first += 1
    if high[1:] != "9" * rest:
        parts.append(high[0] + _group(_equally_long("0" * rest, high[1:])))
        last -= 1
    if first <= last:
        parts.append(f"[{first}-{last}]" + ("[0-9]" * rest))
    return "|".join(parts)


def _group(pattern: str) -> str:
    return f"(?:{pattern})" if "|" in pattern else pattern
