"""What a model needs to begin an answer, made of what a user says: tokens, constraint, kept prefixes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TypeAlias

from mlx_diffgemma.constraint.automata.thinking import after_thinking
from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.constraint.cache import Vocabulary, automaton_of
from mlx_diffgemma.constraint.spec import Choices
from mlx_diffgemma.errors import (
    ConstraintError,
    OptionError,
    PromptError,
    TemplateError,
    TokenizerError,
    require_unicode,
)
from mlx_diffgemma.events import Event
from mlx_diffgemma.generation.job import Job, check_lengths
from mlx_diffgemma.generation.loop import AnyJob, Task
from mlx_diffgemma.generation.prefill import read_from, read_whole
from mlx_diffgemma.generation.prefixes import Prefixes
from mlx_diffgemma.generation.scoring import log_probabilities
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.infilling.boundaries import Boundaries, TokenPart
from mlx_diffgemma.infilling.filling import canvas_capacity, fill_template
from mlx_diffgemma.infilling.prompts import check_span, edit_gap, edit_parts, infill_prompt
from mlx_diffgemma.infilling.template import Gap, Part, parse
from mlx_diffgemma.infilling.windows import fits
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.prefix import BothSources, Prefix, Reuse, common_length
from mlx_diffgemma.sampling.stop_strings import StopStrings
from mlx_diffgemma.text.event_text import EventText
from mlx_diffgemma.text.messages import Message, Text, Turn, chat_messages, require_prompt
from mlx_diffgemma.text.tokenizer import Tokenizer

Prompt: TypeAlias = str | Sequence[Message]
"""What to answer: the text of a user, or a conversation."""
Configs: TypeAlias = GenerationConfig | Sequence[GenerationConfig] | None
"""The options of all prompts, or of each; None is the checkpoint's own."""
BATCH_SIZE = 8
"""Prompts that are answered side by side by default."""
KeptPrefix: TypeAlias = Prefix | Prefixes | None
"""What was read before: one prefix, with which the prompt must begin, or a store of them."""


