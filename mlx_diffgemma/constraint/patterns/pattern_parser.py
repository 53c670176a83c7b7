"""Regular expressions, parsed into trees whose assertions are not yet compiled away."""

from __future__ import annotations

import re

from mlx_diffgemma.constraint.characters import Characters
from mlx_diffgemma.constraint.expression import EMPTY, NOTHING, OneOf, literal
from mlx_diffgemma.constraint.patterns.assertions import (
    Beside,
    Boundary,
    Look,
    Node,
    Place,
    any_of,
    boundary,
    one_after_another,
    repeated_node,
)
from mlx_diffgemma.constraint.patterns.classes import (
    PatternReader,
    escaped_set,
    on_one_line,
    read_class,
    read_escape,
    without_case,
)
from mlx_diffgemma.constraint.patterns.dialect import Bounds, Dialect

_MOST_NESTED_GROUPS = 40
_MOST_REPETITIONS = 10**9
_SPACE_AND_COMMENTS = re.compile(r"(?:[ \t\n\r\f\v]|#[^\n]*)+")
_COMMENT = re.compile(r"\(\?#[^)]*\)")
_FLAGS = re.compile(r"\(\?([A-Za-z]*)(?:-([A-Za-z]+))?([:)])")
_NAMED_GROUP = re.compile(r"\(\?P?<(?![=!])([^>]*)>")
_BACK_REFERENCE = re.compile(r"\(\?P=[^)]*\)?|\\k(?:<[^>]*>?|\{[^}]*\}?)|\\g<[^>]*>?|\\[1-9][0-9]?")
_OCTAL = re.compile(r"\\[0-3][0-7]{2}")
_COUNTS = re.compile(r"\{([0-9]*)(?:(,)([0-9]*))?\}")
_LOOK_AROUNDS = {"(?=": (True, False), "(?!": (True, True), "(?<=": (False, False), "(?<!": (False, True)}
"""For each whether it looks ahead, and whether it is negative."""
_KNOWN_FLAGS = frozenset("aimsuxU")


def parse_pattern(pattern: str, dialect: Dialect) -> Node:
    """Return the tree of a pattern.

    Raises ConstraintError for a pattern that is not well formed, and for what no automaton can keep: back-references,
    atomic groups, possessive repetitions and conditions.
    """
    reader = PatternReader(pattern, dialect)
    tree = _read_alternatives(reader, 0)
    if reader.position < len(pattern):
        raise reader.fault(f"unbalanced parenthesis: nothing opens the ) at position {reader.position}")
    return tree


def _read_alternatives(reader: PatternReader, depth: int) -> Node:
    branches = [_read_sequence(reader, depth)]
    while reader.take("|"):
        branches.append(_read_sequence(reader, depth))
    return any_of(branches)


def _read_sequence(reader: PatternReader, depth: int) -> Node:
    parts: list[Node] = []
    while True:
        _skip(reader)
        if reader.next() in ("", "|", ")"):
            return one_after_another(parts)
        if _read_flags(reader):
            continue
        start = reader.position
        if _read_counts(reader) is not None:
            raise reader.fault(f"nothing to repeat before {_since(reader, start)} at position {start}")
        part = _read_atom(reader, depth)
        _skip(reader)
        parts.append(_read_repetition(reader, part, start))


def _skip(reader: PatternReader) -> None:
    """Read comments, and with the flag `x` spaces."""
    while reader.match(_COMMENT) or ("x" in reader.flags and reader.match(_SPACE_AND_COMMENTS)):
        pass


def _since(reader: PatternReader, start: int) -> str:
    """Return what was read since `start`, for a message."""
    return on_one_line(reader.pattern[start : reader.position])


def _read_flags(reader: PatternReader) -> bool:
    """Read flags that apply to the rest of a group, and return whether there were some."""
    found = _FLAGS.match(reader.pattern, reader.position)
    if not found or found[3] == ":":
        return False
    _set_flags(reader, found)
    return True


