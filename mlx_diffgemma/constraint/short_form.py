"""A JSON schema in a line: the names of an object's properties, each with its type.

    "name, age int, tags [str], size s|m|l, address {street, zip int}, email? email"

Properties are separated by commas, and all are required but those with a question mark. Without a type a property is a
text. A list is [type] or type[], an object has its properties in braces, and choices are texts with bars between them.
No other properties are allowed.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from mlx_diffgemma.errors import ConstraintError

NAMED_TYPES: dict[str, dict[str, Any]] = {
    "str": {"type": "string"},
    "int": {"type": "integer"},
    "float": {"type": "number"},
    "number": {"type": "number"},
    "bool": {"type": "boolean"},
    "date": {"type": "string", "format": "date"},
    "email": {"type": "string", "format": "email"},
    "uri": {"type": "string", "format": "uri"},
}
"""The types by name."""
_PLAIN = ("str", "int", "float", "number", "bool")
"""Types that are no choices: who writes int|str does not mean these two texts."""
_SYMBOL = re.compile(r"\s*(\[\]|[][{},|?:]|[^][{},|?:\s]+|$)")
"""A word, or a character that is no part of one."""
_SYMBOLS = frozenset(("[]", *"[]{},|?:"))
_END = ""
"""The symbol after the last."""
_MAX_LEVELS = 50
"""Lists and objects within each other."""


def schema_of(text: str) -> dict[str, Any]:
    """Return the schema of a short form. Raises ConstraintError that says which part is wrong, without the text."""
    reader = _Reader(_symbols(text))
    schema = reader.object(0)
    if reader.symbol != _END:
        raise ConstraintError(f"there is a {reader.symbol!r} {reader.before}")
    return schema


def _symbols(text: str) -> list[str]:
    """Split a text into words and symbols, the last of which is the end."""
    return [match[1] for match in _SYMBOL.finditer(text)]


class _Property(NamedTuple):
    """One property of an object."""

    name: str
    is_required: bool
    schema: dict[str, Any]


class _Reader:
    """Reads symbols from the first to the last."""

    def __init__(self, symbols: list[str]) -> None:
        self._symbols = symbols
        self._place = 0

    @property
    def symbol(self) -> str:
        """The symbol to read next."""
        return self._symbols[self._place]

    @property
    def before(self) -> str:
        """Where that symbol is, in words."""
        return f"after {self._symbols[self._place - 1]!r}" if self._place else "at the beginning"

    def take(self, *symbols: str) -> bool:
        """Pass over the next symbol if it is one of these."""
        found = self.symbol in symbols
        self._place += found
        return found

    def word(self) -> str | None:
        """Pass over the next word and return it; None if a symbol is next."""
        if self.symbol in _SYMBOLS or self.symbol == _END:
            return None
        self._place += 1
        return self._symbols[self._place - 1]

    def object(self, level: int) -> dict[str, Any]:
        """Read properties, up to what cannot be one."""
        if level > _MAX_LEVELS:
            raise ConstraintError(f"there are more than {_MAX_LEVELS} levels: give a schema with fewer")
        properties: dict[str, _Property] = {}
        while True:
            found = self._property(level)
            if found.name in properties:
                raise ConstraintError(f"there are two properties {found.name!r}")
            properties[found.name] = found
            if not self.take(","):
                break
        return {
            "type": "object",
            "properties": {name: each.schema for name, each in properties.items()},
            "required": [name for name, each in properties.items() if each.is_required],
            "additionalProperties": False,
        }

    def _property(self, level: int) -> _Property:
        name = self.word()
        if name is None:
            raise ConstraintError(f"the name of a property is missing {self.before}")
        is_required = not self.take("?")
        self.take(":")
        has_type = self.symbol not in (",", "}", _END)
        return _Property(name, is_required, self._type(name, level) if has_type else NAMED_TYPES["str"])

    def _type(self, name: str, level: int) -> dict[str, Any]:
        """Read the type of a property."""
        if level > _MAX_LEVELS:
            raise ConstraintError(f"there are more than {_MAX_LEVELS} levels: give a schema with fewer")
        if self.take("["):
            schema = {"type": "array", "items": self._type(name, level + 1)}
            self._close("]", name)
        elif self.take("{"):
            schema = self.object(level + 1)
            self._close("}", name)
        else:
            schema = self._named(name)
        while self.take("[]"):
            schema = {"type": "array", "items": schema}
        return schema

    def _close(self, bracket: str, name: str) -> None:
        if not self.take(bracket):
            raise ConstraintError(f"a {bracket!r} is missing in the type of {name!r}, {self.before}")

    def _named(self, name: str) -> dict[str, Any]:
        """Read the name of a type, or choices."""
        words = [self.word()]
        while self.take("|"):
            words.append(self.word())
        choices = [word for word in words if word is not None]
        if len(choices) < len(words):
            what = "a type" if len(words) == 1 else "a choice"
            raise ConstraintError(f"{what} of {name!r} is missing {self.before}")
        if len(choices) == 1:
            if choices[0] not in NAMED_TYPES:
                known = ", ".join(NAMED_TYPES)
                raise ConstraintError(f"{choices[0]!r}, the type of {name!r}, is none of {known}, [str], a|b, {{..}}")
            return NAMED_TYPES[choices[0]]
        if twice := next((word for word in choices if choices.count(word) > 1), None):
            raise ConstraintError(f"the choice {twice!r} of {name!r} is there twice")
        if plain := next((word for word in choices if word in _PLAIN), None):
            raise ConstraintError(f"the choices of {name!r} must be texts, and {plain} is a type: give a whole schema")
        return {"enum": choices}
