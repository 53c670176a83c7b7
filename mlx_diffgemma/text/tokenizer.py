"""Text <-> token ids: mlx-lm's tokenizer wrapper, a chat template, and what must never show in the text.

mlx-lm (and with it transformers) is imported when a tokenizer is loaded, not before: it takes seconds. It reads a
tokenizer.json as well as a folder with nothing but a SentencePiece tokenizer.model.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from mlx_diffgemma.errors import TokenizerError, loading_errors

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

Message: TypeAlias = Mapping[str, str]
"""{"role": "system" | "user" | "assistant", "content": ...}"""

THOUGHT_OPEN, THOUGHT_CLOSE = "<|channel>", "<channel|>"
TURN_CLOSE = "<turn|>"
THOUGHT_NAME = "thought\n"
CONTROL = re.compile(
    r"<\|[^<>|\s]+\|?>|<[^<>|\s]+\|>|<unused\d+>|<(?:pad|eos|bos|unk|mask)>|<\|\"\|>|<(?:start|end)_of_\w+>"
)
"""Pieces that steer the model and are never text."""
MARKUP = re.compile(r"\s+|▁+|</?[a-z][a-z0-9]*>")
"""Blanks and HTML tags are whole pieces in this family, and text whatever a tokenizer's file says of them."""
UTF8 = codecs.getincrementaldecoder("utf-8")
PROBE = "A b  é漢🙂\n<b>"
"""Text that a tokenizer must reproduce: words, spaces, characters it knows and bytes of those it does not."""
BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
TURNS = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' or enable_thinking %}<|turn>system\n"
    "{% if enable_thinking %}<|think|>\n{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}"
    "{% set messages = messages[1:] %}{% endif %}<turn|>\n{% endif %}"
    "{% for message in messages %}<|turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn>model{{ '\n' }}{% endif %}"
)
"""The turn format of the release, for folders that bring no chat template."""


