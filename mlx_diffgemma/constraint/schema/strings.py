"""Texts as JSON writes them: an expression of characters becomes one of what stands between the quotation marks."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from functools import lru_cache

from mlx_diffgemma.constraint.characters import Characters
from mlx_diffgemma.constraint.expression import (
    ANY_CHARACTER_ONCE,
    Alternatives,
    Concatenation,
    Difference,
    Expression,
    Intersection,
    OneOf,
    OptionalList,
    Repetition,
    Table,
    Words,
    concatenation,
    either,
    literal,
    one_of,
    repetition,
)
from mlx_diffgemma.constraint.schema.emptiness import text_expression
from mlx_diffgemma.constraint.schema.shapes import Shape, StringShape

_ESCAPED = Characters.of([(0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F)])
"""The characters that a JSON string does not hold as they are; of DEL that is a choice."""
_SHORT_ESCAPES = Characters.among('"\\\b\f\n\r\t')
"""The characters whose escapes have two characters."""
_WIDE = 1000
"""Sets of more characters are written without the control characters that have no short escape."""
_QUOTE = literal('"')
JSON_CHARACTER = either([one_of(~_ESCAPED), concatenation([literal("\\"), one_of('"\\/bfnrt')])])
"""One character of a JSON string, escaped if need be."""


def string_expression(strings: StringShape) -> Expression:
    """Return an expression of the JSON texts of the strings that a shape allows."""
    if not strings.wanted and not strings.unwanted:
        return in_quotes(repetition(JSON_CHARACTER, strings.shortest, strings.longest, source=_lengths(strings)))
    text = text_expression(strings)
    if strings.shortest or strings.longest is not None:
        lengths = repetition(ANY_CHARACTER_ONCE, strings.shortest, strings.longest, source=_lengths(strings))
        text = Intersection(text, lengths)
    return in_quotes(written_in_json(text))


def with_strings_joined(shapes: Iterable[Shape]) -> list[Shape]:
    """Return shapes where strings of the same lengths are one shape: their lengths are then counted once."""
    by_lengths: dict[tuple[int, int | None], list[StringShape]] = {}
    others: list[Shape] = []
    for shape in shapes:
        if isinstance(shape, StringShape):
            by_lengths.setdefault((shape.shortest, shape.longest), []).append(shape)
        else:
            others.append(shape)
    return [*others, *map(_joined, by_lengths.values())]


def _joined(strings: list[StringShape]) -> StringShape:
    if len(strings) == 1:
        return strings[0]
    return replace(strings[0], wanted=(either(map(text_expression, strings)),), unwanted=())


def _lengths(strings: StringShape) -> str:
    return f"a text of up to {strings.longest} characters" if strings.longest is not None else ""


def in_quotes(inside: Expression) -> Expression:
    """Return an expression of a JSON string."""
    return concatenation([_QUOTE, inside, _QUOTE])


@lru_cache(maxsize=4096)
def written_in_json(expression: Expression) -> Expression:  # noqa: PLR0911 (one for each node)
    """Return an expression of texts as they are written inside a JSON string; every character has one form."""
    match expression:
        case OneOf(characters=characters):
            return _written_character(characters)
        case Words(texts=texts):
            return Words(tuple(json.dumps(text, ensure_ascii=False)[1:-1].replace("\x7f", r"\u007f") for text in texts))
        case Table():
            return expression
        case Concatenation(parts=parts):
            return concatenation([written_in_json(part) for part in parts])
        case Alternatives(branches=branches):
            return either([written_in_json(branch) for branch in branches])
        case Repetition(body=body, minimum=minimum, maximum=maximum, separator=separator, source=source):
            return repetition(written_in_json(body), minimum, maximum, written_in_json(separator), source)
        case OptionalList():
            raise TypeError("a text has no optional members")
        case Intersection(one=one, other=other):
            return Intersection(written_in_json(one), written_in_json(other))
        case Difference(one=one, other=other):
            return Difference(written_in_json(one), written_in_json(other))


def _written_character(characters: Characters) -> Expression:
    escaped = characters & (_SHORT_ESCAPES if len(characters) > _WIDE else _ESCAPED)
    branches: list[Expression] = []
    if plain := characters - _ESCAPED:
        branches.append(one_of(plain))
    if escaped:
        branches.append(Words(tuple(json.dumps(character)[1:-1] for character in escaped)))
    return either(branches)
