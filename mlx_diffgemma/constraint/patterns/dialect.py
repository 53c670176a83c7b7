r"""The two syntaxes of regular expressions: `regex=` reads Python's, the `pattern` of a JSON schema ECMA-262's.

Some sets of characters are not the same for every program that will check an answer: `\d` is 0 to 9 in JavaScript and
the digits of every script in Python. Such a set has two bounds. What is written uses the characters that are members
for every reader; what is forbidden, as by `[^\d]` or `(?!.*\d)`, covers those that are members for any reader.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from mlx_diffgemma.constraint.characters import (
    ANY_CHARACTER,
    ASCII_LETTERS,
    DIGITS,
    Characters,
    characters_like,
    characters_of_category,
    letters_that,
)


@dataclass(frozen=True)
class Bounds:
    """A set of characters, as the smallest and the largest that any reader of a pattern takes it for."""

    sure: Characters
    """members for every reader"""
    possible: Characters
    """members for at least one reader"""

    @classmethod
    def exactly(cls, characters: Characters) -> Bounds:
        """Return a set that is the same for every reader."""
        return cls(characters, characters)

    def __or__(self, other: Bounds) -> Bounds:
        return Bounds(self.sure | other.sure, self.possible | other.possible)

    def __and__(self, other: Bounds) -> Bounds:
        return ~(~self | ~other)

    def __sub__(self, other: Bounds) -> Bounds:
        return self & ~other

    def __xor__(self, other: Bounds) -> Bounds:
        return (self - other) | (other - self)

    def __invert__(self) -> Bounds:
        return Bounds(~self.possible, ~self.sure)


@dataclass(frozen=True)
class Dialect:
    """A syntax of regular expressions. Its sets are functions because building those of Unicode takes a while."""

    name: str
    digits: Callable[[], Bounds]
    word: Callable[[], Bounds]
    space: Callable[[], Bounds]
    line_ends: Bounds
    """what a dot does not match"""
    control_escapes: str
    """letters that write a control character after a backslash"""
    has_set_operations: bool
    r"""whether a class may contain classes, [:alpha:], && and --"""
    has_open_minimum: bool
    """whether {,3} repeats from 0 times"""
    is_lenient: bool
    r"""whether an escape without a meaning is its character, and [] and [\w-.] are classes: annex B of ECMA-262"""


_UNDERSCORE = Characters.among("_")
_ASCII_WORD = ASCII_LETTERS | DIGITS | _UNDERSCORE
_ASCII_SPACE = Characters.among(" \t\n\r\f\v")
_BYTE_ORDER_MARK = Characters.among("\ufeff")
"""a space in ECMA-262 alone"""
_INFORMATION_SEPARATORS = Characters.among("\x1c\x1d\x1e\x1f")
"""spaces in Python alone"""


@lru_cache
def _python_digits() -> Bounds:
    return Bounds(DIGITS, characters_like(r"\d"))


@lru_cache
def _python_word() -> Bounds:
    return Bounds.exactly(characters_like(r"\w"))


@lru_cache
def _python_space() -> Bounds:
    return Bounds.exactly(characters_like(r"\s"))


@lru_cache
def _ecma_word() -> Bounds:
    return Bounds(_ASCII_WORD, _python_word().possible)


@lru_cache
def _ecma_space() -> Bounds:
    return Bounds(_ASCII_SPACE, _python_space().possible | _BYTE_ORDER_MARK)


PYTHON = Dialect(
    name="regex",
    digits=_python_digits,
    word=_python_word,
    space=_python_space,
    line_ends=Bounds.exactly(Characters.among("\n")),
    control_escapes="abfnrtv",
    has_set_operations=True,
    has_open_minimum=True,
    is_lenient=False,
)
r"""Python's `re`, and what the Rust crate `regex` has beside it. `\d` is 0 to 9; `\D` is no digit of any script."""

ECMA = Dialect(
    name="pattern",
    digits=_python_digits,
    word=_ecma_word,
    space=_ecma_space,
    line_ends=Bounds(Characters.among("\n"), Characters.among("\n\r\u2028\u2029")),
    control_escapes="fnrtv",
    has_set_operations=False,
    has_open_minimum=False,
    is_lenient=True,
)
"""ECMA-262 with annex B, so that what is written also matches for Python's `re`, which `jsonschema` checks with."""

