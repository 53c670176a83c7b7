"""Regular expressions, taken apart: their anchors are removed, and they are rewritten for text inside a JSON string.

The syntax is that of the Rust crate `regex`, which outlines-core compiles: Python's without look-around,
back-references and word boundaries. An answer always matches the whole pattern. So anchors at the two ends of a pattern
change nothing and are dropped, and an anchor anywhere else is refused. `\\d` means 0 to 9 here, not the digits of every
script.

An element is the smallest part of a pattern that must not be cut: an escape, a class, the head of a group, a
repetition, or one character.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from mlx_diffgemma.errors import ConstraintError

_ESCAPE = re.compile(r"\\(?:[pP]\{[^}]*\}|[xuU]\{[^}]*\}|[pP].|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|.)", re.DOTALL)
_CODE_POINT = re.compile(r"\\[xuU]\{?([0-9A-Fa-f]{1,8})\}?")
_GROUP = re.compile(r"\(\?(?:[a-zA-Z-]*[:)]|P?<\w+>)")
_CLASS = re.compile(r"\[\^?\]?")
_REPETITION = re.compile(r"\{(\d+)(?:,(\d*))?\}")
_START_ANCHORS, _END_ANCHORS = ("^", r"\A"), ("$", r"\z", r"\Z")
_WORD_BOUNDARIES = (r"\b", r"\B")
_META = frozenset("\\.+*?()|[]{}^$#&-~")
_OPERATORS = frozenset("*+?()|{}.^$")
_CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "a": "\a"}
_DIGIT = r"\d"
_SETS = frozenset("dDwWsS")
_MAX_REPETITIONS = 1000
"""The automaton has states for every single repetition, so many of them make it large."""
_UNESCAPED = r'[^"\\\x00-\x1f\x7f]'
"""A character that a JSON string holds as it is."""
_JSON_LINE_CHARACTER = rf'(?:{_UNESCAPED}|\\["\\/bft])'
"""One character of a JSON string, escaped if need be, but no line break: what a dot means."""
JSON_CHARACTER = rf'(?:{_UNESCAPED}|\\["\\/bfnrt])'
"""One character of a JSON string, escaped if need be."""


class _Alternative(NamedTuple):
    """One of the outermost alternatives of a pattern, without the anchors at its ends."""

    anchored_at_start: bool
    body: str
    anchored_at_end: bool


def literal_pattern(text: str) -> str:
    """Return a pattern that matches exactly `text`."""
    return "".join(f"\\{character}" if character in _META else character for character in text)


def shortened(pattern: str) -> str:
    """Return a pattern in quotes for a message, cut at 80 characters."""
    return repr(pattern) if len(pattern) <= 80 else f"{pattern[:77]!r}..."


def full_match_pattern(pattern: str) -> str:
    """Return a pattern without the anchors at the ends of its alternatives, to be matched against a whole text.

    Raises ConstraintError for an anchor elsewhere, a word boundary, a class that is not closed, and a repetition that
    is too large.
    """
    return "|".join(alternative.body for alternative in _alternatives(pattern))


def within_json(pattern: str) -> str:
    """Return a pattern of the JSON strings, written without their quotes, whose value contains a match of `pattern`.

    Raises ConstraintError as `full_match_pattern` does.
    """
    anything = f"{JSON_CHARACTER}*"
    alternatives = [
        f"{'' if each.anchored_at_start else anything}(?:{_json_escaped(each.body)})"
        f"{'' if each.anchored_at_end else anything}"
        for each in _alternatives(pattern)
    ]
    return f"(?:{'|'.join(alternatives)})"


def _elements(pattern: str) -> Iterator[str]:
    """Split a pattern into elements."""
    position = 0
    while position < len(pattern):
        match pattern[position]:
            case "\\":
                found = _ESCAPE.match(pattern, position)
            case "(":
                found = _GROUP.match(pattern, position)
            case "{":
                found = _REPETITION.match(pattern, position)
            case _:
                found = None
        unread = _class_end(pattern, position) if pattern[position] == "[" else position + 1
        end = found.end() if found else unread
        yield pattern[position:end]
        position = end


def _class_end(pattern: str, start: int) -> int:
    """Return where the class that begins at `start` ends; a class may contain classes."""
    depth, position = 0, start
    while position < len(pattern):
        opened = _CLASS.match(pattern, position)
        if opened:
            depth += 1
            position = opened.end()
        elif pattern[position] == "\\":
            position += 2
        else:
            depth -= pattern[position] == "]"
            position += 1
            if depth == 0:
                return position
    raise ConstraintError(f"regex {shortened(pattern)}: a class is not closed, add ]")


def _alternatives(pattern: str) -> list[_Alternative]:
    """Split a pattern at the `|` outside of groups, and take the anchors off the ends."""
    alternatives: list[list[str]] = [[]]
    depth = 0
    for element in _elements(pattern):
        repetition = _REPETITION.fullmatch(element)
        if repetition and max(int(number or 0) for number in repetition.groups()) > _MAX_REPETITIONS:
            raise ConstraintError(
                f"regex {shortened(pattern)}: {element} repeats more than {_MAX_REPETITIONS} times, use *"
            )
        depth += element.startswith("(") and not _is_flag(element)
        depth -= element == ")"
        if element == "|" and depth == 0:
            alternatives.append([])
        else:
            alternatives[-1].append(_with_ascii_digits(element))
    return [_without_anchors(elements, pattern) for elements in alternatives]


def _without_anchors(elements: list[str], pattern: str) -> _Alternative:
    """Take the anchors off one alternative. Raises ConstraintError for an anchor or a word boundary inside it."""
    flags = [element for element in elements[:1] if _is_flag(element)]
    rest = elements[len(flags) :]
    at_start = bool(rest) and rest[0] in _START_ANCHORS
    at_end = bool(rest) and rest[-1] in _END_ANCHORS
    rest = rest[int(at_start) : len(rest) - int(at_end)]
    for element in rest:
        if element in (*_START_ANCHORS, *_END_ANCHORS, *_WORD_BOUNDARIES):
            raise ConstraintError(f"regex {shortened(pattern)}: {element} inside the pattern is not supported")
    return _Alternative(at_start, "".join([*flags, *rest]), at_end)


def _is_flag(element: str) -> bool:
    """Whether an element sets flags for what follows, as (?i) does, and opens no group."""
    return element.startswith("(?") and element.endswith(")")


def _with_ascii_digits(element: str) -> str:
    r"""Write [0-9] for \d, also inside a class."""
    if element == _DIGIT:
        return "[0-9]"
    if element.startswith("["):
        return re.sub(r"\\.", lambda found: "0-9" if found[0] == _DIGIT else found[0], element, flags=re.DOTALL)
    return element


def _json_escaped(body: str) -> str:
    """Rewrite a pattern of characters as a pattern of what a JSON string writes for those characters."""
    return "".join(_json_escaped_element(element) for element in _elements(body))


def _json_escaped_element(element: str) -> str:
    if element == ".":
        return _JSON_LINE_CHARACTER
    character = _character(element)
    if character is not None:
        written = json.dumps(character, ensure_ascii=False)[1:-1]
        # A repetition that follows must apply to all characters of an escape.
        return literal_pattern(written) if len(written) == 1 else f"(?:{literal_pattern(written)})"
    is_set = element.startswith("\\") and (element[1] in _SETS or element[1] in "pP")
    if element.startswith("[") or is_set:
        # Of a set of characters only those remain that a JSON string holds as they are.
        return f"[{element}&&{_UNESCAPED}]"
    return element


def _character(element: str) -> str | None:
    """Return the one character that an element matches; None for every other element."""
    if len(element) == 1:
        return None if element in _OPERATORS else element
    if len(element) == 2 and element[0] == "\\":
        return _CONTROLS.get(element[1]) if element[1].isalnum() else element[1]
    code_point = _CODE_POINT.fullmatch(element)
    return chr(int(code_point[1], 16)) if code_point else None
