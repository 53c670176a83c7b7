"""The messages of a conversation, and the check that a prompt is one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias, cast

from mlx_diffgemma.errors import PromptError, require_unicode

Message: TypeAlias = Mapping[str, str]
"""{"role": "system" | "user" | "assistant", "content": ...}"""


def conversation(prompt: object) -> list[Message]:
    """Return the messages of a prompt that is a conversation.

    Raises PromptError for anything but a list of at least one message with role and content.
    """
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
