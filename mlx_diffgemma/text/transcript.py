"""The text of an answer while its tokens arrive, with the model's thinking kept apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mlx_diffgemma.text.channels import Channel
from mlx_diffgemma.text.tokenizer import UTF8_DECODER, Tokenizer


class Transcript:
    """Collects the tokens of one answer and returns each part of its text once, as soon as it can no longer change.

    A character whose bytes have not all arrived is held back until they have, or until the answer ends. A channel that
    ends within its header has no text; one without a header is thinking.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._channel = Channel()
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

    def pieces(self, canvas: Sequence[int]) -> tuple[str, ...]:
        """Return the text of each position of a canvas, without the headers of channels."""
        channel, found = self._channel, list[str]()
        decoder = UTF8_DECODER(errors="replace")
        for token in canvas:
            channel, text = self._after(channel, token)
            found.append(decoder.decode(text))
        return tuple(found)

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

    def _after(self, channel: Channel, token: int) -> tuple[Channel, bytes]:
        """Return the channel after a token, and the bytes that the token adds to that channel's text."""
        return self._tokenizer.channels.after(channel, token, self._tokenizer.token_bytes(token))
