"""Files that were right, damaged: bytes, the values of JSON, the header of safetensors, a chat template."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from copy import deepcopy
from random import Random
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["json", "lines", "safetensors", "template", "text"]

_DEEP, _LONG = "@deep@", "@long@"
"""Stand for JSON that is nested 100,000 times, and for a number of 5,000 digits."""
_SPECIAL = {f'"{_DEEP}"': "[" * 100_000 + "]" * 100_000, f'"{_LONG}"': "9" * 5000}
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63, 2**64, 10**300, 0.5, -0.0, 1e308, float("inf"), float("nan"),
    "", "x", "0", "-1", "\x00", "\ud800", "é\u2028", "../x", "/dev/null", "a" * 5000, [], {}, [[]], [None], [0, "x"],
    {"": None}, {"a": {"b": []}}, [1] * 2000, _DEEP, _LONG,
)  # fmt: skip
_TOPS: tuple[Any, ...] = (None, True, 0, -1.5, "", "text", [], [[]], {}, _DEEP, _LONG)
_JINJA = (
    "{{ 1 / 0 }}", "{{ nothing.at.all }}", "{{ messages[99].content }}", "{% for %}", "{% if true %}", "{% endfor %}",
    "{% include 'x' %}", "{% for i in range(99999999) %}x{% endfor %}", "{{ raise_exception('no') }}",
    "{{ '' | nosuch }}",
    "{{ ''.__class__.__mro__ }}", "{{ messages | tojson }}", "{# never closed", "{{ " + "(" * 2000, "{{ 1 + 'a' }}",
    "\x00", "\u2028", "<|turn>", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{% set messages = 3 %}",
)  # fmt: skip


_GAPS = (
    "<gap:0>", "<gap:5-2>", f"<gap:{'9' * 5000}>", f"<gap:2-{'9' * 300}>", "<gap:1-60>", "<gap:33>", "<gap:٣>",
    "<gap:-1>", "<gap", "<gap><gap><gap>", "<gap:1-9> " * 20, "é" * 50, " <gap> <gap> ", "<|turn>", "<eos>",
    "\x00", "\r", "\u2028",
    "wort " * 400,
)  # fmt: skip


def mangled(data: bytes, kind: Kind, rng: Random) -> bytes:
    """Return a damaged copy of a file of this kind."""
    by_value: dict[Kind, Callable[[bytes, Random], bytes]] = {
        "json": _json_mangled,
        "lines": _line_mangled,
        "safetensors": _header_mangled,
        "template": lambda data, rng: _with_a_snippet(data, _JINJA, rng),
        "text": lambda data, rng: _with_a_snippet(data, _GAPS, rng),
    }
    change = _bytes_mangled if rng.random() < 0.3 else by_value[kind]
    return change(data, rng)


def _value(rng: Random) -> Any:
    """Return a value of its own: it may be changed too."""
    return deepcopy(rng.choice(_VALUES))


def _bytes_mangled(data: bytes, rng: Random) -> bytes:
    """Change bytes, whatever they mean."""
    at, other = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
    first, last = sorted((at, other))
    flipped = bytearray(data)
    for _ in range(rng.choice((1, 1, 3, 30))):
        # The beginning of a file decides how the rest is read.
        position = rng.randrange(min(len(data), rng.choice((16, 2000, len(data)))) or 1)
        flipped[position : position + 1] = bytes([rng.randrange(256)])
    return rng.choice(
        (
            bytes(flipped),
            data[:at],
            data[at:],
            data[:first] + data[last:],
            data[:at] + data[first:last] + data[at:],
            data[:at] + rng.choice((b"\x00", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xe2\x80\xa8")) + data[at:],
            b"\xef\xbb\xbf" + data,
            b"\xff\xfe" + data.decode(errors="replace").encode("utf-16-le"),
            rng.choice((b"", b"\x00", b" \n\n", b"\xef\xbb\xbf", b"version https://git-lfs.github.com/spec/v1\n")),
            rng.randbytes(rng.choice((1, 8, 300))),
        )
    )


def _json_mangled(data: bytes, rng: Random) -> bytes:
    """Change a value of a JSON document."""
    document = json.loads(data)
    if rng.random() < 0.1:
        return _written(rng.choice((*_TOPS, [document], {"": document}, json.dumps(document))))
    if rng.random() < 0.1 and isinstance(document, dict) and document:
        return _with_a_key_twice(document, rng)
    holder = {"top": document}
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        _change_one(holder["top"], rng)
    return _written(holder["top"])


def _with_a_key_twice(document: dict[str, Any], rng: Random) -> bytes:
    text, key, odd = json.dumps(document), json.dumps(rng.choice(list(document))), _written(_value(rng)).decode()
    return rng.choice((f"{{{key}: {odd}, {text[1:]}", f"{text[:-1]}, {key}: {odd}}}")).encode()


def _change_one(document: Any, rng: Random) -> None:
    """Change one value of a document, or one key, in place."""
    path = rng.choice(_containers(document) or [{}])
    if isinstance(path, list):
        if path and rng.random() < 0.8:
            path[rng.randrange(len(path))] = _value(rng)
        else:
            path.append(_value(rng))
        return
    key = rng.choice(list(path) or ["key"])
    match rng.randrange(8):
        case 0:
            path.pop(key, None)
        case 1:
            path[key + rng.choice(("", "_", "\u0000", "é"))] = path.pop(key, None)
        case 2:
            path[rng.choice(("", "key", "type", "$ref", "\ud800"))] = _value(rng)
        case 3 if isinstance(path.get(key), int | float):
            number = path[key]
            path[key] = rng.choice((-number, number + 1, number * 2, number / 3, str(number), [number]))
        case _:
            path[key] = _value(rng)


def _containers(document: Any) -> list[Any]:
    """Return all lists and objects of a document, those of the top several times: there are few of them."""
    found: list[Any] = []
    waiting = [document]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict | list):
            found.append(value)
            waiting += value.values() if isinstance(value, dict) else value[:50]
    return found[:1] * (len(found) // 4) + found


def _written(value: Any) -> bytes:
    """Return JSON; surrogates, infinities and numbers of any length are written as Python writes them."""
    text = json.dumps(value)
    for mark, meant in _SPECIAL.items():
        text = text.replace(mark, meant)
    return text.encode()


def _line_mangled(data: bytes, rng: Random) -> bytes:
    """Change a line of JSON lines, or how they are divided."""
    lines = data.splitlines()
    number = rng.randrange(len(lines))
    separator = rng.choice((b"\n",) * 6 + (b"\r\n", b"\n\n", b"\xe2\x80\xa8", b"\x0b", b", ", b"\r"))
    lines[number] = _bytes_mangled(lines[number], rng) if rng.random() < 0.1 else _json_mangled(lines[number], rng)
    if rng.random() < 0.05:
        return b"[" + b",\n".join(lines) + b"]"
    return separator.join(lines) + rng.choice((b"", b"\n", b"\n\n"))


def _header_mangled(data: bytes, rng: Random) -> bytes:
    """Change the header of a safetensors file, or its length."""
    (length,) = struct.unpack("<Q", data[:8])
    header, tensors = data[8 : 8 + length], data[8 + length :]
    if rng.random() < 0.2:
        wrong = rng.choice((0, 1, length - 1, length + 1, length * 2, len(data), 2**31, 2**63, 2**64 - 1))
        return struct.pack("<Q", wrong) + data[8:]
    header = _json_mangled(header, rng)
    return struct.pack("<Q", len(header)) + header + tensors


def _with_a_snippet(data: bytes, snippets: Sequence[str], rng: Random) -> bytes:
    """Put something into a chat template, or into a text with gaps."""
    at = rng.choice((0, len(data), rng.randrange(len(data))))
    return data[:at] + rng.choice(snippets).encode() + data[at:]
