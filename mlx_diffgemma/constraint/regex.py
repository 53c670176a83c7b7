"""Reading a regular expression piece by piece: its anchors, and its characters inside a JSON text.

The syntax is that of the Rust `regex` crate, which outlines-core compiles: Python's without look-around,
back-references and word boundaries. An answer always matches the whole pattern, so anchors around it mean nothing, and
anchors inside it cannot be meant. A digit is one of 0 to 9: nobody asks for those of other scripts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from mlx_diffgemma.errors import ConstraintError

ESCAPE = re.compile(r"\\(?:[pP]\{[^}]*\}|[xuU]\{[^}]*\}|[pP].|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|.)", re.DOTALL)
CODE = re.compile(r"\\[xuU]\{?([0-9A-Fa-f]{1,8})\}?")
GROUP = re.compile(r"\(\?(?:[a-zA-Z-]*[:)]|P?<\w+>)")
CLASS = re.compile(r"\[\^?\]?")
REPEAT = re.compile(r"\{(\d+)(?:,(\d*))?\}")
STARTS, ENDS = ("^", r"\A"), ("$", r"\z", r"\Z")
BOUNDARIES = (r"\b", r"\B")
META = frozenset("\\.+*?()|[]{}^$#&-~")
MOST_REPEATS = 1000
"""Every repetition is written out in the automaton."""
PLAIN = r'[^"\\\x00-\x1f\x7f]'
"""Characters that stand for themselves in a JSON text."""
ANY = rf'(?:{PLAIN}|\\["\\/bfnrt])'
"""A character of a JSON text."""
LINE = rf'(?:{PLAIN}|\\["\\/bft])'
"""The same without line breaks: what a dot stands for."""
CONTROLS = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", "v": "\v", "a": "\a"}
OPERATORS = frozenset("*+?()|{}.^$")
DIGIT = r"\d"
SETS = frozenset("dDwWsS")


def quoted(text: str) -> str:
    """A pattern for exactly this text."""
    return "".join(f"\\{character}" if character in META else character for character in text)


def short(pattern: str) -> str:
    """A pattern as messages show it."""
    return repr(pattern) if len(pattern) <= 80 else f"{pattern[:77]!r}..."


def syntax_parts(pattern: str) -> Iterator[str]:
    """Escapes, classes, heads of groups and repetitions whole, everything else one character at a time."""
    place = 0
    while place < len(pattern):
        match pattern[place]:
            case "\\":
                found = ESCAPE.match(pattern, place)
            case "(":
                found = GROUP.match(pattern, place)
            case "{":
                found = REPEAT.match(pattern, place)
            case _:
                found = None
        unread = _class_end(pattern, place) if pattern[place] == "[" else place + 1
        end = found.end() if found else unread
        yield pattern[place:end]
        place = end


def _class_end(pattern: str, start: int) -> int:
    """Where the class that begins at `start` ends; classes may hold classes."""
    depth, place = 0, start
    while place < len(pattern):
        opened = CLASS.match(pattern, place)
        if opened:
            depth += 1
            place = opened.end()
        elif pattern[place] == "\\":
            place += 2
        else:
            depth -= pattern[place] == "]"
            place += 1
            if depth == 0:
                return place
    raise ConstraintError(f"regex {short(pattern)}: a class is not closed, add ]")


def whole(pattern: str) -> str:
    """A pattern that has to match all of a text, without the anchors around its alternatives.

    Raises ConstraintError naming an anchor in another place, a word boundary, or a repetition that is too large.
    """
    return "|".join(body for _, body, _ in _alternatives(pattern))


def within_json(pattern: str) -> str:
    """What a JSON text holds, without its quotes, where the string it stands for contains a match of `pattern`."""
    alternatives = [
        ("" if started else f"{ANY}*") + f"(?:{_escaped(body)})" + ("" if ended else f"{ANY}*")
        for started, body, ended in _alternatives(pattern)
    ]
    return f"(?:{'|'.join(alternatives)})"


def _alternatives(pattern: str) -> list[tuple[bool, str, bool]]:
    """The outermost alternatives: whether it begins with an anchor, what is between, whether it ends with one."""
    found: list[list[str]] = [[]]
    depth = 0
    for piece in syntax_parts(pattern):
        repeat = REPEAT.fullmatch(piece)
        if repeat and max(int(number or 0) for number in repeat.groups()) > MOST_REPEATS:
            raise ConstraintError(f"regex {short(pattern)}: {piece} repeats more than {MOST_REPEATS} times, use *")
        depth += piece.startswith("(") and not (piece.startswith("(?") and piece.endswith(")"))
        depth -= piece == ")"
        if piece == "|" and depth == 0:
            found.append([])
        else:
            found[-1].append(_in_ascii(piece))
    results: list[tuple[bool, str, bool]] = []
    for parts in found:
        flags = [part for part in parts[:1] if part.startswith("(?") and part.endswith(")")]
        rest = parts[len(flags) :]
        started, ended = rest[:1] != [] and rest[0] in STARTS, rest[-1:] != [] and rest[-1] in ENDS
        rest = rest[int(started) : len(rest) - int(ended)]
        for part in rest:
            if part in (*STARTS, *ENDS, *BOUNDARIES):
                raise ConstraintError(f"regex {short(pattern)}: {part} inside the pattern is not supported")
        results.append((started, "".join([*flags, *rest]), ended))
    return results


def _in_ascii(piece: str) -> str:
    """A piece in which digits are those of ASCII."""
    if piece == DIGIT:
        return "[0-9]"
    if piece.startswith("["):
        return re.sub(r"\\.", lambda found: "0-9" if found[0] == DIGIT else found[0], piece, flags=re.DOTALL)
    return piece


def _escaped(body: str) -> str:
    """The pattern of JSON-escaped characters for a pattern of plain ones."""
    return "".join(_escaped_piece(piece) for piece in syntax_parts(body))


def _escaped_piece(piece: str) -> str:
    if piece == ".":
        return LINE
    character = _character(piece)
    if character is not None:
        written = json.dumps(character, ensure_ascii=False)[1:-1]
        # One thing for what repeats it.
        return quoted(written) if len(written) == 1 else f"(?:{quoted(written)})"
    if piece.startswith("["):
        return f"[{piece}&&{PLAIN}]"
    if piece.startswith("\\") and (piece[1] in SETS or piece[1] in "pP"):
        return f"[{piece}&&{PLAIN}]"
    return piece


def _character(piece: str) -> str | None:
    """The one character that a piece stands for, None where it is something else."""
    if len(piece) == 1:
        return None if piece in OPERATORS else piece
    if len(piece) == 2 and piece[0] == "\\":
        return CONTROLS.get(piece[1]) if piece[1].isalnum() else piece[1]
    code = CODE.fullmatch(piece)
    return chr(int(code[1], 16)) if code else None
