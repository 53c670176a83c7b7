"""Text in, text out: a model and its tokenizer, ready to answer. Nothing is kept between calls but those two."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias, cast

from mlx_diffgemma.adapters import load_adapter, read_settings
from mlx_diffgemma.engine import stream as stream_tokens
from mlx_diffgemma.errors import DiffGemmaError, PromptError, out_of_memory
from mlx_diffgemma.events import BlockCommitted, Denoised, Event, Finished, FinishReason, Stats
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.hub import resolve
from mlx_diffgemma.model import DiffusionGemma
from mlx_diffgemma.tokenizer import Message, Tokenizer, Transcript, load_tokenizer
from mlx_diffgemma.weights import open_checkpoint

Prompt: TypeAlias = str | Sequence[Message]
"""What to answer: one user message, or a conversation."""


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A finished answer. `tokens` include the end token and the thinking, `text` neither; `thought` is the thinking."""

    text: str
    thought: str
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    stats: Stats


class Session:
    """A loaded model. Any thread may use it, several at once too; `defaults` are the checkpoint's own options."""

    def __init__(self, model: DiffusionGemma, tokenizer: Tokenizer, defaults: GenerationConfig) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.defaults = defaults

    def stream(self, prompt: Prompt, config: GenerationConfig | None = None) -> Generator[Event]:
        """Generate an answer, yielding every event with its text attached. What is wrong is said at once.

        `config` is used as given; start from `defaults` to keep the checkpoint's options:
        `dataclasses.replace(session.defaults, max_tokens=64)`. Raises PromptError, OptionError, TokenizerError,
        OutOfMemoryError.
        """
        config = config or self.defaults
        return self._with_text(stream_tokens(self.model, self.tokens(prompt, config), config))

    def _with_text(self, events: Iterator[Event]) -> Generator[Event]:
        transcript = Transcript(self.tokenizer)
        with out_of_memory("generating", "lower canvas_length, or shorten the prompt"):
            for event in events:
                match event:
                    case Denoised(best=best):
                        pieces = self.tokenizer.pieces(best)
                        yield replace(event, pieces=pieces, thought=transcript.thought_positions(best))
                    case BlockCommitted(tokens=added, last=last):
                        text, thought = transcript.add(added, last=last)
                        yield replace(event, text=text, thought=thought)
                    case _:
                        yield event

    def generate(self, prompt: Prompt, config: GenerationConfig | None = None) -> Completion:
        """The answer of `stream`, whole."""
        return gather(self.stream(prompt, config))

    def tokens(self, prompt: Prompt, config: GenerationConfig | None = None) -> list[int]:
        """The ids that the model is given for a prompt. Raises PromptError for one that says nothing."""
        config = config or self.defaults
        _require_unicode(config.system)
        if isinstance(prompt, str):
            if not prompt.strip():
                raise PromptError("the prompt is empty: say what to write")
            _require_unicode(prompt)
            if config.raw:
                return self.tokenizer.encode(prompt)
            messages: list[Message] = [{"role": "user", "content": prompt}]
        else:
            if config.raw:
                raise PromptError("a conversation needs the chat template: give raw a text")
            messages = _conversation(prompt)
        if config.system is not None:
            if messages[0].get("role") == "system":
                raise PromptError("the conversation has a system message and the options another: give one of them")
            messages = [{"role": "system", "content": config.system}, *messages]
        return self.tokenizer.chat(messages, thinking=config.thinking)


def _conversation(prompt: object) -> list[Message]:
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
            _require_unicode(text)
    return cast("list[Message]", messages)


def _require_unicode(text: str | None) -> None:
    """Raise PromptError for text with half characters in it, as undecodable bytes of a command line become."""
    try:
        (text or "").encode()
    except UnicodeEncodeError as error:
        raise PromptError(f"the prompt is not valid Unicode at character {error.start}: remove that") from None


def gather(events: Iterator[Event]) -> Completion:
    """Drain the events of one generation into its Completion."""
    text, thought = "", ""
    tokens: list[int] = []
    for event in events:
        match event:
            case BlockCommitted():
                tokens += event.tokens
                text += event.text
                thought += event.thought
            case Finished(reason=reason, stats=stats):
                return Completion(text=text, thought=thought, tokens=tuple(tokens), finish_reason=reason, stats=stats)
            case _:
                pass
    raise DiffGemmaError("the events ended before the generation did")


def load(
    model: str | Path,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    adapter: str | Path | None = None,
) -> Session:
    """Load a model from a folder or a Hub repository id; "demo" is the small one in the package.

    revision: branch, tag or commit of a Hub repository. dtype: "bfloat16" or "float32" to compute in; None is bfloat16
    on a GPU and float32 on the CPU. adapter: folder of an adapter to put on the model. Raises a DiffGemmaError that
    says what is wrong with the folder.
    """
    folder = resolve(model, revision)
    # Everything else comes first: whatever is wrong is found out before gigabytes are read.
    checkpoint = open_checkpoint(folder, dtype)
    tokenizer = load_tokenizer(folder)
    changes = None if adapter is None else Path(adapter).expanduser()
    if changes is not None:
        read_settings(changes)
    loaded = checkpoint.load()
    if changes is not None:
        load_adapter(loaded, changes)
    return Session(loaded, tokenizer, checkpoint.defaults)