def _set_flags(reader: PatternReader, found: re.Match[str]) -> None:
    turned_on, turned_off = found[1], found[2] or ""
    for flag in turned_on + turned_off:
        if flag not in _KNOWN_FLAGS:
            raise reader.fault(f"the flag {flag} at position {found.start()} is not supported: a, i, m, s and x are")
    if found[3] == ")" and not turned_on + turned_off:
        raise reader.fault(f"the group (?) at position {found.start()} sets no flag")
    reader.flags = (reader.flags | set(turned_on)) - set(turned_off)
    reader.position = found.end()


def _read_counts(reader: PatternReader) -> tuple[int, int | None] | None:
    """Read how often something is repeated; None, and nothing is read, if no repetition comes next."""
    start = reader.position
    for sign, minimum, maximum in (("*", 0, None), ("+", 1, None), ("?", 0, 1)):
        if reader.take(sign):
            return minimum, maximum
    found = _COUNTS.match(reader.pattern, start)
    if not found or found[0] == "{}" or not (found[1] or reader.dialect.has_open_minimum):
        return None
    reader.position = found.end()
    low, high = found[1] or "0", found[3] if found[2] else found[1]
    for number in (low, high):
        if len(number) > len(str(_MOST_REPETITIONS)) or int(number or 0) > _MOST_REPETITIONS:
            raise reader.fault(
                f"{found[0][:30]} at position {start} repeats more than {_MOST_REPETITIONS} times, use *"
            )
    if high and int(low) > int(high):
        raise reader.fault(f"{found[0]} at position {start} has a minimum above its maximum")
    return int(low), int(high) if high else None


def _read_repetition(reader: PatternReader, part: Node, start: int) -> Node:
    """Read the repetition of a part that began at `start`, if there is one."""
    counted_from = reader.position
    counts = _read_counts(reader)
    if counts is None:
        return part
    if not reader.take("?") and reader.next() == "+":
        raise reader.fault(
            f"the possessive repetition {_since(reader, counted_from)}+ at position {counted_from} is not supported: "
            f"remove the second sign"
        )
    written = _since(reader, start)
    _skip(reader)
    again = reader.position
    if _read_counts(reader) is not None:
        raise reader.fault(f"multiple repeat: {_since(reader, again)} at position {again} repeats a repetition")
    return repeated_node(part, *counts, Place(written, start))


def _read_atom(reader: PatternReader, depth: int) -> Node:
    """Read a character, a set, a group or an assertion."""
    match reader.next():
        case "(":
            return _read_group(reader, depth)
        case "[":
            return _set(reader, read_class(reader))
        case "\\":
            return _read_escape(reader)
        case ".":
            reader.position += 1
            ends = Bounds.exactly(Characters(())) if "s" in reader.flags else reader.dialect.line_ends
            return _set(reader, ~ends)
        case "^" | "$" as anchor:
            return _read_anchor(reader, anchor)
        case character:
            reader.position += 1
            return _one_character(reader, character)


def _one_character(reader: PatternReader, character: str) -> Node:
    both = without_case(reader, Bounds.exactly(Characters.among(character)))
    return literal(character) if len(both.sure) == 1 else _set(reader, both)


def _set(reader: PatternReader, bounds: Bounds) -> Node:
    members = reader.members(bounds)
    return OneOf(members) if members else NOTHING


def _read_escape(reader: PatternReader) -> Node:
    start, letter = reader.position, reader.next(2)[1:]
    is_octal = _OCTAL.match(reader.pattern, start)
    if not is_octal and (found := reader.match(_BACK_REFERENCE)):
        raise _back_reference(reader, found)
    match letter:
        case "A":
            reader.position += 2
            return boundary(False, Place(r"\A", start))
        case "Z" | "z":
            reader.position += 2
            return boundary(True, Place(f"\\{letter}", start))
        case "b" | "B":
            reader.position += 2
            return _word_boundary(reader, Place(f"\\{letter}", start), letter == "b")
        case _:
            found = read_escape(reader)
            return _one_character(reader, found) if isinstance(found, str) else _set(reader, found)


