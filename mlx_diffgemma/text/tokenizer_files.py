"""The tokenizer of a model folder as its files describe it: tokenizer.json, or a SentencePiece model.

The files are read by the libraries that define them, tokenizers and sentencepiece. transformers reads both too, but its
import alone takes longer than an answer of the demo model, and it declares every user-defined piece of a SentencePiece
model special, line breaks too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_diffgemma.errors import ConfigError, TokenizerError
from mlx_diffgemma.files import read_json

_ROLES = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
"""The roles that this family uses, with the pieces that have them where tokenizer_config.json is silent."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenizerFiles:
    """What a folder says about its tokenizer."""

    vocabulary: Mapping[str, int]
    """the id of every piece, as the file spells it"""
    flagged: frozenset[int]
    """ids that the file declares special"""
    encode: Callable[[str], list[int]]
    """text to ids, without a beginning-of-sequence token; control tokens in the text become their ids"""
    roles: Mapping[str, str]
    """pieces with a role, as chat templates know them: {"bos_token": "<bos>", ...}"""
    chat_template: str | None
    """the template that writes a conversation as text; None: the folder has none"""

    def token(self, role: str) -> int | None:
        """Return the id of the piece with a role, "bos_token" for example, or None."""
        return self.vocabulary.get(self.roles.get(role, ""))


def read_tokenizer_files(folder: Path) -> TokenizerFiles:
    """Read the tokenizer of a model folder. Raises TokenizerError if there is none, or if a file is damaged."""
    has_json = (folder / "tokenizer.json").exists()
    if not has_json and not (folder / "tokenizer.model").exists():
        raise TokenizerError(
            f"{folder} has neither tokenizer.json nor tokenizer.model: copy them from the original model"
        )
    try:
        settings = _settings(folder)
        vocabulary, flagged, encode = (_read_json_tokenizer if has_json else _read_sentencepiece)(folder)
        roles = _roles(settings, vocabulary)
        template = _chat_template(folder, settings)
    # tokenizers reports a damaged file with a plain Exception.
    except Exception as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise TokenizerError(f"the tokenizer in {folder} cannot be loaded: {reason}") from error
    return TokenizerFiles(vocabulary=vocabulary, flagged=flagged, encode=encode, roles=roles, chat_template=template)


def _settings(folder: Path) -> dict[str, Any]:
    """Return the content of tokenizer_config.json, which may be missing."""
    path = folder / "tokenizer_config.json"
    return read_json(path) if path.exists() else {}


_Read = tuple[dict[str, int], frozenset[int], Callable[[str], list[int]]]
"""The vocabulary, the ids flagged special, and the function from text to ids."""


def _read_json_tokenizer(folder: Path) -> _Read:
    from tokenizers import Tokenizer

    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.no_truncation()
    backend.no_padding()
    flagged = frozenset(token for token, piece in backend.get_added_tokens_decoder().items() if piece.special)

    def encode(text: str) -> list[int]:
        return backend.encode(text, add_special_tokens=False).ids

    return backend.get_vocab(with_added_tokens=True), flagged, encode


def _read_sentencepiece(folder: Path) -> _Read:
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor()
    processor.LoadFromFile(str(folder / "tokenizer.model"))
    size = processor.GetPieceSize()
    vocabulary = {processor.IdToPiece(token): token for token in range(size)}
    flagged = frozenset(token for token in range(size) if processor.IsControl(token) or processor.IsUnknown(token))
    # SentencePiece never reads a control piece from text: the text is cut at them.
    control = re.compile("(" + "|".join(re.escape(processor.IdToPiece(token)) for token in sorted(flagged)) + ")")

    def encode(text: str) -> list[int]:
        parts = control.split(text) if flagged else [text]
        return [
            token
            for index, part in enumerate(parts)
            for token in ([vocabulary[part]] if index % 2 else processor.EncodeAsIds(part))
        ]

    return vocabulary, flagged, encode


def _roles(settings: Mapping[str, Any], vocabulary: Mapping[str, int]) -> dict[str, str]:
    """Return the pieces with a role. A role of `_ROLES` that names no piece is an error, unless it is the default."""
    roles = {name: piece for name, piece in _ROLES.items() if piece in vocabulary}
    for name, value in settings.items():
        if not name.endswith("_token") or value is None or isinstance(value, bool):
            continue
        piece = value.get("content") if isinstance(value, dict) else value
        if not isinstance(piece, str):
            raise ConfigError(f"tokenizer_config.json gives {name} as {value!r}: it must be a text")
        if piece not in vocabulary and name in _ROLES:
            raise ConfigError(f"tokenizer_config.json gives {name} as {piece!r}, which the vocabulary lacks")
        roles[name] = piece
    return roles


def _chat_template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """Return the chat template: a file of its own, or an entry of tokenizer_config.json, which may be a list."""
    path = folder / "chat_template.jinja"
    if path.exists():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}.get("default")
    if template is not None and not isinstance(template, str):
        raise ConfigError(f"tokenizer_config.json gives chat_template as {template!r}: it must be a text")
    return template
