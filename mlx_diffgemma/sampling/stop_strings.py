"""Texts that end an answer, found in the bytes of its tokens.

A stop string may begin in one canvas and end in another, and begin or end inside a token. A thought is no part of the
answer: no stop string is found in it, and the text after it continues the text before it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

from mlx_diffgemma.text.channels import Channel, Channels
from mlx_diffgemma.text.until_stop import first_match, undecided_length


class StopProgress(NamedTuple):
    """What must be known of an answer to find a stop string in what follows."""

    channel: Channel = Channel()
    tail: bytes = b""
    """the last bytes of the answer, with which a stop string may begin"""


BEGINNING = StopProgress()
"""Before the first token of an answer."""


@dataclass(frozen=True, kw_only=True, eq=False)
class StopStrings:
    """Texts that end an answer, and the tokenizer's tokens as they are searched."""

    stops: tuple[bytes, ...]
    token_bytes: Sequence[bytes]
    """what each id adds to a text, from 0 on; higher ids add nothing"""
    channels: Channels

    def find(self, tokens: Sequence[int], progress: StopProgress) -> int | None:
        """Return the position of the token in which the first stop string ends, None if none does."""
        parts, _ = self._answer_bytes(tokens, progress.channel)
        match = first_match(progress.tail + b"".join(parts), self.stops)
        if match is None:
            return None
        ends = list(accumulate(map(len, parts), initial=len(progress.tail)))[1:]
        return bisect_left(ends, match.end)

    def after(self, tokens: Sequence[int], progress: StopProgress) -> StopProgress:
        """Return the progress after tokens in which no stop string ends."""
        parts, channel = self._answer_bytes(tokens, progress.channel)
        text = progress.tail + b"".join(parts)
        return StopProgress(channel, text[len(text) - undecided_length(text, self.stops) :])

    def _answer_bytes(self, tokens: Sequence[int], channel: Channel) -> tuple[list[bytes], Channel]:
        """Return what each token adds to the answer, and the channel after them."""
        parts: list[bytes] = []
        for token in tokens:
            text = self.token_bytes[token] if token < len(self.token_bytes) else b""
            channel, added = self.channels.after(channel, token, text)
            parts.append(b"" if channel.thinking else added)
        return parts, channel