def _back_reference(reader: PatternReader, found: re.Match[str]) -> Exception:
    return reader.fault(
        f"the back-reference {on_one_line(found[0])} at position {found.start()} is not supported, "
        f"back-references never are: write the text out"
    )


def _read_anchor(reader: PatternReader, anchor: str) -> Node:
    place = Place(anchor, reader.position)
    reader.position += 1
    line_end = Characters.among("\n" if "m" in reader.flags else "")
    end = boundary(anchor == "$", place, line_end)
    if anchor == "^" or not reader.is_forbidden:
        return end
    # What is forbidden before the end is also forbidden before a last line break, where Python finds an end too.
    last_line_end = one_after_another([literal("\n"), boundary(True, place)])
    return any_of([end, Look(True, False, last_line_end, place)])


def _word_boundary(reader: PatternReader, place: Place, is_change: bool) -> Boundary:
    r"""Return \b, which is a change between a word and no word, or \B, which is none."""
    word = reader.members(escaped_set(reader, "w"))
    other = reader.members(escaped_set(reader, "W"))
    before_word, before_other = Beside(True, word, False), Beside(True, other, True)
    after_word, after_other = Beside(False, word, False), Beside(False, other, True)
    if is_change:
        return Boundary(((after_word, before_other), (after_other, before_word)), place)
    # Python finds no \B in the empty text, other readers do.
    if reader.is_forbidden:
        return Boundary(((after_word, before_word), (after_other, before_other)), place)
    inner = (Beside(False, other, False), before_other), (after_other, Beside(True, other, False))
    return Boundary(((after_word, before_word), *inner), place)


def _read_group(reader: PatternReader, depth: int) -> Node:
    if depth >= _MOST_NESTED_GROUPS:
        raise reader.fault(f"nested too deeply: {_MOST_NESTED_GROUPS} groups in one another are the limit")
    start, flags, is_forbidden = reader.position, reader.flags, reader.is_forbidden
    if found := reader.match(_BACK_REFERENCE):
        raise _back_reference(reader, found)
    look = next((head for head in _LOOK_AROUNDS if reader.take(head)), None)
    if look:
        reader.is_forbidden ^= _LOOK_AROUNDS[look][1]
    elif found := _FLAGS.match(reader.pattern, start):
        _set_flags(reader, found)
    elif found := reader.match(_NAMED_GROUP):
        if not found[1].isidentifier():
            raise reader.fault(f"the group at position {start} has the bad name {found[1]!r}")
    elif reader.take("(?"):
        raise _unknown_group(reader, start)
    else:
        reader.position += 1
    body = _read_alternatives(reader, depth + 1)
    if not reader.take(")"):
        raise reader.fault(f"missing ) for the group at position {start}")
    reader.flags, reader.is_forbidden = flags, is_forbidden
    if look is None:
        return body
    is_ahead, is_negative = _LOOK_AROUNDS[look]
    if body is EMPTY and not is_negative:
        return EMPTY
    return Look(is_ahead, is_negative, body, Place(f"the look-around {look}", start))


def _unknown_group(reader: PatternReader, start: int) -> Exception:
    following = reader.next()
    if following == ">":
        return reader.fault(f"the atomic group at position {start} is not supported: write (?: instead of (?>")
    if following == "(":
        return reader.fault(f"the condition at position {start} is not supported: write the two cases as alternatives")
    if following == "#":
        return reader.fault(f"missing ) for the comment at position {start}")
    if not following:
        return reader.fault(f"missing ) for the group at position {start}")
    return reader.fault(f"the group (?{on_one_line(following)} at position {start} is unknown")