class Tokenizer:
    """The tokenizer of one model folder."""

    def __init__(self, wrapper: TokenizerWrapper, flagged: Iterable[int] = ()) -> None:
        """`flagged` are ids that the tokenizer's own file declares special."""
        self._wrapper = wrapper
        vocabulary: dict[str, int] = wrapper.get_vocab()
        self._pieces = {token: piece for piece, token in vocabulary.items()}
        flagged = [token for token in flagged if not MARKUP.fullmatch(self._pieces[token])]
        self.thought_open = vocabulary.get(THOUGHT_OPEN)
        self.thought_close = vocabulary.get(THOUGHT_CLOSE)
        self.turn_close = vocabulary.get(TURN_CLOSE)
        pad: int | None = wrapper.pad_token_id
        self.pad = 0 if pad is None else pad
        self.special = frozenset({*flagged, *_control_ids(wrapper, vocabulary)})

    def encode(self, text: str) -> list[int]:
        """Ids of a raw prompt, begun with the beginning-of-sequence token where the text does not bring it."""
        ids: list[int] = self._wrapper.encode(text, add_special_tokens=False)
        bos: int | None = self._wrapper.bos_token_id
        return ids if bos is None or ids[:1] == [bos] else [bos, *ids]

    def literal(self, text: str) -> list[int]:
        """Ids that add exactly `text`, byte for byte, and no special token, whatever it spells.

        Raises TokenizerError where the vocabulary has neither a character nor its bytes.
        """
        ids: list[int] = self._wrapper.encode(text, add_special_tokens=False)
        if b"".join(map(self.bytes, ids)) == text.encode():
            return ids
        # What spells a control token, or is normalized away, is taken apart until it is neither.
        if len(text) > 1:
            middle = len(text) // 2
            return self.literal(text[:middle]) + self.literal(text[middle:])
        try:
            return [self._byte_ids[byte] for byte in text.encode()]
        except KeyError:
            raise TokenizerError(f"this tokenizer cannot represent {text!r}") from None

    @cached_property
    def table(self) -> list[bytes]:
        """`bytes` of every id, from 0 on."""
        return [self.bytes(token) for token in range(max(self._pieces) + 1)]

    @cached_property
    def _byte_ids(self) -> dict[int, int]:
        matches = ((token, BYTE.fullmatch(piece)) for token, piece in self._pieces.items() if piece.startswith("<0x"))
        return {int(match[1], 16): token for token, match in matches if match}

    def chat(self, messages: Sequence[Message], *, thinking: bool = False) -> list[int]:
        """Ids of a conversation up to where the answer begins. Raises TokenizerError where the template refuses."""
        return self._rendered(messages, thinking=thinking, answering=True)

    def whole(self, messages: Sequence[Message], *, thinking: bool = False) -> list[int]:
        """Ids of a conversation that ends with its answer. Raises TokenizerError where the template refuses."""
        return self._rendered(messages, thinking=thinking, answering=False)

    def _rendered(self, messages: Sequence[Message], *, thinking: bool, answering: bool) -> list[int]:
        from jinja2 import TemplateError

        template = None if self._wrapper.chat_template else TURNS
        try:
            text: str = self._wrapper.apply_chat_template(
                list(messages),
                tokenize=False,
                add_generation_prompt=answering,
                enable_thinking=thinking,
                chat_template=template,
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise TokenizerError(f"the chat template refused the conversation: {error}") from error
        return list(self._wrapper.encode(text, add_special_tokens=False))

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ids, special tokens left out; bytes that are no character become U+FFFD."""
        return b"".join(map(self.bytes, ids)).decode("utf-8", "replace")

    def pieces(self, ids: Iterable[int]) -> tuple[str, ...]:
        """The text of each id in its place; a character made of several byte tokens stands at the last of them."""
        decoder = UTF8(errors="replace")
        return tuple(decoder.decode(self.bytes(token)) for token in ids)

    def bytes(self, token: int) -> bytes:
        """What one id adds to the text, in UTF-8: part of a character, or nothing, or more."""
        piece = self._pieces.get(token, "")
        if token in self.special:
            return b""
        if match := BYTE.fullmatch(piece):
            return bytes([int(match[1], 16)])
        return piece.replace("▁", " ").encode()


def load_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder. Raises TokenizerError where there is none, or a broken one."""
    if not any((folder / name).exists() for name in ("tokenizer.json", "tokenizer.model")):
        raise TokenizerError(
            f"{folder} has neither tokenizer.json nor tokenizer.model: copy them from the original model"
        )
    from mlx_lm.tokenizer_utils import load

    try:
        wrapper = load(folder)
    except loading_errors() as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TokenizerError(f"the tokenizer in {folder} cannot be loaded: {reason}") from error
    # Without a tokenizer.json transformers flags every user-defined piece: here, line breaks and HTML tags too.
    declared = wrapper.added_tokens_decoder.items() if (folder / "tokenizer.json").exists() else ()
    tokenizer = Tokenizer(wrapper, [token for token, piece in declared if piece.special])
    if tokenizer.decode(tokenizer.encode(PROBE)) != PROBE:
        raise TokenizerError(f"the tokenizer in {folder} is not of Gemma's kind (▁ for spaces, <0x..> for bytes)")
    return tokenizer


def _control_ids(wrapper: Any, vocabulary: Mapping[str, int]) -> set[int]:
    """Ids of the pieces that are never text, by their role or their spelling."""
    named = {wrapper.bos_token_id, wrapper.eos_token_id, wrapper.pad_token_id, wrapper.unk_token_id}
    spelled = {token for piece, token in vocabulary.items() if piece.startswith("<") and CONTROL.fullmatch(piece)}
    return {token for token in named if token is not None} | spelled


class Transcript:
    """Collects the tokens of an answer, keeps the model's thinking apart, and gives out text as it becomes certain.

    A character whose bytes are not all there yet is held back until they are, or until the answer ends.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._thinking = False
        self._answer = _Growing(tokenizer, "")
        self._thought = _Growing(tokenizer, THOUGHT_NAME)

    def add(self, tokens: Iterable[int], *, last: bool) -> tuple[str, str]:
        """More tokens of the answer -> what they add to its text, and to the thinking."""
        for token in tokens:
            if token == self._tokenizer.thought_open:
                self._thinking = True
            elif token == self._tokenizer.thought_close:
                self._thinking = False
            else:
                (self._thought if self._thinking else self._answer).add(token)
        return self._answer.take(last), self._thought.take(last)

    def thought_positions(self, canvas: Sequence[int]) -> int:
        """How many leading positions of a canvas belong to the thinking, its tags included."""
        if self._thinking or canvas[:1] == (self._tokenizer.thought_open,):
            closing = self._tokenizer.thought_close
            return next((place + 1 for place, token in enumerate(canvas) if token == closing), len(canvas))
        return 0


class _Growing:
    """Text that grows token by token, and the part of it that was not given out yet."""

    def __init__(self, tokenizer: Tokenizer, header: str) -> None:
        self._tokenizer = tokenizer
        self._decoder = UTF8(errors="replace")
        self._held = header
        self._fresh = ""

    def add(self, token: int) -> None:
        self._fresh += self._decoder.decode(self._tokenizer.bytes(token))

    def take(self, last: bool) -> str:
        """What became certain since the last call; a header at the very beginning is left out."""
        if last:
            self._fresh += self._decoder.decode(b"", final=True)
        if self._held.startswith(self._fresh) and not last:
            return ""
        text, self._fresh = self._fresh.removeprefix(self._held), ""
        self._held = ""
        return text
