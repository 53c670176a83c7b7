"""A loaded model and its tokenizer, ready to answer. Calls share nothing but the thread that computes.

stream, infill, ...  ->  Preparation  ->  a job  ->  Engine, in its thread  ->  events  ->  text attached
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Unpack, cast, overload

from mlx_diffgemma.completion import Completion, gather
from mlx_diffgemma.errors import OptionError, out_of_memory
from mlx_diffgemma.events import BlockCommitted, Event, Finished
from mlx_diffgemma.generation.arrivals import events_of, events_of_many, result_of
from mlx_diffgemma.generation.engine import Engine
from mlx_diffgemma.generation.loop import AnyJob
from mlx_diffgemma.generation.scoring import relative_probabilities
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.generation_options import GenerationOptions, UnconstrainedOptions, configured
from mlx_diffgemma.infilling.prompts import edit_prompt
from mlx_diffgemma.infilling.result import Infilled, gather_filled
from mlx_diffgemma.infilling.template import MARKER, Gap, Part, Template, parse
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.prefix import Prefix
from mlx_diffgemma.preparation import BATCH_SIZE, Configs, KeptPrefix, Preparation, Prompt, are_many, config_of_each
from mlx_diffgemma.text.messages import Message
from mlx_diffgemma.text.tokenizer import Tokenizer

_REMEDY = "lower canvas_length or batch_size, or shorten the prompt"


class Session:
    """A loaded model, for any thread and for several at once. `defaults` are the checkpoint's own options.

    Everything is computed in one thread, which begins with the first call and ends with the session. `prefix` of a call
    is what was read before: a Prefix of `read`, or a store, Prefixes, in which the call keeps what it reads.
    """

    def __init__(self, model: DiffusionGemma, tokenizer: Tokenizer, defaults: GenerationConfig) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.defaults = defaults
        self.engine = Engine(model)
        self.preparation = Preparation(model, tokenizer)

    def close(self) -> None:
        """End what is being answered, and the thread; dropping the session does it too."""
        self.engine.close()

    def stream(
        self,
        prompt: Prompt,
        config: GenerationConfig | None = None,
        *,
        prefix: KeptPrefix = None,
        **options: Unpack[GenerationOptions],
    ) -> Generator[Event]:
        """Answer a prompt, yielding every event with its text. Whatever is wrong is raised at once.

        options: in place of those of `config`, which are the checkpoint's own unless given; see GenerationOptions.
        Raises PromptError, OptionError, ConstraintError, TokenizerError, OutOfMemoryError.
        """
        return self._events(self.preparation.job(prompt, self._config(config, options), prefix))

    async def astream(
        self,
        prompt: Prompt,
        config: GenerationConfig | None = None,
        *,
        prefix: KeptPrefix = None,
        **options: Unpack[GenerationOptions],
    ) -> AsyncGenerator[Event]:
        """Do what `stream` does in an asyncio event loop, which is never blocked."""
        config = self._config(config, options)
        # A constraint may take seconds to build.
        job = await asyncio.to_thread(self.preparation.job, prompt, config, prefix)
        text = self.preparation.event_text(job)
        with out_of_memory("generating", _REMEDY):
            async with aclosing(events_of(self.engine, job)) as events:
                async for event in events:
                    yield text.attached(event)

    async def agenerate(
        self,
        prompt: Prompt,
        config: GenerationConfig | None = None,
        *,
        prefix: KeptPrefix = None,
        **options: Unpack[GenerationOptions],
    ) -> Completion:
        """Return the answer of `astream`."""
        config = self._config(config, options)
        return gather([event async for event in self.astream(prompt, config, prefix=prefix)], seed=config.seed)

    def stream_many(
        self,
        prompts: Sequence[Prompt],
        config: Configs = None,
        *,
        batch_size: int = BATCH_SIZE,
        prefix: KeptPrefix = None,
        **options: Unpack[GenerationOptions],
    ) -> Generator[tuple[int, Event]]:
        """Answer prompts side by side, yielding the number of the prompt, from 0, and an event of its answer.

        config: one for all prompts, or one for each; the options apply to all. batch_size: prompts that are answered
        together; when one is finished, the next begins. Raises what `stream` raises.
        """
        if batch_size < 1:
            raise OptionError(f"batch_size={batch_size} must be at least 1")
        pairs = zip(prompts, config_of_each(config, len(prompts)), strict=True)
        jobs = [self.preparation.job(prompt, self._config(each, options), prefix) for prompt, each in pairs]
        return self._events_of_many(jobs, batch_size)

    def _events(self, work: AnyJob) -> Generator[Event]:
        # The job is submitted when the first event is asked for.
        text = self.preparation.event_text(work)
        with out_of_memory("generating", _REMEDY):
            for event in self.engine.submit(work).events():
                yield text.attached(event)

    def _events_of_many(self, jobs: Sequence[AnyJob], batch_size: int) -> Generator[tuple[int, Event]]:
        texts = [self.preparation.event_text(job) for job in jobs]
        with out_of_memory("generating", _REMEDY):
            for number, event in events_of_many(self.engine, jobs, batch_size):
                yield number, texts[number].attached(event)

    def _config(self, config: GenerationConfig | None, options: Mapping[str, Any]) -> GenerationConfig:
        """Return the options of a call: keywords in place of those of `config` or, without one, of the checkpoint."""
        return configured(self.defaults if config is None else config, options)

    @overload
    def generate(
        self,
        prompt: str | Sequence[Message],
        config: GenerationConfig | None = None,
        *,
        prefix: KeptPrefix = None,
        **options: Unpack[GenerationOptions],
    ) -> Completion: ...

    @overload
    def generate(
        self,
        prompt: list[str] | list[list[Message]] | list[Prompt],
        config: Configs = None,
        *,
        batch_size: int = BATCH_SIZE,
        prefix: KeptPrefix = None,
        **options: Unpack[GenerationOptions],
    ) -> list[Completion]: ...

    def generate(
        self,
        prompt: Prompt | Sequence[Prompt],
        config: Configs = None,
        *,
        batch_size: int = BATCH_SIZE,
        prefix: KeptPrefix = None,
        **options: Unpack[GenerationOptions],
    ) -> Completion | list[Completion]:
        """Return the answer of `stream`; for a list of prompts the answers of `stream_many`, in the same order.

        With a Prefix, the Completion has one too: the conversation up to the end of its answer.
        """
        if not are_many(prompt):
            return self._answer(cast("Prompt", prompt), cast("GenerationConfig | None", config), prefix, options)
        prompts = cast("Sequence[Prompt]", prompt)
        events_of: list[list[Event]] = [[] for _ in prompts]
        configs = [self._config(each, options) for each in config_of_each(config, len(prompts))]
        for number, event in self.stream_many(prompts, configs, batch_size=batch_size, prefix=prefix):
            # The steps of a canvas are many, and its Completion does not need them.
            if isinstance(event, BlockCommitted | Finished):
                events_of[number].append(event)
        return [gather(events, seed=each.seed) for events, each in zip(events_of, configs, strict=True)]

    def _answer(
        self, prompt: Prompt, config: GenerationConfig | None, prefix: KeptPrefix, options: GenerationOptions
    ) -> Completion:
        """Answer one prompt; if it was given a prefix, so has its Completion."""
        config = self._config(config, options)
        if not isinstance(prefix, Prefix):
            return gather(self.stream(prompt, config, prefix=prefix), seed=config.seed)
        job, asked = self.preparation.continued(prompt, config, prefix)
        completion = gather(self._events(job), seed=config.seed)
        return replace(completion, prefix=self.preparation.answered(prompt, config, completion.text, asked))

    def read(
        self,
        prompt: Prompt,
        config: GenerationConfig | None = None,
        *,
        prefix: KeptPrefix = None,
        **options: Unpack[GenerationOptions],
    ) -> Prefix:
        """Read messages, and return them as a prefix: prompts that begin with them need not read them again.

        prefix: what was read of them before. Raises PromptError, TokenizerError, OutOfMemoryError.
        """
        read, task = self.preparation.read(prompt, self._config(config, options), prefix)
        list(self._events(task))
        return read

    def stream_infill(
        self,
        template: Template,
        instruction: str | None = None,
        config: GenerationConfig | None = None,
        *,
        marker: str = MARKER,
        prefix: KeptPrefix = None,
        **options: Unpack[UnconstrainedOptions],
    ) -> Generator[Event]:
        """Fill the gaps of a template, yielding every event with its text. Whatever is wrong is raised at once.

        template: a text with markers, or texts and Gaps, see `template.parse`. instruction: what to write; None shows
        the model the template. Options that only a whole answer can have, such as `trim`, change nothing. Raises what
        `stream` raises, and TemplateError.
        """
        parts, config = parse(template, marker), self._config(config, options)
        return self._events(self.preparation.infill(parts, instruction, config, prefix))

    def infill(
        self,
        template: Template,
        instruction: str | None = None,
        config: GenerationConfig | None = None,
        *,
        marker: str = MARKER,
        prefix: KeptPrefix = None,
        **options: Unpack[UnconstrainedOptions],
    ) -> Infilled:
        """Return the filled template of `stream_infill`; the text around the gaps is unchanged, byte for byte."""
        parts, config = parse(template, marker), self._config(config, options)
        events = self._events(self.preparation.infill(parts, instruction, config, prefix))
        return gather_filled(parts, events, seed=config.seed)

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
        parts, config = self.edit_template(text, span, gap), self._config(config, options)
        return self._events(self.preparation.edit(parts, edit_prompt(text, instruction, span), config))

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
        parts, config = self.edit_template(text, span, gap), self._config(config, options)
        events = self._events(self.preparation.edit(parts, edit_prompt(text, instruction, span), config))
        return gather_filled(parts, events, seed=config.seed)

    def edit_template(self, text: str, span: tuple[int, int], gap: Gap | None = None) -> tuple[Part, ...]:
        """Return the template that `edit` fills. Raises TemplateError for a span outside the text."""
        return self.preparation.edit_template(text, span, gap)

    def choose(
        self,
        prompt: Prompt,
        choices: Sequence[str],
        config: GenerationConfig | None = None,
        *,
        prefix: KeptPrefix = None,
        **options: Unpack[UnconstrainedOptions],
    ) -> dict[str, float]:
        """Return the probability of each choice as the whole answer, among the choices: they sum to 1.

        The encoder reads every choice as its tokens and an end token, and what choices begin with together once. Of the
        options only those that shape the prompt count. Raises what `generate` raises.
        """
        score = self.preparation.scoring(prompt, choices, self._config(config, options), prefix)
        with out_of_memory("choosing", "shorten the prompt, or give fewer choices"):
            return dict(zip(choices, relative_probabilities(result_of(self.engine, score)), strict=True))

    def tokens(self, prompt: Prompt, config: GenerationConfig | None = None) -> list[int]:
        """Return the token ids that the model reads for a prompt. Raises PromptError for an empty prompt."""
        return self.preparation.tokens(prompt, self._config(config, {}))
