"""Text to token ids and back.

The decoder of the tokenizer's file is not used: it decodes a run of byte tokens as a whole, so that text which was
already shown could change when more bytes arrive. Here every token has its bytes, and text is those bytes joined and
decoded.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from mlx_diffgemma.errors import TokenizerError
from mlx_diffgemma.text.channels import Channels
from mlx_diffgemma.text.chat_template import THOUGHT_CLOSE, THOUGHT_OPEN, TURN_CLOSE, ChatTemplate
from mlx_diffgemma.text.control_tokens import ControlTokens
from mlx_diffgemma.text.messages import Message, Turn, conversation
from mlx_diffgemma.text.tokenizer_files import TokenizerFiles, read_tokenizer_files

UTF8_DECODER = codecs.getincrementaldecoder("utf-8")
_CONTROL = re.compile(
    r"<\|[^<>|\s]+\|?>|<[^<>|\s]+\|>|<unused\d+>|<(?:pad|eos|bos|unk|mask)>|<\|\"\|>|<(?:start|end)_of_\w+>"
)
"""Pieces that steer the model; they are never text."""
_MARKUP = re.compile(r"\s+|▁+|</?[a-z][a-z0-9]*>")
"""Blanks and HTML tags: this family has pieces for them, which are text even if a tokenizer's file flags them."""
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_SAMPLE_TEXT = "A b  é漢🙂\n<b>"
"""A tokenizer must reproduce this text: words, spaces, known characters, and unknown characters as bytes."""


