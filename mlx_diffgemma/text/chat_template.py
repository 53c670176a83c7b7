"""The text of a conversation, with the control tokens that mark its turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mlx_diffgemma.errors import TokenizerError
from mlx_diffgemma.text.messages import Message

if TYPE_CHECKING:
    from mlx_lm.tokenizer_utils import TokenizerWrapper

THOUGHT_OPEN, THOUGHT_CLOSE = "<|channel>", "<channel|>"
"""The control tokens around the model's thinking."""
THOUGHT_NAME = "thought\n"
"""The name of the channel, with which the model begins its thinking; it is no part of the thought."""
TURN_CLOSE = "<turn|>"
FALLBACK_TEMPLATE = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' or enable_thinking %}<|turn>system\n"
    "{% if enable_thinking %}<|think|>\n{% endif %}"
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] | trim }}"
    "{% set messages = messages[1:] %}{% endif %}<turn|>\n{% endif %}"
    "{% for message in messages %}<|turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
    "{{ message['content'] | trim }}<turn|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|turn>model{{ '\n' }}{% endif %}"
)
"""The turn format of Google's release, for model folders without a chat template of their own."""


def render_chat(wrapper: TokenizerWrapper, messages: Sequence[Message], *, thinking: bool, answering: bool) -> str:
    """Return the text of a conversation.

    thinking: ask the model to think first. answering: end where the model's next turn begins. Raises TokenizerError
    with the template's own reason if it refuses the messages.
    """
    from jinja2 import TemplateError

    try:
        return wrapper.apply_chat_template(
            list(messages),
            tokenize=False,
            add_generation_prompt=answering,
            enable_thinking=thinking,
            chat_template=None if wrapper.chat_template else FALLBACK_TEMPLATE,
        )
    except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        raise TokenizerError(f"the chat template refused the conversation: {error}") from error
