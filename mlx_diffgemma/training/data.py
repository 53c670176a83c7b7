"""Training data: a folder with train.jsonl and valid.jsonl, in mlx-lm's formats -> examples in token ids.

    {"messages": [{"role": ..., "content": ...}, ..., {"role": "assistant", ...}]}    the shapes of text/messages.py
    {"prompt": ..., "completion": ...}                                                texts, or lists of messages
    {"text": ...}                                                                     causal loss alone, no template

A Hub dataset has such rows in splits named train and valid. The last message, the assistant's, is the response; all
messages before it are the prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt

from mlx_diffgemma.checkpoint.hub import REPOSITORY
from mlx_diffgemma.errors import DataError, PromptError, TokenizerError, needs_extra, require_unicode
from mlx_diffgemma.files import home_expanded, json_lines
from mlx_diffgemma.text.messages import Message, conversation
from mlx_diffgemma.text.tokenizer import Tokenizer

TRAIN, VALID = "train", "valid"


_MESSAGES, _PROMPT, _COMPLETION, _TEXT = "messages", "prompt", "completion", "text"
_FOREIGN = {
    "conversations": "ShareGPT's columns: write them as messages, with role and content for from and value",
    "instruction": "Alpaca's columns: write instruction and input as prompt, and output as completion",
    "chosen": "columns for preferences, which are not trained: write the chosen answer as completion",
}
"""A column that other formats have -> what to do with such a line."""


class Conversation(NamedTuple):
    """Messages that end with an answer, or a text."""

    where: str
    """file and line, for messages of errors"""
    messages: Sequence[Message]
    text: str | None = None
    """a text that is no conversation; there are no messages then"""


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A prompt and its response in token ids; the response ends with its end token.

    A text is a response to its first token, and is not denoised.
    """

    prompt: npt.NDArray[np.int32]
    response: npt.NDArray[np.int32]
    denoised: bool = True
    """whether the response is on canvases; if not, the causal loss alone counts"""

    def blocks(self, canvas: int) -> int:
        """Return how many canvases of length `canvas` the response needs."""
        return -(-self.response.size // canvas)


def read_conversations(data: str, split: str) -> list[Conversation]:
    """Read one split of a data folder or of a Hub dataset; a split that is missing is empty. Raises DataError."""
    folder = home_expanded(data, DataError)
    if folder.is_dir():
        return _read_file(folder / f"{split}.jsonl")
    if folder.exists() or not REPOSITORY.fullmatch(data) or data.startswith("."):
        raise DataError(f"no data at {data}: name a folder with {TRAIN}.jsonl and {VALID}.jsonl, or a Hub dataset")
    return _read_hub(data, split)


def _read_file(path: Path) -> list[Conversation]:
    if not path.exists():
        return []
    return [parse_row(line.where, line.value) for line in json_lines(path)]


def _read_hub(repository: str, split: str) -> list[Conversation]:
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError
    except ImportError:
        raise DataError(needs_extra(f"{repository} is no folder, and a Hub dataset", "datasets")) from None
    try:
        splits = cast("Mapping[str, Iterable[object]]", load_dataset(repository))
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{repository} is no folder, and the Hub dataset cannot be loaded: {reason}") from None
    found: list[Conversation] = []
    for number, row in enumerate(splits.get(split, ()), 1):
        found.append(parse_row(f"{repository}, {split}, row {number}", row))
    return found


def parse_row(where: str, parsed: object) -> Conversation:
    """Return the conversation or the text of one record. Raises DataError whose message begins with `where`."""
    row = cast("Mapping[str, object]", parsed) if isinstance(parsed, Mapping) else {}
    if row.get("tools"):
        raise DataError(f"{where}: tools are not trained in this version: remove the column, or the line")
    listed = row.get(_MESSAGES)
    if listed is None:
        listed = _exchange(row)
    if isinstance(listed, list):
        return Conversation(where, _checked(where, cast("list[Message]", listed)))
    text = row.get(_TEXT)
    if not isinstance(text, str):
        reasons = [reason for column, reason in _FOREIGN.items() if column in row]
        raise DataError(f"{where}: {reasons[0] if reasons else 'neither messages nor prompt and completion nor text'}")
    if not text.strip():
        raise DataError(f"{where}: the text is empty: write one, or remove the line")
    require_unicode(text, f"{where}: the text", DataError)
    return Conversation(where, (), text)


def _exchange(row: Mapping[str, object]) -> list[Message] | None:
    """Return prompt and completion, each a text or a list of messages, as messages; None if one of them is neither."""
    found: list[Message] = []
    for key, role in ((_PROMPT, "user"), (_COMPLETION, "assistant")):
        said = row.get(key)
        if isinstance(said, str):
            found.append({"role": role, "content": said})
        elif isinstance(said, list):
            found.extend(cast("list[Message]", said))
        else:
            return None
    return found


def _checked(where: str, messages: list[Message]) -> list[Message]:
    """Return messages that end with an answer. Raises DataError for others."""
    try:
        turns = conversation(messages) if messages else []
    except PromptError as error:
        raise DataError(f"{where}: {error}") from None
    if len(turns) < 2 or turns[-1].role != "assistant":
        raise DataError(f"{where}: the messages must begin with a question and end with an answer of the assistant")
    if not turns[-1].text.strip():
        raise DataError(f"{where}: the answer is empty: write one, or remove the line")
    return messages


def tokenize_conversations(
    conversations: Iterable[Conversation], tokenizer: Tokenizer, stop_tokens: Sequence[int], max_length: int
) -> Iterator[Example]:
    """Yield the conversations in token ids.

    Raises DataError for one of more than `max_length` tokens, and for one that the chat template renders so that prompt
    and response cannot be told apart.
    """
    for each in conversations:
        example = _text_example(each, tokenizer) if each.text is not None else _chat(each, tokenizer, stop_tokens)
        total = example.prompt.size + example.response.size
        if total > max_length:
            raise DataError(
                f"{each.where}: {total} tokens are more than {max_length}: shorten it, or raise --max-seq-length"
            )
        yield example


def _text_example(row: Conversation, tokenizer: Tokenizer) -> Example:
    ids = np.array(tokenizer.encode(row.text or ""), np.int32)
    if ids.size < 2:
        raise DataError(f"{row.where}: a text of one token teaches nothing: write more, or remove the line")
    return Example(prompt=ids[:1], response=ids[1:], denoised=False)


def _chat(row: Conversation, tokenizer: Tokenizer, stop_tokens: Sequence[int]) -> Example:
    try:
        prompt, whole = tokenizer.chat(row.messages[:-1]), tokenizer.finished_chat(row.messages)
    except TokenizerError as error:
        raise DataError(f"{row.where}: {error}") from None
    if whole[: len(prompt)] != prompt:
        raise DataError(f"{row.where}: the chat template does not put the answer after the prompt")
    response = whole[len(prompt) :]
    end = next((n for n, token in enumerate(response) if token in stop_tokens), None)
    if end is None:
        raise DataError(f"{row.where}: the chat template ends the answer with no stop token")
    return Example(prompt=np.array(prompt, np.int32), response=np.array(response[: end + 1], np.int32))
