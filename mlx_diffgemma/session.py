"""Text in, text out: a model and its tokenizer, ready to answer. Nothing is kept between calls but those two."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TypeAlias, cast, overload

from mlx_diffgemma.completion import Completion, gather, with_text
from mlx_diffgemma.constraint.cache import Vocabulary, automaton_of
from mlx_diffgemma.constraint.spec import SchemaSource, is_free, pattern_of
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
from mlx_diffgemma.generation_config import GenerationConfig, matching
from mlx_diffgemma.infilling.boundaries import Joints, Piece
from mlx_diffgemma.infilling.filling import Infilling, canvas_room
from mlx_diffgemma.infilling.prompts import (
    Infilled,
    check_span,
    edit_gap,
    edit_parts,
    edit_prompt,
    gather_filled,
    infill_prompt,
)
from mlx_diffgemma.infilling.template import MARKER, Gap, Part, Template, parse
from mlx_diffgemma.infilling.windows import fits
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.text.messages import conversation
from mlx_diffgemma.text.tokenizer import Message, Tokenizer

Prompt: TypeAlias = str | Sequence[Message]
"""What to answer: one user message, or a conversation."""
Configs: TypeAlias = GenerationConfig | Sequence[GenerationConfig] | None
"""The options of all prompts, or of each; None is the checkpoint's own."""

BATCH_SIZE = 8
"""Prompts that are answered side by side where nothing else is said."""