class Preparation:
    """Prepares the jobs of one model and tokenizer; what takes long to make is made once."""

    def __init__(self, model: DiffusionGemma, tokenizer: Tokenizer) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._boundaries: dict[tuple[int, ...], Boundaries] = {}

    def tokens(self, prompt: Prompt, config: GenerationConfig) -> list[int]:
        """Return the token ids that the model reads for a prompt. Raises PromptError for an empty prompt."""
        if not config.raw:
            return self._tokenizer.chat(chat_messages(prompt, config.system), thinking=config.thinking)
        if not isinstance(prompt, str):
            raise PromptError("a conversation needs the chat template: with raw give a text")
        return self._tokenizer.encode(require_prompt(prompt))

    def job(self, prompt: Prompt, config: GenerationConfig, prefix: KeptPrefix = None) -> Job:
        """Return the job that answers a prompt. Raises whatever is wrong with the prompt or the options."""
        tokens = self.tokens(prompt, config)
        reuse = self.reuse(prompt, config, tokens, prefix)
        job = Job(
            tokens=tokens,
            config=config,
            constraint=self.constraint(config),
            stop_strings=self._stop_strings(config),
            padding=self._tokenizer.pad,
            reuse=reuse,
        )
        check_lengths(self._model, job)
        return job

    def scoring(
        self, prompt: Prompt, choices: Sequence[str], config: GenerationConfig, prefix: KeptPrefix = None
    ) -> Callable[[], list[float]]:
        """Return the computation of the log-probability of each choice as the answer to a prompt."""
        job = self.job(prompt, replace(config, constraint=Choices(choices), stop=()), prefix)
        assert job.constraint is not None
        answers = [self._tokenizer.literal(choice) for choice in choices]
        return partial(log_probabilities, self._model, job.tokens, answers, job.constraint.stops, job.reuse)

    def constraint(self, config: GenerationConfig) -> TokenAutomaton | None:
        """Return the constraint of an answer over this model's tokens, None if it has none. Raises ConstraintError."""
        if config.constraint is None:
            return None
        if not config.stop_tokens:
            raise ConstraintError("stop_tokens is empty: an answer with a constraint needs a token to end with")
        automaton = automaton_of(config.constraint, self._vocabulary, config.stop_tokens, config.allow_empty)
        opening, closing = self._tokenizer.channels
        if not config.thinking or opening is None or closing is None:
            return automaton
        return after_thinking(automaton, self._vocabulary.token_bytes, opening, closing)

    def _stop_strings(self, config: GenerationConfig) -> StopStrings | None:
        if not config.stop:
            return None
        return StopStrings(
            stops=tuple(stop.encode() for stop in config.stop),
            token_bytes=self._tokenizer.all_token_bytes,
            channels=self._tokenizer.channels,
        )

    def event_text(self, work: AnyJob) -> EventText:
        """Return what attaches text to the events of a job or task."""
        return EventText(self._tokenizer, work.config.stop if isinstance(work, Job) else ())

    def reuse(
        self, prompt: Prompt, config: GenerationConfig, tokens: Sequence[int], prefix: KeptPrefix
    ) -> Reuse | None:
        """Return how a prompt of these tokens uses `prefix`. Raises PromptError if it does not begin with the prefix.

        In a store, prefixes are kept at the end of the system prompt, before the last message, and at the prompt's end.
        """
        if prefix is None:
            return None
        if isinstance(prefix, Prefix):
            require_beginning(tokens, prefix)
            return Reuse(prefix, ends=(len(prefix.tokens),))
        system_end, last_begins = self._message_ends(prompt, config, tokens)
        ends = tuple(end for end in {system_end, last_begins, len(tokens)} if end)
        return Reuse(prefix, ends, system_end)

    def read(self, prompt: Prompt, config: GenerationConfig, prefix: KeptPrefix = None) -> tuple[Prefix, Task]:
        """Return the prefix of messages, without the beginning of an answer, and the task that reads it."""
        if config.raw:
            tokens = self.tokens(prompt, config)
        else:
            tokens = self._tokenizer.finished_chat(chat_messages(prompt, config.system), thinking=config.thinking)
        wanted = Prefix(tuple(tokens))
        reuse = self.reuse(prompt, config, tokens, prefix)
        return wanted, lambda: read_prefix(self._model, wanted, reuse)

    def continued(self, prompt: Prompt, config: GenerationConfig, prefix: Prefix) -> tuple[Job, Prefix]:
        """Return the job that answers a prompt, and the prefix that will hold the whole prompt when it is read."""
        job = self.job(prompt, config, prefix)
        asked = Prefix(tuple(job.tokens))
        ends = (len(prefix.tokens), len(asked.tokens))
        return replace(job, reuse=Reuse(BothSources(prefix, asked), ends)), asked

    def answered(self, prompt: Prompt, config: GenerationConfig, answer: str, asked: Prefix) -> Prefix:
        """Return the prefix of a conversation up to the end of its answer, which is read when it is first used."""
        if config.raw:
            return asked
        turns = [*chat_messages(prompt, config.system), Turn("assistant", (Text(answer),))]
        tokens = tuple(self._tokenizer.finished_chat(turns, thinking=config.thinking))
        return Prefix(tokens, asked.cache if asked.find(tokens) is not None else None)

    def _message_ends(self, prompt: Prompt, config: GenerationConfig, tokens: Sequence[int]) -> tuple[int, int]:
        """Return how many tokens the system prompt has, and how many are before the last message; 0 if unknown."""
        if config.raw:
            return 0, 0
        turns = chat_messages(prompt, config.system)
        system, before_last = int(turns[0].role == "system"), len(turns) - 1
        ends = {count: self._end_of(turns[:count], config, tokens) for count in {system, before_last}}
        return ends[system], ends[before_last]

    def _end_of(self, turns: Sequence[Turn], config: GenerationConfig, tokens: Sequence[int]) -> int:
        """Return how many tokens these first turns are, 0 if the tokens do not begin with theirs."""
        if not turns:
            return 0
        try:
            beginning = self._tokenizer.finished_chat(turns, thinking=config.thinking)
        except TokenizerError:
            # A template may refuse a conversation that is not whole.
            return 0
        return len(beginning) if list(tokens[: len(beginning)]) == beginning else 0

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary.of(self._tokenizer.all_token_bytes, self._model.config.vocab_size)

    def fill(
        self, parts: Sequence[TokenPart], prompt: str, config: GenerationConfig, prefix: KeptPrefix = None
    ) -> Task:
        """Return the task that fills the gaps of a template. Raises what `fill_template` raises, and OptionError."""
        if config.constraint is not None:
            raise OptionError("regex, json_schema and choices belong to a gap: give Gap(regex=...)")
        tokens = self.tokens(prompt, config)
        reuse = self.reuse(prompt, config, tokens, prefix)
        events = fill_template(self._model, self.boundaries(config), tokens, parts, config, reuse=reuse)
        return lambda: events

    def infill(
        self, parts: Sequence[Part], instruction: str | None, config: GenerationConfig, prefix: KeptPrefix = None
    ) -> Task:
        """Return the task that fills a template as an instruction says."""
        token_parts = self.boundaries(config).token_parts(parts)
        shown = not fits(token_parts, canvas_capacity(self._model, config))
        return self.fill(token_parts, infill_prompt(parts, instruction, shown=shown), config, prefix)

    def edit(self, parts: Sequence[Part], prompt: str, config: GenerationConfig) -> Task:
        """Return the task that fills the template of an edit; prompt: what the model is asked."""
        return self.fill(self.boundaries(config).token_parts(parts), prompt, config)

    def edit_template(self, text: str, span: tuple[int, int], gap: Gap | None) -> tuple[Part, ...]:
        """Return the template whose gap is a span of a text. Raises TemplateError for a span outside the text."""
        check_span(text, span)
        require_unicode(text, "the text", TemplateError)
        gap = gap or edit_gap(len(self._tokenizer.literal(text[slice(*span)])))
        return parse(edit_parts(text, span, gap))

    def boundaries(self, config: GenerationConfig) -> Boundaries:
        """Return the boundaries for the stop tokens of `config`; they are made once, for their tables are large."""
        stops = config.stop_tokens
        if stops not in self._boundaries:
            self._boundaries[stops] = Boundaries(self._tokenizer, self._vocabulary, stops)
        return self._boundaries[stops]


