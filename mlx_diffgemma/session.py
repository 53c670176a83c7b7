"""A loaded model and its tokenizer, ready to answer. Calls share nothing else, and leave nothing behind."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeAlias, Unpack, cast, overload

from mlx_diffgemma.completion import Completion, gather, with_text
from mlx_diffgemma.constraint.cache import Vocabulary, automaton_of
from mlx_diffgemma.constraint.spec import is_free, pattern_of
from mlx_diffgemma.constraint.thinking import after_thinking
from mlx_diffgemma.constraint.token_automaton import TokenAutomaton
from mlx_diffgemma.device.wired import wired
from mlx_diffgemma.errors import (
    ConstraintError,
    OptionError,
    PromptError,
    TemplateError,
    out_of_memory,
    require_unicode,
)
from mlx_diffgemma.events import BlockCommitted, Event, Finished
from mlx_diffgemma.generation.engine import Job, check_lengths
from mlx_diffgemma.generation.engine import stream as stream_tokens
from mlx_diffgemma.generation.engine import stream_many as stream_jobs
from mlx_diffgemma.generation.scoring import log_probabilities, relative_probabilities
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.generation_options import GenerationOptions, UnconstrainedOptions, configured
from mlx_diffgemma.infilling.boundaries import Boundaries, TokenPart
from mlx_diffgemma.infilling.filling import canvas_capacity, fill_template
from mlx_diffgemma.infilling.prompts import check_span, edit_gap, edit_parts, edit_prompt, infill_prompt
from mlx_diffgemma.infilling.result import Infilled, gather_filled
from mlx_diffgemma.infilling.template import MARKER, Gap, Part, Template, parse
from mlx_diffgemma.infilling.windows import fits
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.text.messages import Message, chat_messages, require_prompt
from mlx_diffgemma.text.tokenizer import Tokenizer

Prompt: TypeAlias = str | Sequence[Message]
"""What to answer: the text of a user, or a conversation."""
Configs: TypeAlias = GenerationConfig | Sequence[GenerationConfig] | None
"""The options of all prompts, or of each; None is the checkpoint's own."""

BATCH_SIZE = 8
"""Prompts that are answered side by side by default."""


