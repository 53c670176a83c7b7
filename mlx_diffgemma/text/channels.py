"""The channels of an answer: the model's thinking, and everything else, which is the answer.

    <|channel>thought\n ... <channel|>     thinking
    <|channel>final\n ... <channel|>       the answer, without the name

The control tokens are known by their ids, the name of a channel is a line of its own.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_HEADER = re.compile(rb"([a-z][a-z0-9_-]{0,31})\n")
"""The name of a channel; it is no part of the channel's text."""
_HEADER_BEGINS = re.compile(rb"([a-z][a-z0-9_-]{0,31})?")
_THOUGHT = b"thought"
"""The channel of the model's thinking; the text of any other channel is the answer."""


class Channel(NamedTuple):
    """Where the next token belongs."""

    thinking: bool = False
    header: bytes | None = None
    """what came after the control token that opened the channel, while it may become a header; None: it is decided"""


class Channels(NamedTuple):
    """The control tokens around a channel, None if the vocabulary has none."""

    opening: int | None = None
    closing: int | None = None

    def after(self, channel: Channel, token: int, text: bytes) -> tuple[Channel, bytes]:
        """Return the channel after a token, and the bytes that the token adds to that channel's text.

        text: the bytes of the token.
        """
        if token == self.opening:
            return Channel(thinking=True, header=b""), b""
        if token == self.closing:
            return Channel(), b""
        if channel.header is None:
            return channel, text
        header = channel.header + text
        if found := _HEADER.match(header):
            return Channel(thinking=found[1] == _THOUGHT), header[found.end() :]
        if _HEADER_BEGINS.fullmatch(header):
            return Channel(thinking=True, header=header), b""
        return Channel(thinking=True), header
