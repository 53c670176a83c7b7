"""Training data: a folder with train.jsonl and valid.jsonl, in mlx-lm's formats -> examples in token ids.

A line is {"messages": [{"role": ..., "content": ...}, ..., {"role": "assistant", ...}]}, in the shapes that
text/messages.py reads, or {"prompt": ..., "completion": ...}. A Hub dataset has such rows in splits named train and
valid. The last message, the assistant's, is the response; all messages before it are the prompt.
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


class Conversation(NamedTuple):
    """Messages that end with an answer."""

    where: str
    """file and line, for messages of errors"""
    messages: Sequence[Message]


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """A prompt and its response in token ids; the response ends with its end token."""

    prompt: npt.NDArray[np.int32]
    response: npt.NDArray[np.int32]

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
    return [Conversation(line.where, parse_messages(line.where, line.value)) for line in json_lines(path)]


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
        where = f"{repository}, {split}, row {number}"
        found.append(Conversation(where, parse_messages(where, row)))
    return found


def parse_messages(where: str, parsed: object) -> list[Message]:
    """Return the messages of one record, in either form. Raises DataError whose message begins with `where`."""
    record = cast("Mapping[str, object]", parsed) if isinstance(parsed, Mapping) else {}
    question, answer, listed = record.get("prompt"), record.get("completion"), record.get("messages")
    if isinstance(question, str) and isinstance(answer, str):
        require_unicode(question + answer, f"{where}: the text", DataError)
        found: list[Message] = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    elif isinstance(listed, list):
        found = cast("list[Message]", listed)
    else:
        raise DataError(f"{where}: neither messages with role and content nor prompt and completion, all as text")
    try:
        turns = conversation(found) if found else []
    except PromptError as error:
        raise DataError(f"{where}: {error}") from None
    if len(turns) < 2 or turns[-1].role != "assistant":
        raise DataError(f"{where}: the messages must begin with a question and end with an answer of the assistant")
    if not turns[-1].text.strip():
        raise DataError(f"{where}: the answer is empty: write one, or remove the line")
    return found


def tokenize_conversations(
    conversations: Iterable[Conversation], tokenizer: Tokenizer, stop_tokens: Sequence[int], max_length: int
) -> Iterator[Example]:
    """Yield the conversations in token ids.

    Raises DataError for one of more than `max_length` tokens, and for one that the chat template renders so that prompt
    and response cannot be told apart.
    """
    for where, exchange in conversations:
        try:
            prompt, whole = tokenizer.chat(exchange[:-1]), tokenizer.finished_chat(exchange)
        except TokenizerError as error:
            raise DataError(f"{where}: {error}") from None
        if whole[: len(prompt)] != prompt:
            raise DataError(f"{where}: the chat template does not put the answer after the prompt")
        response = whole[len(prompt) :]
        end = next((n for n, token in enumerate(response) if token in stop_tokens), None)
        if end is None:
            raise DataError(f"{where}: the chat template ends the answer with no stop token")
        total = len(prompt) + end + 1
        if total > max_length:
            raise DataError(
                f"{where}: {total} tokens are more than {max_length}: shorten it, or raise --max-seq-length"
            )
        yield Example(prompt=np.array(prompt, np.int32), response=np.array(response[: end + 1], np.int32))