ASCII_SETS = {"d": DIGITS, "w": _ASCII_WORD, "s": _ASCII_SPACE}
"""What the flag `a` makes of the escapes."""

POSIX_CLASSES = {
    "alnum": ASCII_LETTERS | DIGITS,
    "alpha": ASCII_LETTERS,
    "ascii": Characters.of([(0, 0x7F)]),
    "blank": Characters.among(" \t"),
    "cntrl": Characters.of([(0, 0x1F), (0x7F, 0x7F)]),
    "digit": DIGITS,
    "graph": Characters.of([(0x21, 0x7E)]),
    "lower": Characters.of([(ord("a"), ord("z"))]),
    "print": Characters.of([(0x20, 0x7E)]),
    "punct": Characters.of([(0x21, 0x2F), (0x3A, 0x40), (0x5B, 0x60), (0x7B, 0x7E)]),
    "space": _ASCII_SPACE,
    "upper": Characters.of([(ord("A"), ord("Z"))]),
    "word": _ASCII_WORD,
    "xdigit": DIGITS | Characters.among("abcdefABCDEF"),
}
"""The sets that [[:alpha:]] and its like name."""

_CATEGORY_NAMES = {
    "letter": "L",
    "uppercaseletter": "Lu",
    "lowercaseletter": "Ll",
    "titlecaseletter": "Lt",
    "modifierletter": "Lm",
    "otherletter": "Lo",
    "mark": "M",
    "nonspacingmark": "Mn",
    "spacingmark": "Mc",
    "enclosingmark": "Me",
    "number": "N",
    "decimalnumber": "Nd",
    "digit": "Nd",
    "letternumber": "Nl",
    "othernumber": "No",
    "punctuation": "P",
    "punct": "P",
    "connectorpunctuation": "Pc",
    "dashpunctuation": "Pd",
    "openpunctuation": "Ps",
    "closepunctuation": "Pe",
    "initialpunctuation": "Pi",
    "finalpunctuation": "Pf",
    "otherpunctuation": "Po",
    "symbol": "S",
    "mathsymbol": "Sm",
    "currencysymbol": "Sc",
    "modifiersymbol": "Sk",
    "othersymbol": "So",
    "separator": "Z",
    "spaceseparator": "Zs",
    "lineseparator": "Zl",
    "paragraphseparator": "Zp",
    "other": "C",
    "control": "Cc",
    "format": "Cf",
    "privateuse": "Co",
    "unassigned": "Cn",
}


def _category(name: str) -> Characters:
    """Return the characters of a category that exists."""
    return characters_of_category(name) or Characters(())


def _alphabetic() -> Bounds:
    sure = _category("L") | _category("Nl")
    return Bounds(sure, sure | _category("M") | _category("So"))


_PROPERTIES: dict[str, Callable[[], Bounds]] = {
    "any": lambda: Bounds.exactly(ANY_CHARACTER),
    "ascii": lambda: Bounds.exactly(POSIX_CLASSES["ascii"]),
    "alphabetic": _alphabetic,
    "uppercase": lambda: Bounds.exactly(letters_that(str.isupper)),
    "lowercase": lambda: Bounds.exactly(letters_that(str.islower)),
    "whitespace": lambda: Bounds.exactly(characters_like(r"\s") - _INFORMATION_SEPARATORS),
    "casedletter": lambda: Bounds.exactly(_category("Lu") | _category("Ll") | _category("Lt")),
}
_SHORT_NAMES = {
    "alpha": "alphabetic",
    "upper": "uppercase",
    "lower": "lowercase",
    "space": "whitespace",
    "lc": "casedletter",
    "l&": "casedletter",
}


def unicode_property(name: str) -> Bounds | None:
    r"""Return the set of `\p{name}`: a general category, short or long, or one of a few properties; None if unknown."""
    short = name.removeprefix("gc=").removeprefix("General_Category=")
    plain = short.replace("_", "").replace(" ", "").replace("-", "").lower()
    if (long := _SHORT_NAMES.get(plain, plain)) in _PROPERTIES:
        return _PROPERTIES[long]()
    found = characters_of_category(_CATEGORY_NAMES.get(plain, short))
    return Bounds.exactly(found) if found else None
