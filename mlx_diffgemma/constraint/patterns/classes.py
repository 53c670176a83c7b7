r"""The parts of a pattern that match one character: escapes such as `\d`, and classes such as `[a-z]`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from operator import and_, sub, xor

from mlx_diffgemma.constraint.characters import LAST_CHARACTER, Characters, with_both_cases
from mlx_diffgemma.constraint.patterns.dialect import ASCII_SETS, POSIX_CLASSES, Bounds, Dialect, unicode_property
from mlx_diffgemma.errors import ConstraintError

_CODE_POINT = re.compile(r"[xuU]\{([0-9A-Fa-f]{1,8})\}|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})")
_LOW_SURROGATE = re.compile(r"\\u([dD][c-fC-F][0-9A-Fa-f]{2})")
_OCTAL = re.compile(r"[0-3][0-7]{2}|[0-7]{1,2}")
_NAMED = re.compile(r"N\{([^}]*)\}")
_PROPERTY = re.compile(r"[pP](?:\{(\^?)([^}]*)\}|(\w))")
_CONTROL = re.compile(r"c([A-Za-z])")
_CONTROLS = dict(zip("abfnrtv", "\a\b\f\n\r\t\v", strict=True))
_POSIX = re.compile(r"\[:(\^?)(\w+):\]")
_BRACKET = re.compile(r"\\.|\[\^?\]?|\]", re.DOTALL)
_NESTED_CLASS = re.compile(r"\[\^?\]?(?:\\.|[^\\\]])*\](?=[\[\]]|&&|--|~~)", re.DOTALL)
"""A class inside another one that Python would read as a class and text after it: see `_is_nested`."""
_OPERATIONS: dict[str, Callable[[Bounds, Bounds], Bounds]] = {"&&": and_, "--": sub, "~~": xor}
_MOST_NESTED_CLASSES = 40
_MOST_BRACKETS = 100_000
"""how many brackets are looked at to find out which classes are nested"""


def on_one_line(text: str) -> str:
    """Return a part of a pattern for a message of one line."""
    return text if text.isprintable() else repr(text)[1:-1]


def pattern_fault(pattern: str, dialect: Dialect, fault: str) -> ConstraintError:
    """Return the error for a pattern, which is cut at 80 characters."""
    quoted = repr(pattern) if len(pattern) <= 80 else f"{pattern[:77]!r}..."
    return ConstraintError(f"{dialect.name} {quoted}: {fault}")


@dataclass
class PatternReader:
    """A pattern, how far it is read, and what applies at that position."""

    pattern: str
    dialect: Dialect
    position: int = 0
    flags: frozenset[str] = frozenset()
    brackets: int = 0
    """how many brackets were looked at to find out which classes are nested"""
    is_forbidden: bool = False
    """whether the text at this position is what a negative look-around forbids"""

    def next(self, count: int = 1) -> str:
        """Return the next characters, fewer at the end, and do not read them."""
        return self.pattern[self.position : self.position + count]

    def take(self, text: str) -> bool:
        """Read `text` if it comes next, and return whether it did."""
        found = self.pattern.startswith(text, self.position)
        self.position += len(text) * found
        return found

    def match(self, expression: re.Pattern[str]) -> re.Match[str] | None:
        """Read what matches an expression at this position."""
        found = expression.match(self.pattern, self.position)
        self.position = found.end() if found else self.position
        return found

    def fault(self, message: str) -> ConstraintError:
        """Return the error with a message."""
        return pattern_fault(self.pattern, self.dialect, message)

    def members(self, bounds: Bounds) -> Characters:
        """Return the characters that a set stands for at this position."""
        return bounds.possible if self.is_forbidden else bounds.sure


@lru_cache(maxsize=4096)
def _all_cases(characters: Characters) -> Characters:
    return with_both_cases(with_both_cases(characters))


def without_case(reader: PatternReader, bounds: Bounds) -> Bounds:
    """Return a set with capital and small letters alike if the flag `i` is on."""
    return Bounds(_all_cases(bounds.sure), _all_cases(bounds.possible)) if "i" in reader.flags else bounds


def read_escape(reader: PatternReader) -> str | Bounds:
    """Read an escape that begins at the position; return its character, or its set.

    Raises ConstraintError for an escape that is unknown or not complete.
    """
    start = reader.position
    reader.position += 1
    letter = reader.next()
    if not letter:
        raise reader.fault(f"a backslash ends the pattern at position {start}: write \\\\ for the character")
    if found := reader.match(_CODE_POINT):
        return _code_point(reader, int(next(each for each in found.groups() if each), 16), start)
    if found := reader.match(_OCTAL):
        return chr(int(found[0], 8))
    if found := reader.match(_PROPERTY):
        return _property(reader, found)
    if reader.dialect.is_lenient and (found := reader.match(_CONTROL)):
        return chr(ord(found[1]) % 32)
    if not reader.dialect.is_lenient and (found := reader.match(_NAMED)):
        return _named(reader, found)
    return _letter(reader, start)


def _property(reader: PatternReader, found: re.Match[str]) -> Bounds:
    members = unicode_property(found[2] or found[3] or "")
    if members is None:
        raise reader.fault(
            f"\\{on_one_line(found[0])} at position {found.start() - 1} names no general category: "
            f"write its characters as a class"
        )
    members = without_case(reader, members)
    return ~members if found[0].startswith("P") != bool(found[1]) else members


def _named(reader: PatternReader, found: re.Match[str]) -> str:
    try:
        return unicodedata.lookup(found[1])
    except KeyError:
        raise reader.fault(f"no character is called {found[1]!r} at position {found.start() - 1}") from None


def _letter(reader: PatternReader, start: int) -> str | Bounds:
    """Read the letter of an escape: its meaning is a control character, a set, or none."""
    letter = reader.next()
    reader.position += 1
    if letter in reader.dialect.control_escapes:
        return _CONTROLS[letter]
    if letter in "dDwWsS":
        return escaped_set(reader, letter)
    if letter.isascii() and letter.isalnum() and not reader.dialect.is_lenient:
        raise reader.fault(f"the escape \\{letter} at position {start} has no meaning")
    return letter


def escaped_set(reader: PatternReader, letter: str) -> Bounds:
    r"""Return the set of `\d`, `\w`, `\s`, or without its members that of `\D`, `\W`, `\S`."""
    return _escaped_set(reader.dialect, letter, "a" in reader.flags)


@lru_cache
def _escaped_set(dialect: Dialect, letter: str, is_ascii: bool) -> Bounds:
    kind = letter.lower()
    if is_ascii:
        members = Bounds.exactly(ASCII_SETS[kind])
    else:
        members = {"d": dialect.digits, "w": dialect.word, "s": dialect.space}[kind]()
    return members if letter == kind else ~members


def _code_point(reader: PatternReader, point: int, start: int) -> str:
    """Return the character of a code point; two escapes of surrogates are one character."""
    if 0xD800 <= point <= 0xDBFF and (low := reader.match(_LOW_SURROGATE)):
        return chr(0x10000 + ((point - 0xD800) << 10) + int(low[1], 16) - 0xDC00)
    if point > LAST_CHARACTER:
        raise reader.fault(f"the escape at position {start} is above the last character, \\U0010FFFF")
    return chr(point)


def read_class(reader: PatternReader, depth: int = 0) -> Bounds:
    """Read a class that begins at the position, and return its characters.

    Raises ConstraintError for a class that is not closed and for a range that runs backwards.
    """
    if depth > _MOST_NESTED_CLASSES:
        raise reader.fault(f"nested too deeply: {_MOST_NESTED_CLASSES} classes in one another are the limit")
    start = reader.position
    reader.position += 1
    is_negated = reader.take("^")
    members = _read_union(reader, start, depth, is_first=True)
    while not reader.take("]"):
        operator = reader.next(2)
        reader.position += 2
        others = _read_union(reader, start, depth, is_first=False)
        members = _OPERATIONS[operator](members, others)
    return ~members if is_negated else members


def _read_union(reader: PatternReader, start: int, depth: int, is_first: bool) -> Bounds:
    """Read members of a class up to its end or to an operator."""
    sets: list[Bounds] = []
    points: list[tuple[int, int]] = []
    may_nest, is_empty = True, True
    while True:
        following = reader.next()
        if not following:
            raise reader.fault(f"a class is not closed, add ] for the [ at position {start}")
        if following == "]" and (not is_empty or not is_first or reader.dialect.is_lenient):
            break
        if not is_empty and _is_operator(reader):
            break
        nested = _read_nested(reader, depth, may_nest, is_empty and is_first)
        if nested is not None:
            sets.append(nested)
        else:
            may_nest = False
            single = _read_members(reader)
            if isinstance(single, tuple):
                points.append(single)
            else:
                sets.append(single)
        is_empty = False
    union = without_case(reader, Bounds.exactly(Characters.of(points)))
    for each in sets:
        union |= each
    return union


def _is_operator(reader: PatternReader) -> bool:
    return reader.dialect.has_set_operations and reader.next(2) in _OPERATIONS and reader.next(3)[2:] not in ("", "]")


def _read_nested(reader: PatternReader, depth: int, may_nest: bool, is_at_start: bool) -> Bounds | None:
    """Read a class inside a class; None where [ is a character, as it is for Python."""
    if not reader.dialect.has_set_operations:
        return None
    if found := reader.match(_POSIX):
        if found[2] not in POSIX_CLASSES:
            raise reader.fault(f"the class {found[0]} at position {found.start()} is unknown")
        members = without_case(reader, Bounds.exactly(POSIX_CLASSES[found[2]]))
        return ~members if found[1] else members
    if reader.next() == "[" and may_nest and (not is_at_start or _is_nested(reader)):
        return read_class(reader, depth + 1)
    return None


def _is_nested(reader: PatternReader) -> bool:
    """Whether the [ at the beginning of a class opens another one.

    Python says that it does not, so it must be of use to nothing else: `[[(][a-z]` are two classes.
    """
    if not _NESTED_CLASS.match(reader.pattern, reader.position):
        return False
    open_classes = 1
    for found in _BRACKET.finditer(reader.pattern, reader.position):
        reader.brackets += 1
        if reader.brackets > _MOST_BRACKETS:
            raise reader.fault(f"too many [ in classes: write \\[ for the character at position {reader.position}")
        open_classes += 1 if found[0].startswith("[") else -1 if found[0] == "]" else 0
        if open_classes == 0:
            return True
    return False


def _read_members(reader: PatternReader) -> tuple[int, int] | Bounds:
    """Read a character, a range or an escaped set of a class."""
    start = reader.position
    first = _read_member(reader)
    if reader.next() != "-" or reader.next(2)[1:] in ("", "]"):
        return first if isinstance(first, Bounds) else (ord(first), ord(first))
    # In [a--b] the range would run backwards, so this is a difference; [+--] is a range.
    if reader.dialect.has_set_operations and reader.next(2) == "--" and (isinstance(first, Bounds) or first > "-"):
        return first if isinstance(first, Bounds) else (ord(first), ord(first))
    reader.position += 1
    last = _read_member(reader)
    written = on_one_line(reader.pattern[start : reader.position])
    if isinstance(first, Bounds) or isinstance(last, Bounds):
        if not reader.dialect.is_lenient:
            raise reader.fault(f"{written} at position {start} is no range: write - at the end of the class")
        ends = [each if isinstance(each, Bounds) else Bounds.exactly(Characters.among(each)) for each in (first, last)]
        return ends[0] | ends[1] | Bounds.exactly(Characters.among("-"))
    if first > last:
        raise reader.fault(f"the range {written} at position {start} runs backwards")
    return ord(first), ord(last)


def _read_member(reader: PatternReader) -> str | Bounds:
    if reader.next(2) == r"\b":
        reader.position += 2
        return "\b"
    if reader.next() == "\\":
        return read_escape(reader)
    reader.position += 1
    return reader.pattern[reader.position - 1]