class Session:
    """A loaded model, for any thread and for several at once. `defaults` are the checkpoint's own options."""

    def __init__(self, model: DiffusionGemma, tokenizer: Tokenizer, defaults: GenerationConfig) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.defaults = defaults
        self._boundaries: dict[tuple[int, ...], Boundaries] = {}

    def stream(
        self, prompt: Prompt, config: GenerationConfig | None = None, **options: Unpack[GenerationOptions]
    ) -> Generator[Event]:
        """Answer a prompt, yielding every event with its text. Whatever is wrong is raised at once.

        options: in place of those of `config`, which are the checkpoint's own unless given; see GenerationOptions.
        Raises PromptError, OptionError, ConstraintError, TokenizerError, OutOfMemoryError.
        """
        config = self._config(config, options)
        job = self._job(prompt, config)
        events = stream_tokens(self.model, job.tokens, config, constraint=job.constraint)
        return (event for _, event in self._guarded((0, event) for event in events))

    def stream_many(
        self,
        prompts: Sequence[Prompt],
        config: Configs = None,
        *,
        batch_size: int = BATCH_SIZE,
        **options: Unpack[GenerationOptions],
    ) -> Generator[tuple[int, Event]]:
        """Answer prompts side by side, yielding the number of the prompt, from 0, and an event of its answer.

        config: one for all prompts, or one for each; the options apply to all. batch_size: canvases that are denoised
        together; when an answer is finished, the next prompt begins. The events of a prompt are those of `stream`,
        which raises the same errors.
        """
        if batch_size < 1:
            raise OptionError(f"batch_size={batch_size} must be at least 1")
        configs = config if isinstance(config, Sequence) else [config] * len(prompts)
        if len(configs) != len(prompts):
            raise OptionError(f"{len(configs)} configs for {len(prompts)} prompts: give one for all, or one for each")
        jobs = [self._job(prompt, self._config(each, options)) for prompt, each in zip(prompts, configs, strict=True)]
        for job in jobs:
            check_lengths(self.model, job)
        return self._guarded(stream_jobs(self.model, jobs, width=min(batch_size, len(jobs))))

    def _job(self, prompt: Prompt, config: GenerationConfig) -> Job:
        return Job(tokens=self.tokens(prompt, config), config=config, constraint=self.constraint(config))

    def constraint(self, config: GenerationConfig) -> TokenAutomaton | None:
        """Return the constraint of an answer over this model's tokens, None if it has none. Raises ConstraintError."""
        pattern = pattern_of(config)
        if pattern is None:
            return None
        if not config.stop_tokens:
            raise ConstraintError("stop_tokens is empty: an answer with a constraint needs a token to end with")
        automaton = automaton_of(pattern, self._vocabulary, config.stop_tokens, config.allow_empty)
        opening, closing = self.tokenizer.thought_open, self.tokenizer.thought_close
        if not config.thinking or opening is None or closing is None:
            return automaton
        return after_thinking(automaton, self._vocabulary.token_bytes, opening, closing)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary.of(self.tokenizer.all_token_bytes, self.model.config.vocab_size)

    def _config(self, config: GenerationConfig | None, options: Mapping[str, Any]) -> GenerationConfig:
        """Return the options of a call: keywords in place of those of `config` or, without one, of the checkpoint."""
        return configured(self.defaults if config is None else config, options)

    def _guarded(self, events: Iterable[tuple[int, Event]]) -> Generator[tuple[int, Event]]:
        """Attach text to the events, with the model's memory wired and allocation failures reported as one error."""
        with wired(), out_of_memory("generating", "lower canvas_length or batch_size, or shorten the prompt"):
            yield from with_text(self.tokenizer, events)

    @overload
    def generate(
        self,
        prompt: str | Sequence[Message],
        config: GenerationConfig | None = None,
        **options: Unpack[GenerationOptions],
    ) -> Completion: ...

    @overload
    def generate(
        self,
        prompt: list[str] | list[list[Message]] | list[Prompt],
        config: Configs = None,
        *,
        batch_size: int = BATCH_SIZE,
        **options: Unpack[GenerationOptions],
    ) -> list[Completion]: ...

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        config: Configs = None,
        *,
        batch_size: int = BATCH_SIZE,
        **options: Unpack[GenerationOptions],
    ) -> Completion | list[Completion]:
        """Return the answer of `stream`; for a list of prompts the answers of `stream_many`, in the same order."""
        if not are_many(prompt):
            return gather(self.stream(cast("Prompt", prompt), cast("GenerationConfig | None", config), **options))
        prompts = cast("Sequence[Prompt]", prompt)
        events_of: list[list[Event]] = [[] for _ in prompts]
        for number, event in self.stream_many(prompts, config, batch_size=batch_size, **options):
            # The steps of a canvas are many, and its Completion does not need them.
            if isinstance(event, BlockCommitted | Finished):
                events_of[number].append(event)
        return [gather(events) for events in events_of]

    def stream_infill(
        self,
        template: Template,
        instruction: str | None = None,
        config: GenerationConfig | None = None,
        *,
        marker: str = MARKER,
        **options: Unpack[UnconstrainedOptions],
    ) -> Generator[Event]:
        """Fill the gaps of a template, yielding every event with its text. Whatever is wrong is raised at once.

        template: a text with markers, or texts and Gaps, see `template.parse`. instruction: what to write; None shows
        the model the template. Options that only a whole answer can have, such as `trim`, change nothing. Raises what
        `stream` raises, and TemplateError.
        """
        return self._infill(parse(template, marker), instruction, self._config(config, options))

    def infill(
        self,
        template: Template,
        instruction: str | None = None,
        config: GenerationConfig | None = None,
        *,
        marker: str = MARKER,
        **options: Unpack[UnconstrainedOptions],
    ) -> Infilled:
        """Return the filled template of `stream_infill`; the text around the gaps is unchanged, byte for byte."""
        parts = parse(template, marker)
        return gather_filled(parts, self._infill(parts, instruction, self._config(config, options)))

    def _infill(self, parts: Sequence[Part], instruction: str | None, config: GenerationConfig) -> Generator[Event]:
        """Fill the gaps of a parsed template."""
        token_parts = self._boundaries_of(config).token_parts(parts)
        shown = not fits(token_parts, canvas_capacity(self.model, config))
        return self._fill(token_parts, infill_prompt(parts, instruction, shown=shown), config)

    def stream_edit(
        self,
        text: str,
        instruction: str,
        span: tuple[int, int],
        config: GenerationConfig | None = None,
        *,
        gap: Gap | None = None,
        **options: Unpack[UnconstrainedOptions],
    ) -> Generator[Event]:
        """Rewrite the characters from span[0] up to span[1] as `instruction` says, yielding every event.

        gap: how many tokens the new text has; None is half to twice as many as the old one, and a few. Raises what
        `stream_infill` raises.
        """
        parts = self.edit_template(text, span, gap)
        return self._edit(parts, edit_prompt(text, instruction, span), self._config(config, options))

    def edit(
        self,
        text: str,
        instruction: str,
        span: tuple[int, int],
        config: GenerationConfig | None = None,
        *,
        gap: Gap | None = None,
        **options: Unpack[UnconstrainedOptions],
    ) -> Infilled:
        """Return the text of `stream_edit`; every other character is unchanged."""
        parts = self.edit_template(text, span, gap)
        events = self._edit(parts, edit_prompt(text, instruction, span), self._config(config, options))
        return gather_filled(parts, events)

    def _edit(self, parts: Sequence[Part], prompt: str, config: GenerationConfig) -> Generator[Event]:
        """Fill the template of an edit."""
        return self._fill(self._boundaries_of(config).token_parts(parts), prompt, config)

    def edit_template(self, text: str, span: tuple[int, int], gap: Gap | None = None) -> tuple[Part, ...]:
        """Return the template that `edit` fills. Raises TemplateError for a span outside the text."""
        check_span(text, span)
        require_unicode(text, "the text", TemplateError)
        gap = gap or edit_gap(len(self.tokenizer.literal(text[slice(*span)])))
        return parse(edit_parts(text, span, gap))

    def _boundaries_of(self, config: GenerationConfig) -> Boundaries:
        """Return the boundaries for the stop tokens of `config`; they are made once, for their tables are large."""
        stops = config.stop_tokens
        if stops not in self._boundaries:
            self._boundaries[stops] = Boundaries(self.tokenizer, self._vocabulary, stops)
        return self._boundaries[stops]

    def _fill(self, parts: Sequence[TokenPart], prompt: str, config: GenerationConfig) -> Generator[Event]:
        """Fill the gaps of a template in tokens."""
        if not is_free(config):
            raise OptionError("regex, json_schema and choices belong to a gap: give Gap(regex=...)")
        events = fill_template(self.model, self._boundaries_of(config), self.tokens(prompt, config), parts, config)
        return (event for _, event in self._guarded((0, event) for event in events))

    def choose(
        self,
        prompt: Prompt,
        choices: Sequence[str],
        config: GenerationConfig | None = None,
        **options: Unpack[UnconstrainedOptions],
    ) -> dict[str, float]:
        """Return the probability of each choice as the whole answer, among the choices: they sum to 1.

        The encoder reads all choices in one pass after the prompt, each as its tokens and an end token. Nothing is
        drawn or denoised; of the options only those that shape the prompt count. Raises what `generate` raises.
        """
        config = self._config(config, {**options, "choices": choices})
        job = self._job(prompt, config)
        check_lengths(self.model, job)
        assert job.constraint is not None
        answers = [self.tokenizer.literal(choice) for choice in choices]
        with wired(), out_of_memory("choosing", "shorten the prompt, or give fewer choices"):
            logs = log_probabilities(self.model, job.tokens, answers, job.constraint.stops)
        return dict(zip(choices, relative_probabilities(logs), strict=True))

    def tokens(self, prompt: Prompt, config: GenerationConfig | None = None) -> list[int]:
        """Return the token ids that the model reads for a prompt. Raises PromptError for an empty prompt."""
        config = self._config(config, {})
        if not config.raw:
            return self.tokenizer.chat(chat_messages(prompt, config.system), thinking=config.thinking)
        if not isinstance(prompt, str):
            raise PromptError("a conversation needs the chat template: with raw give a text")
        return self.tokenizer.encode(require_prompt(prompt))


def are_many(prompt: Prompt | Sequence[Prompt]) -> bool:
    """Whether this is a list of prompts, texts or conversations, rather than one conversation."""
    return not isinstance(prompt, str) and all(not isinstance(each, Mapping) for each in prompt) and len(prompt) > 0