class Session:
    """A loaded model. Any thread may use it, several at once too; `defaults` are the checkpoint's own options."""

    def __init__(self, model: DiffusionGemma, tokenizer: Tokenizer, defaults: GenerationConfig) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.defaults = defaults

    def stream(
        self,
        prompt: Prompt,
        config: GenerationConfig | None = None,
        *,
        regex: str | None = None,
        json_schema: SchemaSource | None = None,
        choices: Sequence[str] | None = None,
    ) -> Generator[Event]:
        """Generate an answer, yielding every event with its text attached. What is wrong is said at once.

        `config` is used as given; start from `defaults` to keep the checkpoint's options:
        `dataclasses.replace(session.defaults, max_tokens=64)`. Whatever of `regex`, `json_schema` (a dict, a file, a
        pydantic model) and `choices` is given takes the place of the config's: the answer matches. Raises PromptError,
        OptionError, ConstraintError, TokenizerError, OutOfMemoryError.
        """
        config = matching(config or self.defaults, regex, json_schema, choices)
        job = self._job(prompt, config)
        events = stream_tokens(self.model, job.tokens, config, constraint=job.constraint)
        return (event for _, event in self._guarded((0, event) for event in events))

    def stream_many(
        self,
        prompts: Sequence[Prompt],
        config: Configs = None,
        *,
        batch_size: int = BATCH_SIZE,
        regex: str | None = None,
        json_schema: SchemaSource | None = None,
        choices: Sequence[str] | None = None,
    ) -> Generator[tuple[int, Event]]:
        """Answer prompts side by side -> the number of the prompt, from 0, and what happens in its answer.

        batch_size: how many canvases are denoised together; where one is finished, the next prompt begins. `config`:
        one for all prompts, or one for each; what answers must match is said of all. Each prompt's events are those of
        `stream`, which raises the same.
        """
        if batch_size < 1:
            raise OptionError(f"batch_size={batch_size} must be at least 1")
        configs = [matching(each, regex, json_schema, choices) for each in self._configs(config, len(prompts))]
        jobs = [self._job(prompt, each) for prompt, each in zip(prompts, configs, strict=True)]
        for job in jobs:
            check_lengths(self.model, job)
        return self._guarded(stream_jobs(self.model, jobs, width=min(batch_size, len(jobs))))

    def _job(self, prompt: Prompt, config: GenerationConfig) -> Job:
        return Job(tokens=self.tokens(prompt, config), config=config, constraint=self.constraint(config))

    def constraint(self, config: GenerationConfig) -> TokenAutomaton | None:
        """What an answer must match, over this model's tokens; None where it is free. Raises ConstraintError."""
        pattern = pattern_of(config)
        if pattern is None:
            return None
        if not config.stop_tokens:
            raise ConstraintError("stop_tokens is empty: an answer that must match needs a token to end with")
        automaton = automaton_of(pattern, self._vocabulary, config.stop_tokens, config.allow_empty)
        opening, closing = self.tokenizer.thought_open, self.tokenizer.thought_close
        if not config.thinking or opening is None or closing is None:
            return automaton
        return after_thinking(automaton, self._vocabulary.pieces, opening, closing)

    @cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary.of(self.tokenizer.table, self.model.config.vocab_size)

    def _configs(self, config: Configs, count: int) -> list[GenerationConfig]:
        if config is None or isinstance(config, GenerationConfig):
            return [config or self.defaults] * count
        if len(config) != count:
            raise OptionError(f"{len(config)} configs for {count} prompts: give one for all, or one for each")
        return list(config)

    def _guarded(self, events: Iterable[tuple[int, Event]]) -> Generator[tuple[int, Event]]:
        """The events with their text, within what the machine can hold."""
        with wired(), out_of_memory("generating", "lower canvas_length or batch_size, or shorten the prompt"):
            yield from with_text(self.tokenizer, events)

    @overload
    def generate(
        self,
        prompt: str | Sequence[Message],
        config: GenerationConfig | None = None,
        *,
        regex: str | None = None,
        json_schema: SchemaSource | None = None,
        choices: Sequence[str] | None = None,
    ) -> Completion: ...

    @overload
    def generate(
        self,
        prompt: list[str] | list[list[Message]] | list[Prompt],
        config: Configs = None,
        *,
        batch_size: int = BATCH_SIZE,
        regex: str | None = None,
        json_schema: SchemaSource | None = None,
        choices: Sequence[str] | None = None,
    ) -> list[Completion]: ...

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        config: Configs = None,
        *,
        batch_size: int = BATCH_SIZE,
        regex: str | None = None,
        json_schema: SchemaSource | None = None,
        choices: Sequence[str] | None = None,
    ) -> Completion | list[Completion]:
        """The answer of `stream`, whole; for a list of prompts those of `stream_many`, in the order of the prompts."""
        if not are_many(prompt):
            alone = cast("GenerationConfig | None", config)
            events = self.stream(cast("Prompt", prompt), alone, regex=regex, json_schema=json_schema, choices=choices)
            return gather(events)
        prompts = cast("Sequence[Prompt]", prompt)
        happened: list[list[Event]] = [[] for _ in prompts]
        for number, event in self.stream_many(
            prompts, config, batch_size=batch_size, regex=regex, json_schema=json_schema, choices=choices
        ):
            # What is drawn step by step would be kept for nothing.
            if isinstance(event, BlockCommitted | Finished):
                happened[number].append(event)
        return [gather(iter(events)) for events in happened]

    def stream_infill(
        self,
        template: Template,
        instruction: str | None = None,
        config: GenerationConfig | None = None,
        *,
        marker: str = MARKER,
    ) -> Generator[Event]:
        """Fill the gaps of a template, yielding every event with its text attached. What is wrong is said at once.

        template: a text with markers, or texts and Gaps: see `template.parse`. instruction: what is wanted; None shows
        the model the template. Of `config` those options count that a canvas has. Raises what `stream` raises, and
        TemplateError.
        """
        config = config or self.defaults
        parts = parse(template, marker)
        pieces = self._joints(config).pieces(parts)
        shown = not fits(pieces, canvas_room(self.model, config))
        return self._infilled(pieces, infill_prompt(parts, instruction, shown=shown), config)

    def infill(
        self,
        template: Template,
        instruction: str | None = None,
        config: GenerationConfig | None = None,
        *,
        marker: str = MARKER,
    ) -> Infilled:
        """The events of `stream_infill`, drained; what stands around the gaps is in the text byte for byte."""
        parts = parse(template, marker)
        return gather_filled(parts, self.stream_infill(parts, instruction, config))

    def stream_edit(
        self,
        text: str,
        instruction: str,
        span: tuple[int, int],
        config: GenerationConfig | None = None,
        *,
        gap: Gap | None = None,
    ) -> Generator[Event]:
        """Write the characters from span[0] up to span[1] anew, as `instruction` says, yielding every event.

        gap: how many tokens may stand there; None is half to twice as many as do, and a few. Raises what
        `stream_infill` raises.
        """
        config = config or self.defaults
        parts = self.edit_template(text, span, gap)
        pieces = self._joints(config).pieces(parts)
        return self._infilled(pieces, edit_prompt(text, instruction, span), config)

    def edit(
        self,
        text: str,
        instruction: str,
        span: tuple[int, int],
        config: GenerationConfig | None = None,
        *,
        gap: Gap | None = None,
    ) -> Infilled:
        """The events of `stream_edit`, drained; every other character is as it was."""
        parts = self.edit_template(text, span, gap)
        return gather_filled(parts, self.stream_edit(text, instruction, span, config, gap=gap))

    def edit_template(self, text: str, span: tuple[int, int], gap: Gap | None = None) -> tuple[Part, ...]:
        """The template that `edit` fills. Raises TemplateError for a span outside the text."""
        check_span(text, span)
        require_unicode(text, "the text", TemplateError)
        gap = gap or edit_gap(len(self.tokenizer.literal(text[slice(*span)])))
        return parse(edit_parts(text, span, gap))

    def _joints(self, config: GenerationConfig) -> Joints:
        return Joints(self.tokenizer, self._vocabulary, config.stop_tokens)

    def _infilled(self, pieces: Sequence[Piece], prompt: str, config: GenerationConfig) -> Generator[Event]:
        if not is_free(config):
            raise OptionError("regex, json_schema and choices are said of a gap: give Gap(regex=...)")
        infilling = Infilling(self.model, self._joints(config), self.tokens(prompt, config), pieces, config)
        return (event for _, event in self._guarded((0, event) for event in infilling.events()))

    def choose(
        self, prompt: Prompt, choices: Sequence[str], config: GenerationConfig | None = None
    ) -> dict[str, float]:
        """How likely each of the choices is as the whole answer, among them: probabilities that sum to 1.

        The encoder reads them, all in one pass behind the prompt: of each the tokens that the tokenizer makes of it,
        and an end token behind them. Nothing is drawn or denoised; of `config` only what shapes the prompt counts.
        Raises what `generate` does.
        """
        config = matching(config or self.defaults, None, None, choices)
        job = self._job(prompt, config)
        check_lengths(self.model, job)
        assert job.constraint is not None
        answers = [self.tokenizer.literal(choice) for choice in choices]
        with wired(), out_of_memory("choosing", "shorten the prompt, or give fewer choices"):
            logs = log_probabilities(self.model, job.tokens, answers, job.constraint.stops)
        return dict(zip(choices, relative_probabilities(logs), strict=True))

    def tokens(self, prompt: Prompt, config: GenerationConfig | None = None) -> list[int]:
        """The ids that the model is given for a prompt. Raises PromptError for one that says nothing."""
        config = config or self.defaults
        require_unicode(config.system or "", "the system prompt", PromptError)
        if isinstance(prompt, str):
            if not prompt.strip():
                raise PromptError("the prompt is empty: say what to write")
            require_unicode(prompt, "the prompt", PromptError)
            if config.raw:
                return self.tokenizer.encode(prompt)
            messages: list[Message] = [{"role": "user", "content": prompt}]
        else:
            if config.raw:
                raise PromptError("a conversation needs the chat template: give raw a text")
            messages = conversation(prompt)
        if config.system is not None:
            if messages[0].get("role") == "system":
                raise PromptError("the conversation has a system message and the options another: give one of them")
            messages = [{"role": "system", "content": config.system}, *messages]
        return self.tokenizer.chat(messages, thinking=config.thinking)


def are_many(prompt: Prompt | Sequence[Prompt]) -> bool:
    """Whether this is a list of prompts: of texts or of conversations, not one conversation."""
    return not isinstance(prompt, str) and all(not isinstance(each, Mapping) for each in prompt) and len(prompt) > 0
