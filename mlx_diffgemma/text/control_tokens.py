"""Control tokens spelled in a text: found where a template writes them, kept from a user's words.

A template's control tokens and a user's words become one text, in which nothing says who wrote what. So the words are
quoted: each character that occurs in a control token is replaced by a surrogate, which no text in Unicode contains.
Templates trim, test, cut and join quoted words as they do others, and a control token in the text that they return can
only be their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from itertools import pairwise

_SURROGATES = range(0xD800, 0xE000)
"""More than the control tokens of a vocabulary have different characters."""


class ControlTokens:
    """The control tokens that a tokenizer reads in a text."""

    def __init__(self, ids: Mapping[str, int]) -> None:
        """ids: the id of each control token by its spelling."""
        self._ids = ids
        self._lengths = sorted({len(piece) for piece in ids}, reverse=True)
        first = "".join(sorted({piece[0] for piece in ids}))
        self._first = re.compile(f"[{re.escape(first)}]" if first else "(?!)")
        # Whitespace stays, so that quoted text can be trimmed.
        characters = sorted({ord(character) for piece in ids for character in piece if not character.isspace()})
        self._quotes = dict(zip(characters, _SURROGATES, strict=False))
        self._unquotes = {quote: character for character, quote in self._quotes.items()}

    def spelled_in(self, text: str) -> bool:
        """Whether a text spells a control token."""
        return any(True for _ in self._occurrences(text))

    def split(self, text: str) -> Iterator[str | int]:
        """Yield the ids of the control tokens in a text and the texts between them, in their order."""
        end = 0
        for start, stop in self._occurrences(text):
            if start < end:
                continue
            if start > end:
                yield text[end:start]
            yield self._ids[text[start:stop]]
            end = stop
        if end < len(text):
            yield text[end:]

    def broken(self, text: str) -> list[str]:
        """Return the parts of a text that is cut in every control token, after its first character."""
        cuts = [0, *(start + 1 for start, _ in self._occurrences(text)), len(text)]
        return [text[start:end] for start, end in pairwise(cuts) if start < end]

    def quoted(self, text: str) -> str:
        """Return a text with other characters in place of those that control tokens consist of."""
        return text.translate(self._quotes)

    def unquoted(self, text: str) -> str:
        """Return a text with the characters that were quoted."""
        return text.translate(self._unquotes)

    def _occurrences(self, text: str) -> Iterator[tuple[int, int]]:
        """Yield begin and end of the longest control token at each position; they may overlap."""
        for found in self._first.finditer(text):
            start = found.start()
            length = next((length for length in self._lengths if text[start : start + length] in self._ids), 0)
            if length:
                yield start, start + length
