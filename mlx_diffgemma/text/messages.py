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


def require_prompt(text: str) -> str:
    """Return a user's text. Raises PromptError if it is blank or not valid Unicode."""
    if not text.strip():
        raise PromptError("the prompt is empty: say what to write")
    require_unicode(text, "the prompt", PromptError)
    return text


def chat_messages(prompt: object, system: str | None) -> list[Message]:
    """Return the messages of a prompt, a text or a conversation, after the system prompt. Raises PromptError."""
    require_unicode(system or "", "the system prompt", PromptError)
    if isinstance(prompt, str):
        messages: list[Message] = [{"role": "user", "content": require_prompt(prompt)}]
    else:
        messages = conversation(prompt)
    if system is None:
        return messages
    if messages[0].get("role") == "system":
        raise PromptError("the conversation has a system message and the options have another: give one of them")
    return [{"role": "system", "content": system}, *messages]
