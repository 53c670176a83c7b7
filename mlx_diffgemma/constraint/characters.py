"""Sets of characters, as ranges of code points, and the byte sequences of UTF-8 that write them."""

from __future__ import annotations

import re
import sys
import unicodedata
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import TypeAlias

CodeRange: TypeAlias = tuple[int, int]
"""The first and the last member of a range."""
LAST_CHARACTER = sys.maxunicode
_SURROGATES = (0xD800, 0xDFFF)
_LETTER = r"[^\W\d_]"
_LAST_OF_LENGTH = (0x7F, 0x7FF, 0xFFFF, LAST_CHARACTER)
"""The last code points that UTF-8 writes in one, two, three and four bytes."""


@dataclass(frozen=True)
class Characters:
    """A set of characters; surrogates, which no text contains, are never members."""

    ranges: tuple[CodeRange, ...]
    """ascending, and neither overlapping nor adjacent"""

    @classmethod
    def of(cls, ranges: Iterable[CodeRange]) -> Characters:
        """Return the set of all characters in `ranges`, which may overlap."""
        joined: list[CodeRange] = []
        for first, last in sorted(_without_surrogates(ranges)):
            if joined and first <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
            else:
                joined.append((first, last))
        return cls(tuple(joined))

    @classmethod
    def among(cls, text: str) -> Characters:
        """Return the set of the characters of a text."""
        return cls.of((ord(character), ord(character)) for character in text)

    def __or__(self, other: Characters) -> Characters:
        return Characters.of((*self.ranges, *other.ranges))

    def __and__(self, other: Characters) -> Characters:
        return ~(~self | ~other)

    def __sub__(self, other: Characters) -> Characters:
        return self & ~other

    def __invert__(self) -> Characters:
        return Characters.of(_gaps(self.ranges))

    def __contains__(self, character: str) -> bool:
        return any(first <= ord(character) <= last for first, last in self.ranges)

    def __bool__(self) -> bool:
        return bool(self.ranges)

    def __iter__(self) -> Iterator[str]:
        return (chr(point) for first, last in self.ranges for point in range(first, last + 1))

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges)


def _without_surrogates(ranges: Iterable[CodeRange]) -> Iterator[CodeRange]:
    low, high = _SURROGATES
    for first, last in ranges:
        if first < low:
            yield first, min(last, low - 1)
        if last > high:
            yield max(first, high + 1), last


def _gaps(ranges: Iterable[CodeRange]) -> Iterator[CodeRange]:
    """Yield what lies between, before and after the ranges, which are ascending."""
    free = 0
    for first, last in ranges:
        if first > free:
            yield free, first - 1
        free = last + 1
    if free <= LAST_CHARACTER:
        yield free, LAST_CHARACTER


NO_CHARACTER = Characters(())
ANY_CHARACTER = ~NO_CHARACTER
DIGITS = Characters.of([(ord("0"), ord("9"))])
ASCII_LETTERS = Characters.of([(ord("a"), ord("z")), (ord("A"), ord("Z"))])


@lru_cache
def _all_characters() -> str:
    """All code points in order; surrogates, of which no set has any, are among them so that places are code points."""
    return array("I", range(LAST_CHARACTER + 1)).tobytes().decode(f"utf-32-{sys.byteorder[0]}e", "surrogatepass")


@lru_cache
def characters_like(pattern: str) -> Characters:
    r"""Return the set of all characters that a pattern of Python's `re` matches, which matches single ones: r"\w"."""
    runs = re.finditer(f"(?:{pattern})+", _all_characters())
    return Characters.of((run.start(), run.end() - 1) for run in runs)


@lru_cache
def letters_that(are: Callable[[str], bool]) -> Characters:
    """Return the set of all letters for which a function of one character says yes: str.isupper."""
    return Characters.of((ord(each), ord(each)) for each in characters_like(_LETTER) if are(each))


@lru_cache
def characters_of_category(name: str) -> Characters | None:
    """Return the characters of a general category of Unicode, "Lu", or of a group of them, "L"; None if unknown."""
    points = [point for point in range(LAST_CHARACTER + 1) if unicodedata.category(chr(point)).startswith(name)]
    return Characters.of((point, point) for point in points) if points and len(name) <= 2 else None


def with_both_cases(characters: Characters) -> Characters:
    """Return a set with the capital and small forms of all its characters."""
    ranges = list(characters.ranges)
    for lower, upper in _case_pairs():
        if any(first <= lower <= last for first, last in characters.ranges):
            ranges.append((upper, upper))
        if any(first <= upper <= last for first, last in characters.ranges):
            ranges.append((lower, lower))
    return Characters.of(ranges)


@lru_cache
def _case_pairs() -> tuple[CodeRange, ...]:
    """All pairs of a small letter and its capital, where each is one character."""
    pairs: list[CodeRange] = []
    for point in (ord(letter) for letter in characters_like(_LETTER)):
        upper = chr(point).upper()
        if len(upper) == 1 and ord(upper) != point:
            pairs.append((point, ord(upper)))
    return tuple(pairs)


AFTER = -1
"""Where a text goes on after the last byte of a character."""
ByteSteps: TypeAlias = tuple[tuple[tuple[int, int, int], ...], ...]
"""States that read the bytes of a character, each after those that it leads to: ranges of a byte, ascending and
disjoint, each with the number of the state after it or AFTER. The last state is the first that reads."""


@lru_cache(maxsize=512)
def byte_steps(characters: Characters) -> ByteSteps:
    """Return the states that read the UTF-8 bytes of a set of characters; there are none for the empty set."""
    numbers: dict[tuple[tuple[int, int, int], ...], int] = {}
    if characters:
        _number([each for first, last in characters.ranges for each in _byte_ranges(first, last)], numbers)
    return tuple(numbers)


def _number(sequences: Iterable[tuple[CodeRange, ...]], numbers: dict[tuple[tuple[int, int, int], ...], int]) -> int:
    """Return the number of the state that reads sequences of byte ranges, which are in ascending order."""
    edges: list[tuple[int, int, int]] = []
    for (first, last), group in groupby(sequences, key=lambda each: each[0]):
        rests = [each[1:] for each in group]
        edges.append((first, last, _number(rests, numbers) if rests[0] else AFTER))
    return numbers.setdefault(tuple(edges), len(numbers))


def _byte_ranges(first: int, last: int) -> Iterator[tuple[CodeRange, ...]]:
    """Yield sequences of byte ranges that together write exactly the characters from `first` to `last`."""
    for end in _LAST_OF_LENGTH:
        if first <= end < last:
            yield from _byte_ranges(first, end)
            first = end + 1
    low, high = chr(first).encode(), chr(last).encode()
    # Where the last n bytes of a range do not run through all their values, it is cut in two.
    for count in range(1, len(low)):
        ones = (1 << 6 * count) - 1
        if first & ~ones != last & ~ones:
            if first & ones:
                yield from _byte_ranges(first, first | ones)
                yield from _byte_ranges((first | ones) + 1, last)
                return
            if last & ones != ones:
                yield from _byte_ranges(first, (last & ~ones) - 1)
                yield from _byte_ranges(last & ~ones, last)
                return
    yield tuple(zip(low, high, strict=True))
