"""The text of a conversation, with the control tokens that mark its turns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, NoReturn

from mlx_diffgemma.errors import TokenizerError
from mlx_diffgemma.text.messages import Turn

if TYPE_CHECKING:
    from jinja2 import Template

THOUGHT_OPEN, THOUGHT_CLOSE = "<|channel>", "<channel|>"
"""The control tokens around the model's thinking."""
_FAULTS = (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError)
"""What a template may raise besides an error of Jinja; RuntimeError for a macro that calls itself without end."""
TURN_CLOSE = "<turn|>"
FALLBACK_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' or enable_thinking %}<|turn>system\n"
    "{% if enable_thinking %}<|think|>\n{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}"
    "{% set messages = messages[1:] %}{% endif %}<turn|>\n{% endif %}"
    "{% set last = namespace(question=-1) %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}{% set last.question = loop.index0 %}{% endif %}"
    "{% endfor %}"
    "{% for message in messages %}<|turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{% if message['reasoning_content'] and loop.index0 > last.question %}"
    "<|channel>thought\n{{ message['reasoning_content'] }}\n<channel|>{% endif %}"
    "{{ message['content'] | trim }}<turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn>model{{ '\n' }}{% endif %}"
)
"""The turn format of Google's release, for model folders without a chat template of their own."""


class ChatTemplate:
    """A Jinja template that writes a conversation as text; it runs in a sandbox, because it comes with the model."""

    def __init__(self, source: str | None, roles: Mapping[str, str]) -> None:
        """Keep a template; it is compiled when it is first used.

        source: None is Google's turn format. roles: the pieces that a template may name, as in {"bos_token": "<bos>"}.
        """
        self._source = FALLBACK_TEMPLATE if source is None else source
        self._roles = roles

    def render(self, turns: Sequence[Turn], *, thinking: bool, answering: bool) -> str:
        """Return the text of a conversation.

        thinking: ask the model to think first. answering: end where the model's next turn begins. Raises TokenizerError
        with the template's own reason if it refuses the messages.
        """
        from jinja2 import TemplateError

        try:
            return self._template.render(
                messages=[_as_templates_read(turn) for turn in turns],
                tools=None,
                documents=None,
                add_generation_prompt=answering,
                enable_thinking=thinking,
                **self._roles,
            )
        except (TemplateError, *_FAULTS) as error:
            raise TokenizerError(f"the chat template refused the conversation: {error}") from error

    @cached_property
    def _template(self) -> Template:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        # Blocks are trimmed as in transformers, for which templates are written.
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.filters["tojson"] = _to_json
        called_by_templates = {"raise_exception": _refuse, "strftime_now": _strftime_now}
        return environment.from_string(self._source, globals=called_by_templates)


def _as_templates_read(turn: Turn) -> dict[str, str]:
    """Return the message that templates are written for."""
    message = {"role": turn.role, "content": turn.text}
    return {**message, "reasoning_content": turn.thought} if turn.thought else message


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """Templates call this filter tojson. Jinja's own escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> NoReturn:
    """Templates call this raise_exception, for messages that they cannot write."""
    from jinja2 import TemplateError

    raise TemplateError(message)


def _strftime_now(pattern: str) -> str:
    """Templates call this strftime_now, to tell the model the date."""
    return datetime.now().strftime(pattern)
