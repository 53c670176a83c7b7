"""The messages of a conversation: OpenAI's shapes in, turns of parts out, and the check that a prompt is one.

A message is a mapping with role and content. Its content is a text, a list of parts like {"type": "text", "text": ...},
or None, which is an empty turn of the assistant. Every fault is named with the message's position, from 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Literal, TypeAlias, cast

from mlx_diffgemma.errors import PromptError, require_unicode

Message: TypeAlias = Mapping[str, object]
"""{"role": "system" | "developer" | "user" | "assistant", "content": text | list of parts | None}"""
Role: TypeAlias = Literal["system", "user", "assistant"]

_ROLES: Mapping[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TEXT_TYPES = ("text", "input_text", "output_text")
_THOUGHT_TYPES = ("thinking", "reasoning")
_THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking")
_HARMLESS = ("annotations", "cache_control", "id", "index", "logprobs", "name", "signature", "status", "type")
"""Keys that change nothing about what is said."""
_NOTHING = (None, "", [], {})
"""Values with which a key says nothing: programs write {"refusal": null, "tool_calls": []}."""


@dataclass(frozen=True)
class Text:
    """What a message says."""

    text: str


@dataclass(frozen=True)
class Thought:
    """What the model thought before it answered; chat templates leave it out of past turns."""

    text: str


MessagePart: TypeAlias = Text | Thought


@dataclass(frozen=True)
class Turn:
    """A message that was read: who speaks, and the parts of what is said."""

    role: Role
    parts: tuple[MessagePart, ...]

    @property
    def text(self) -> str:
        """The text parts, joined as they are."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))

    @property
    def thought(self) -> str:
        """The thoughts, a blank line between two."""
        return "\n\n".join(part.text for part in self.parts if isinstance(part, Thought))

    def mapped(self, change: Callable[[str], str]) -> Turn:
        """Return the turn with every text and thought changed."""
        return replace(self, parts=tuple(replace(part, text=change(part.text)) for part in self.parts))


def conversation(prompt: object) -> list[Turn]:
    """Return the turns of a prompt that is a list of messages; a Turn among them stays as it is.

    System messages at the beginning become one, with blank lines between them. Raises PromptError for anything but a
    list of at least one message, and for a message that cannot be said, with its position.
    """
    if not isinstance(prompt, Sequence) or isinstance(prompt, str | bytes):
        raise PromptError(f"a prompt is a text or a list of messages, not {prompt!r:.80}")
    messages = cast("Sequence[object]", prompt)
    if not messages:
        raise PromptError("the conversation is empty: give it at least one message")
    turns = [each if isinstance(each, Turn) else _turn(number, each) for number, each in enumerate(messages, 1)]
    leading = list(takewhile(lambda turn: turn.role == "system", turns))
    if len(leading) < 2:
        return turns
    joined = "\n\n".join(turn.text for turn in leading)
    return [Turn("system", (Text(joined),)), *turns[len(leading) :]]


def require_prompt(text: str) -> str:
    """Return a user's text. Raises PromptError if it is blank or not valid Unicode."""
    if not text.strip():
        raise PromptError("the prompt is empty: say what to write")
    require_unicode(text, "the prompt", PromptError)
    return text


def chat_messages(prompt: object, system: str | None) -> list[Turn]:
    """Return the turns of a prompt, a text or a conversation, after the system prompt. Raises PromptError."""
    require_unicode(system or "", "the system prompt", PromptError)
    turns = [Turn("user", (Text(require_prompt(prompt)),))] if isinstance(prompt, str) else conversation(prompt)
    if system is None:
        return turns
    if turns[0].role == "system":
        raise PromptError("the conversation has a system message and the options have another: give one of them")
    return [Turn("system", (Text(system),)), *turns]


def _turn(number: int, message: object) -> Turn:
    """Read one message. Raises PromptError that begins with its position."""
    where = f"message {number}"
    if not isinstance(message, Mapping):
        raise PromptError(f"{where}: {message!r:.80} is no message: give an object with role and content")
    entries = dict(cast("Mapping[object, object]", message))
    role = _role(where, entries.pop("role", None))
    content = entries.pop("content", None)
    said = _said(entries)
    # Servers write the same thought under two keys.
    thoughts = list(dict.fromkeys(_thought(where, key, said.pop(key)) for key in _THOUGHT_KEYS if key in said))
    _refuse_unread(where, said)
    if content is None and role != "assistant":
        raise PromptError(f"{where}: the {role} message has no content: give a text")
    if len(thoughts) > 1:
        raise PromptError(f"{where}: {', '.join(_THOUGHT_KEYS)} say different things: give one of them")
    turn = Turn(role, (*thoughts, *_parts(where, content)))
    if turn.thought and role != "assistant":
        raise PromptError(f"{where}: the {role} message has a thought: only a message of the assistant can have one")
    return turn


def _role(where: str, role: object) -> Role:
    """Return the role by its name in templates."""
    if isinstance(role, str) and role in _ROLES:
        return _ROLES[role]
    raise PromptError(f"{where}: the role {role!r:.80} is not supported: give one of {', '.join(_ROLES)}")


def _parts(where: str, content: object) -> tuple[MessagePart, ...]:
    """Read the content of a message."""
    if content is None:
        return ()
    if isinstance(content, str):
        return (Text(_unicode(where, content)),)
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise PromptError(f"{where}: the content is {content!r:.80}: give a text or a list of parts")
    return tuple(_part(where, part) for part in cast("Sequence[object]", content))


def _part(where: str, part: object) -> MessagePart:
    """Read one part of a content."""
    if not isinstance(part, Mapping):
        raise PromptError(f'{where}: {part!r:.80} is no part: give {{"type": "text", "text": ...}}')
    entries = dict(cast("Mapping[object, object]", part))
    kind = entries.pop("type", None)
    if kind in _TEXT_TYPES:
        text = entries.pop("text", None)
        _refuse_unread(where, _said(entries))
        if not isinstance(text, str):
            raise PromptError(f"{where}: the text of a part is {text!r:.80}: give a text")
        return Text(_unicode(where, text))
    if kind in _THOUGHT_TYPES:
        key = next((key for key in (kind, "text") if key in entries), kind)
        thought = _thought(where, f"the {kind} of a part", entries.pop(key, None))
        _refuse_unread(where, _said(entries))
        return thought
    raise PromptError(f"{where}: a part of type {kind!r:.80} is not supported")


def _thought(where: str, name: str, thought: object) -> Thought:
    if not isinstance(thought, str):
        raise PromptError(f"{where}: {name} is {thought!r:.80}: give a text")
    return Thought(_unicode(where, thought))


def _said(entries: Mapping[object, object]) -> dict[object, object]:
    """Return the entries that say something."""
    return {key: value for key, value in entries.items() if value not in _NOTHING}


def _refuse_unread(where: str, entries: Mapping[object, object]) -> None:
    """Raise PromptError for a key that was not read and may change what is said."""
    for key in entries:
        if key not in _HARMLESS:
            raise PromptError(f"{where}: {key!r:.80} is not supported")


def _unicode(where: str, text: str) -> str:
    require_unicode(text, f"{where}: the text", PromptError)
    return text
