"""What a prompt must be before it is worth a chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from mlx_diffgemma.errors import PromptError, require_unicode
from mlx_diffgemma.text.tokenizer import Message


def conversation(prompt: object) -> list[Message]:
    """The messages of a prompt that is not a text. Raises PromptError for what is no conversation."""
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes):
        raise PromptError(f"a prompt is a text or a list of messages, not {prompt!r}")
    messages = list(cast("Sequence[object]", prompt))
    if not messages:
        raise PromptError("the conversation is empty: give it at least one message")
    for message in messages:
        entries = cast("Mapping[object, object]", message) if isinstance(message, Mapping) else {}
        for key in ("role", "content"):
            text = entries.get(key)
            if not isinstance(text, str):
                raise PromptError(f"{message!r} is no message: give role and content, both text")
            require_unicode(text, "the prompt", PromptError)
    return cast("list[Message]", messages)
