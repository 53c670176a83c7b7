"""Texts and integers that are certainly different, for sets and for properties with names of any kind.

No automaton remembers the texts that it has read. So each is given another first character, in alphabetical order.
"""

from __future__ import annotations

from dataclasses import replace
from string import ascii_lowercase, digits

from mlx_diffgemma.constraint.expression import ANY_TEXT, concatenation, one_of
from mlx_diffgemma.constraint.schema.shapes import StringShape

IN_ORDER = "in alphabetical order, each with another first character"
FIRST_DIGITS = tuple(concatenation([one_of(digit), ANY_TEXT]) for digit in "123456789")


def with_first_characters(strings: StringShape) -> list[StringShape]:
    """Return the strings that begin with each digit and each letter; capital and small letters count as the same."""
    groups = [*digits, *(letter.upper() + letter for letter in ascii_lowercase)]
    beginnings = [concatenation([one_of(group), ANY_TEXT]) for group in groups]
    return [replace(strings, wanted=(*strings.wanted, beginning)) for beginning in beginnings]
