"""Training data: a folder with train.jsonl and valid.jsonl, in mlx-lm's formats -> examples in token ids.

A line is {"messages": [{"role": ..., "content": ...}, ..., {"role": "assistant", ...}]} or
{"prompt": ..., "completion": ...}; a Hub dataset has such rows, in splits of these names. The last assistant turn is
the response; everything before it is the prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from mlx_diffgemma.checkpoint.hub import REPOSITORY
from mlx_diffgemma.errors import DataError, TokenizerError, require_unicode
from mlx_diffgemma.files import json_lines
from mlx_diffgemma.text.messages import Message
from mlx_diffgemma.text.tokenizer import Tokenizer

TRAIN, VALID = "train", "valid"


class Conversation(NamedTuple):
    """Messages that end with an answer, and where they stand."""

    where: str
    messages: Sequence[Message]


@dataclass(frozen=True, kw_only=True, eq=False)
class Example:
    """One exchange in token ids; the response ends with its end token."""

    prompt: npt.NDArray[np.int32]
    response: npt.NDArray[np.int32]

    def blocks(self, canvas: int) -> int:
        """How many canvases the response fills."""
        return -(-self.response.size // canvas)


def conversations(data: str, name: str) -> list[Conversation]:
    """The conversations of the split `name`, of a folder or a Hub dataset. Raises DataError."""
    folder = Path(data).expanduser()
    if folder.is_dir():
        return _of_file(folder / f"{name}.jsonl")
    if folder.exists() or not REPOSITORY.fullmatch(data) or data.startswith("."):
        raise DataError(f"no data at {data}: name a folder with {TRAIN}.jsonl and {VALID}.jsonl, or a Hub dataset")
    return _of_hub(data, name)


def _of_file(path: Path) -> list[Conversation]:
    if not path.exists():
        return []
    return [Conversation(line.where, messages(line.where, line.value)) for line in json_lines(path)]


def _of_hub(repository: str, name: str) -> list[Conversation]:
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetsError
    except ImportError:
        raise DataError(
            f"{repository} is no folder, and a Hub dataset needs a package more: pip install 'mlx-diffgemma[datasets]'"
        ) from None
    try:
        splits = cast("Mapping[str, Iterable[object]]", load_dataset(repository))
    except (OSError, ValueError, RuntimeError, DatasetsError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{repository} is no folder, and the Hub dataset cannot be loaded: {reason}") from None
    rows = enumerate(splits.get(name, ()), 1)
    where = f"{repository}, {name}, row"
    return [Conversation(f"{where} {number}", messages(f"{where} {number}", row)) for number, row in rows]


def messages(where: str, parsed: object) -> list[Message]:
    """The messages of one record, whichever of the two forms it has. Raises DataError beginning with `where`."""
    record = cast("Mapping[str, Any]", parsed) if isinstance(parsed, Mapping) else {}
    question, answer = record.get("prompt"), record.get("completion")
    if isinstance(question, str) and isinstance(answer, str):
        found: list[Message] = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    else:
        listed = record.get("messages")
        if not isinstance(listed, list) or not all(map(_is_message, cast("list[object]", listed))):
            raise DataError(f"{where}: neither messages with role and content nor prompt and completion, all text")
        found = cast("list[Message]", listed)
    if len(found) < 2 or found[-1]["role"] != "assistant":
        raise DataError(f"{where}: the messages must be a question and an answer of the assistant at the end")
    if not found[-1]["content"].strip():
        raise DataError(f"{where}: the answer is empty")
    for message in found:
        require_unicode(message["role"] + message["content"], f"{where}: the text", DataError)
    return found


def _is_message(message: object) -> bool:
    entries = cast("Mapping[str, object]", message) if isinstance(message, Mapping) else {}
    return all(isinstance(entries.get(key), str) for key in ("role", "content"))


def tokenized(
    conversations: Iterable[Conversation], tokenizer: Tokenizer, stops: Sequence[int], longest: int
) -> Iterator[Example]:
    """The conversations in token ids. Raises DataError for one longer than `longest`, or that the template bends."""
    for where, exchange in conversations:
        try:
            prompt, whole = tokenizer.chat(exchange[:-1]), tokenizer.finished_chat(exchange)
        except TokenizerError as error:
            raise DataError(f"{where}: {error}") from None
        if whole[: len(prompt)] != prompt:
            raise DataError(f"{where}: the chat template does not put the answer behind the prompt")
        response = whole[len(prompt) :]
        end = next((place for place, token in enumerate(response) if token in stops), None)
        if end is None:
            raise DataError(f"{where}: the chat template ends the answer with no stop token")
        total = len(prompt) + end + 1
        if total > longest:
            raise DataError(f"{where}: {total} tokens are more than {longest}: shorten it, or raise --max-seq-length")
        yield Example(prompt=np.array(prompt, np.int32), response=np.array(response[: end + 1], np.int32))