def are_many(prompt: Prompt | Sequence[Prompt]) -> bool:
    """Whether this is a list of prompts, texts or conversations, rather than one conversation."""
    return not isinstance(prompt, str) and all(not isinstance(each, Mapping) for each in prompt) and len(prompt) > 0


def config_of_each(config: Configs, count: int) -> Sequence[GenerationConfig | None]:
    """Return the options of each of `count` prompts. Raises OptionError if there are more or fewer."""
    configs = config if isinstance(config, Sequence) else [config] * count
    if len(configs) != count:
        raise OptionError(f"{len(configs)} configs for {count} prompts: give one for all, or one for each")
    return configs


def require_beginning(tokens: Sequence[int], prefix: Prefix) -> None:
    """Raise PromptError if these tokens do not begin with those of the prefix."""
    same = common_length(tokens, prefix.tokens)
    if same < len(prefix.tokens):
        raise PromptError(
            f"the prompt does not begin with the prefix: they differ from token {same + 1} on; "
            "give the messages of the prefix, then the new ones"
        )


def read_prefix(model: DiffusionGemma, prefix: Prefix, reuse: Reuse | None) -> Iterator[Event]:
    """Read a prefix, as far as it was not read before, and keep its cache in it."""
    reading = read_from(model, prefix.tokens, reuse)
    yield from read_whole(model, reading)
    prefix.cache = reading.cache.snapshot()