class Tokenizer:
    """The tokenizer of one model folder.

    A piece is an entry of the vocabulary as the tokenizer's file spells it: "▁the" for " the", "<0xE6>" for one byte.
    """

    def __init__(self, files: TokenizerFiles) -> None:
        """files: what the model folder says about its tokenizer."""
        self._encode = files.encode
        self._template = ChatTemplate(files.chat_template, files.roles)
        self._pieces = {token: piece for piece, token in files.vocabulary.items()}
        self._bos = files.token("bos_token")
        self.thought_open = files.vocabulary.get(THOUGHT_OPEN)
        self.thought_close = files.vocabulary.get(THOUGHT_CLOSE)
        self.channels = Channels(self.thought_open, self.thought_close)
        self.turn_close = files.vocabulary.get(TURN_CLOSE)
        self.pad = files.token("pad_token") or 0
        self.special = frozenset(_special_ids(files))

    def encode(self, text: str) -> list[int]:
        """Return the ids of a raw prompt; they begin with one beginning-of-sequence token.

        Control tokens are read in it, and in no message of a conversation.
        """
        ids = self._encode(text)
        return ids if self._bos is None or ids[:1] == [self._bos] else [self._bos, *ids]

    def literal(self, text: str) -> list[int]:
        """Return ids whose bytes are exactly `text`, none of them special, even if `text` spells a control token.

        Raises TokenizerError for a character that the vocabulary has neither as a piece nor as bytes.
        """
        ids = self._without_control_tokens(text)
        if b"".join(map(self.token_bytes, ids)) == text.encode():
            return ids
        # Characters that the tokenizer normalizes are cut until no part is one of them.
        if len(text) > 1:
            middle = len(text) // 2
            return self.literal(text[:middle]) + self.literal(text[middle:])
        try:
            return [self._byte_ids[byte] for byte in text.encode()]
        except KeyError:
            raise TokenizerError(f"this tokenizer cannot represent {text!r}: remove it from the text") from None

    def chat(self, messages: Sequence[Message | Turn], *, thinking: bool = False) -> list[int]:
        """Return the ids of a conversation up to where the model's answer begins.

        Control tokens are the chat template's alone: those that a message spells are text. Raises PromptError for what
        is no conversation, and TokenizerError if the chat template refuses it.
        """
        return self._conversation_ids(conversation(messages), thinking=thinking, answering=True)

    def finished_chat(self, messages: Sequence[Message | Turn], *, thinking: bool = False) -> list[int]:
        """Return the ids of a conversation that ends with its last message; `chat` says the rest."""
        return self._conversation_ids(conversation(messages), thinking=thinking, answering=False)

    def _conversation_ids(self, turns: Sequence[Turn], *, thinking: bool, answering: bool) -> list[int]:
        """Return the ids of the rendered conversation, in which a control token is always the template's own."""
        controls = self._controls
        ids = self._encode(self._template.render(turns, thinking=thinking, answering=answering))
        quoted_turns = [turn.mapped(controls.quoted) for turn in turns]
        quoted = list(controls.split(self._template.render(quoted_turns, thinking=thinking, answering=answering)))
        own = [part for part in quoted if isinstance(part, int)]
        spelled = any(controls.spelled_in(text) for turn in turns for text in (turn.text, turn.thought))
        # A message may also end with the first half of a control token, and the next begin with the second.
        if not spelled and [token for token in ids if token in self.special] == own:
            return ids
        runs = ([part] if isinstance(part, int) else self._ordinary(controls.unquoted(part)) for part in quoted)
        return [token for run in runs for token in run]

    def _ordinary(self, text: str) -> list[int]:
        """Return the ids of text in which no control token is read."""
        ids = self._without_control_tokens(text)
        return ids if self.special.isdisjoint(ids) else self.literal(text)

    def _without_control_tokens(self, text: str) -> list[int]:
        """Return the ids of the parts of a text that is cut in every control token."""
        return [token for part in self._controls.broken(text) for token in self._encode(part)]

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of ids, without special tokens; bytes that form no character become U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", "replace")

    def pieces(self, ids: Iterable[int]) -> tuple[str, ...]:
        """Return one string per id, for display; a character of several byte tokens appears at the last of them."""
        decoder = UTF8_DECODER(errors="replace")
        return tuple(decoder.decode(self.token_bytes(token)) for token in ids)

    def token_bytes(self, token: int) -> bytes:
        """Return the UTF-8 bytes that one id adds to a text: b"" for a special token and an unknown id.

        They may be a part of a character.
        """
        if token in self.special:
            return b""
        piece = self._pieces.get(token, "")
        if match := _BYTE_PIECE.fullmatch(piece):
            return bytes([int(match[1], 16)])
        return piece.replace("▁", " ").encode()

    @cached_property
    def all_token_bytes(self) -> list[bytes]:
        """`token_bytes` of every id, from 0 to the highest."""
        return [self.token_bytes(token) for token in range(max(self._pieces) + 1)]

    @cached_property
    def _controls(self) -> ControlTokens:
        """The special tokens that text can spell."""
        spelled = {self._pieces[token]: token for token in self.special}
        return ControlTokens({piece: token for piece, token in spelled.items() if self._encode(piece) == [token]})

    @cached_property
    def _byte_ids(self) -> dict[int, int]:
        """The ids of the byte tokens."""
        matches = (
            (token, _BYTE_PIECE.fullmatch(piece)) for token, piece in self._pieces.items() if piece.startswith("<0x")
        )
        return {int(match[1], 16): token for token, match in matches if match}


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a model folder. Raises TokenizerError if there is none, or if it cannot be used."""
    tokenizer = Tokenizer(read_tokenizer_files(folder))
    if tokenizer.decode(tokenizer.encode(_SAMPLE_TEXT)) != _SAMPLE_TEXT:
        raise TokenizerError(f"the tokenizer in {folder} is not of Gemma's kind (▁ for spaces, <0x..> for bytes)")
    return tokenizer


def _special_ids(files: TokenizerFiles) -> set[int]:
    """Return the ids that are never text, found by their flag, their role or their spelling."""
    named = {*files.roles.values()}
    return {
        token
        for piece, token in files.vocabulary.items()
        if piece in named
        or (token in files.flagged and not _MARKUP.fullmatch(piece))
        or (piece.startswith("<") and _CONTROL.fullmatch(piece))
    }
