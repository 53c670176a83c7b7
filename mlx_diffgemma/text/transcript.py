"""The text of an answer while its tokens arrive, with the model's thinking kept apart."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mlx_diffgemma.text.chat_template import THOUGHT_NAME
from mlx_diffgemma.text.tokenizer import UTF8_DECODER, Tokenizer


class Transcript:
    """Collects the tokens of one answer and returns each part of its text once, as soon as it can no longer change.

    A character whose bytes have not all arrived is held back until they have, or until the answer ends.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._thinking = False
        self._answer = _GrowingText(tokenizer, header="")
        self._thought = _GrowingText(tokenizer, header=THOUGHT_NAME)

    def add(self, tokens: Iterable[int], *, last: bool) -> tuple[str, str]:
        """Add tokens and return what they add to the answer, and to the thinking. last: the answer ends here."""
        for token in tokens:
            if token == self._tokenizer.thought_open:
                self._thinking = True
            elif token == self._tokenizer.thought_close:
                self._thinking = False
            else:
                (self._thought if self._thinking else self._answer).add(token)
        return self._answer.take(last=last), self._thought.take(last=last)

    def thought_positions(self, canvas: Sequence[int]) -> int:
        """Return how many leading positions of a canvas are thinking, including the control tokens around it."""
        if self._thinking or canvas[:1] == (self._tokenizer.thought_open,):
            closing = self._tokenizer.thought_close
            return next((position + 1 for position, token in enumerate(canvas) if token == closing), len(canvas))
        return 0


class _GrowingText:
    """Text that is decoded token by token; `header` is dropped if the text begins with it."""

    def __init__(self, tokenizer: Tokenizer, *, header: str) -> None:
        self._tokenizer = tokenizer
        self._decoder = UTF8_DECODER(errors="replace")
        self._header = header
        self._pending = ""

    def add(self, token: int) -> None:
        self._pending += self._decoder.decode(self._tokenizer.token_bytes(token))

    def take(self, *, last: bool) -> str:
        """Return the text that was not returned before; nothing while it may still turn out to be the header."""
        if last:
            self._pending += self._decoder.decode(b"", final=True)
        if self._header.startswith(self._pending) and not last:
            return ""
        text, self._pending = self._pending.removeprefix(self._header), ""
        self._header = ""
        return text
