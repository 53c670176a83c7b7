"""Answer a prompt with an autoregressive model: chat template -> tokens -> chunks of text."""

from __future__ import annotations

import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import redirect_stdout
from typing import NamedTuple

import mlx.core as mx

from mlx_diffgemma.autoregressive.language_model import LanguageModel
from mlx_diffgemma.errors import AutoregressiveError, out_of_memory


class Chunk(NamedTuple):
    """The text that one more token adds to an answer, thinking included."""

    text: str
    tokens: int
    """tokens of the answer up to here"""
    finish_reason: str | None
    """"stop" or "length" in the last chunk, None before"""


def prompt_tokens(
    language_model: LanguageModel, messages: Sequence[Mapping[str, str]], *, thinking: bool = False
) -> list[int]:
    """Return the token ids of a conversation in the model's chat template.

    A model without a chat template continues the text of a single user message. Raises AutoregressiveError.
    """
    from jinja2 import TemplateError

    name, tokenizer = language_model.name, language_model.tokenizer
    if not tokenizer.has_chat_template:
        if [message["role"] for message in messages] != ["user"]:
            raise AutoregressiveError(f"{name} has no chat template: leave out the system prompt")
        return list(tokenizer.encode(messages[0]["content"]))
    try:
        return list(tokenizer.apply_chat_template(messages, add_generation_prompt=True, enable_thinking=thinking))
    except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
        raise AutoregressiveError(f"{name} refused a prompt in its chat template: {error}") from error


def stream_answer(language_model: LanguageModel, tokens: Sequence[int], max_tokens: int, seed: int) -> Generator[Chunk]:
    """Yield an answer of at most `max_tokens` tokens, sampled with the options of the model's folder.

    What mlx-lm prints goes to stderr. Raises OutOfMemoryError.
    """
    from mlx_lm.generate import stream_generate
    from mlx_lm.sample_utils import make_sampler

    name, model, tokenizer, _, options = language_model
    sampler = make_sampler(options["temperature"], options["top_p"], options["min_p"], top_k=int(options["top_k"]))
    mx.random.seed(seed)
    parts = stream_generate(model, tokenizer, list(tokens), max_tokens, sampler=sampler)
    with out_of_memory(f"running {name}", "choose a smaller model"):
        while True:
            # Only around each step: between steps stdout belongs to the caller.
            with redirect_stdout(sys.stderr):
                part = next(parts, None)
            if part is None:
                return
            yield Chunk(part.text, part.generation_tokens, part.finish_reason)


def without_thought(language_model: LanguageModel, text: str) -> str:
    """Return an answer without its thinking, by the marks of the model's tokenizer."""
    return text_after_thought(text, language_model.tokenizer.think_start, language_model.tokenizer.think_end)


def text_after_thought(text: str, opening: str | None, closing: str | None) -> str:
    """Return what follows the mark `closing`, or else what precedes the mark `opening`; None: there is no such mark.

    The opening mark may be missing because the chat template wrote it, the closing one because the answer was cut.
    """
    if closing is not None and closing in text:
        return text.rpartition(closing)[2].lstrip()
    return text.partition(opening)[0] if opening is not None else text
