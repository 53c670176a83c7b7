"""The text of an answer while its tokens arrive, with the model's thinking kept apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from mlx_diffgemma.text.tokenizer import UTF8_DECODER, Tokenizer

_HEADER = re.compile(rb"([a-z][a-z0-9_-]{0,31})\n")
"""The name of a channel, a line of its own; it is no part of the channel's text."""
_HEADER_BEGINS = re.compile(rb"([a-z][a-z0-9_-]{0,31})?")
_THOUGHT = b"thought"
"""The channel of the model's thinking; the text of any other channel is the answer."""


class _Channel(NamedTuple):
    """Where the next token belongs."""

    thinking: bool = False
    header: bytes | None = None
    """what came after the control token that opened the channel, while it may become a header; None: it is decided"""


class Transcript:
    """Collects the tokens of one answer and returns each part of its text once, as soon as it can no longer change.

    A character whose bytes have not all arrived is held back until they have, or until the answer ends. A channel that
    ends within its header has no text; one without a header is thinking.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._channel = _Channel()
        self._answer = UTF8_DECODER(errors="replace")
        self._thought = UTF8_DECODER(errors="replace")

    def add(self, tokens: Iterable[int], *, last: bool) -> tuple[str, str]:
        """Add tokens and return what they add to the answer, and to the thinking. last: the answer ends here."""
        answer, thought = "", ""
        for token in tokens:
            self._channel, text = self._after(self._channel, token)
            if self._channel.thinking:
                thought += self._thought.decode(text)
            else:
                answer += self._answer.decode(text)
        if last:
            answer += self._answer.decode(b"", final=True)
            thought += self._thought.decode(b"", final=True)
        return answer, thought

    def thought_positions(self, canvas: Sequence[int]) -> int:
        """Return how many leading positions of a canvas are thinking, including headers and control tokens."""
        channel, thinking, opened = self._channel, 0, 0
        for position, token in enumerate(canvas):
            if token == self._tokenizer.thought_open:
                opened = position
            within = channel.thinking
            channel, _ = self._after(channel, token)
            if not channel.thinking and not within:
                return thinking
            if not channel.thinking and token != self._tokenizer.thought_close:
                # The channel turns out to have another name.
                return opened
            thinking = position + 1
        return thinking

    def _after(self, channel: _Channel, token: int) -> tuple[_Channel, bytes]:
        """Return the channel after a token, and the bytes that the token adds to that channel's text."""
        if token == self._tokenizer.thought_open:
            return _Channel(thinking=True, header=b""), b""
        if token == self._tokenizer.thought_close:
            return _Channel(), b""
        text = self._tokenizer.token_bytes(token)
        if channel.header is None:
            return channel, text
        header = channel.header + text
        if found := _HEADER.match(header):
            return _Channel(thinking=found[1] == _THOUGHT), header[found.end() :]
        if _HEADER_BEGINS.fullmatch(header):
            return _Channel(thinking=True, header=header), b""
        return _Channel(thinking=True), header
