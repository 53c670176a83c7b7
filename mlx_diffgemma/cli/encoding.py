"""Text from files and pipes: UTF-8 with or without a byte order mark, or the encoding that the user names."""

from __future__ import annotations

import codecs
from typing import Any

from mlx_diffgemma.cli.options import OUTPUT
from mlx_diffgemma.errors import DocumentError
from mlx_diffgemma.option import option

_UTF8, _UTF8_WITH_MARK = "utf-8", "utf-8-sig"
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def encoding_option() -> Any:
    """Return the field `encoding` of a program that reads text."""
    help_text = "Encoding of the text that is read, such as latin-1."
    return option(None, help_text, OUTPUT, metavar="NAME", default_text=_UTF8)


def codec_of(data: bytes, encoding: str | None) -> str:
    """Return the name of the codec that reads `data`, and writes it again. Raises DocumentError for an unknown name."""
    if encoding is None or encoding.lower() in (_UTF8, "utf8"):
        return _UTF8_WITH_MARK if data.startswith(codecs.BOM_UTF8) else _UTF8
    try:
        "".encode(encoding)
    except (LookupError, ValueError):
        raise DocumentError(
            f"--encoding {encoding!r:.60}: no encoding of text has this name: give one such as latin-1 or utf-16"
        ) from None
    return encoding


def decoded(data: bytes, name: str, codec: str) -> str:
    """Return the text of `data`; `name` is that of its source. Raises DocumentError if it is no text in the codec."""
    is_utf8 = codec in (_UTF8, _UTF8_WITH_MARK)
    if is_utf8 and data.startswith(_WIDE_MARKS):
        raise DocumentError(f"{name} is not UTF-8 text: it begins like UTF-16, try --encoding utf-16")
    if is_utf8 and (zero := data.find(0)) >= 0:
        raise DocumentError(f"{name} is not text: it has a zero byte at {zero}")
    try:
        return data.decode(codec)
    except UnicodeDecodeError as error:
        advice = "name its encoding, such as --encoding latin-1" if is_utf8 else "name another --encoding"
        wanted = "UTF-8" if is_utf8 else codec
        raise DocumentError(f"{name} is not {wanted} text: {error.reason} at byte {error.start}: {advice}") from None


def encoded(text: str, name: str, codec: str) -> bytes:
    """Return `text` in the codec. Raises DocumentError that names a character that it lacks."""
    try:
        return text.encode(codec)
    except UnicodeEncodeError as error:
        lacking = error.object[error.start]
        raise DocumentError(f"{name} cannot be written in {codec}: it has no {lacking!r}") from None
