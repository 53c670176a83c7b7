"""DiffusionGemma as a subject: what is timed is the engine's own loop with every option in force."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import mlx.core as mx

from mlx_diffgemma.benchmark.results import Loaded, Reply
from mlx_diffgemma.benchmark.subject import TEXT, repeated, steady, weight_bytes
from mlx_diffgemma.benchmark.suite import Case
from mlx_diffgemma.device.wired import wired
from mlx_diffgemma.errors import DiffGemmaError, PromptError
from mlx_diffgemma.events import CanvasStarted, Denoised
from mlx_diffgemma.generation import engine
from mlx_diffgemma.generation.prefill import prefill
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.generation_options import PERMISSIVE, configured
from mlx_diffgemma.loading import load
from mlx_diffgemma.presets import with_presets
from mlx_diffgemma.session import Session

_UNREACHABLE = sys.float_info.min
"""A mean entropy in nats that a canvas is practically never below, so that no canvas converges."""
_WARM_UP_STEPS = 2
_WARM_UP_PROMPT = "Hello"


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model to load, as `loading.load` takes it, and the options of the command line. Raises OptionError."""

    model: str
    revision: str | None = None
    dtype: str | None = None
    adapter: Path | None = None
    force: bool = False
    choices: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        # An option that is out of range for every model, or changes nothing, is refused before gigabytes are read.
        configured(PERMISSIVE, self.choices)

    def over(self, defaults: GenerationConfig) -> GenerationConfig:
        """Return `defaults` with the options of the command line in their place. Raises OptionError."""
        presets, values = with_presets(self.choices)
        config = replace(defaults, **values)
        return config.exact() if presets.exact else config


def load_diffusion(choice: ModelChoice) -> Diffusion:
    """Load a model and measure the loading. Raises DiffGemmaError for a broken model or a wrong option."""
    # Libraries are imported once per process, which is no part of loading a model.
    import_module("tokenizers")
    mx.clear_cache()
    mx.reset_peak_memory()
    begin = time.perf_counter()
    session = load(
        choice.model, revision=choice.revision, dtype=choice.dtype, adapter=choice.adapter, force=choice.force
    )
    mx.synchronize()
    seconds = time.perf_counter() - begin
    config = choice.over(session.defaults)
    loaded = Loaded(
        model=choice.model,
        kind="diffusion",
        seconds=seconds,
        weights=weight_bytes(session.model),
        peak_memory=mx.get_peak_memory(),
        options={"dtype": str(session.model.dtype).rpartition(".")[2], **dataclasses.asdict(config)},
    )
    return Diffusion(session=session, choice=choice, config=config, loaded=loaded, text=session.tokenizer.encode(TEXT))


@dataclass(frozen=True, kw_only=True, eq=False)
class Diffusion:
    """A loaded DiffusionGemma; see Subject."""

    session: Session
    choice: ModelChoice
    config: GenerationConfig
    """the checkpoint's options with those of the command line in their place"""
    loaded: Loaded
    text: list[int]
    """the ids that prefixes repeat"""
    varies: bool = True

    @property
    def context(self) -> int:
        """See Subject."""
        return self.session.model.config.max_position_embeddings

    @property
    def canvas(self) -> int:
        """See Subject."""
        return self.session.model.config.canvas_length

    def prefill(self, length: int) -> float:
        """See Subject."""
        model = self.session.model
        tokens, cache = mx.array([repeated(self.text, length)]), model.make_cache()
        mx.eval(tokens)
        mx.synchronize()
        with wired():
            begin = time.perf_counter()
            for _ in prefill(model, [tokens], [cache]):
                pass
            mx.synchronize()
            return time.perf_counter() - begin

    def steps(self, prefix: int, canvas: int, count: int, patience: float) -> list[float]:
        """See Subject. Times whole steps, from one `Denoised` to the next, on one canvas that cannot converge."""
        endless = replace(
            self.config,
            mode="canvas",
            canvas_length=canvas,
            first_canvas=None,
            max_tokens=canvas,
            max_steps=count + 2,
            stability_threshold=count + 2,
            confidence_threshold=_UNREACHABLE,
            mean_entropy=None,
            verify=None,
            stop_tokens=(),
        )
        times: list[float] = []
        with wired():
            for event in engine.stream(self.session.model, repeated(self.text, prefix), endless):
                if isinstance(event, (CanvasStarted, Denoised)):
                    times.append(time.perf_counter())
                if len(times) > 3 and times[-1] - times[0] > patience:
                    break
            # The engine computes one step ahead of its events.
            mx.synchronize()
        return steady(times)

    def problem(self, case: Case, max_tokens: int) -> str | None:
        """See Subject. A prompt that does not fit is a problem; an option that the model refuses is an error."""
        try:
            config = replace(self.config_for(case), max_tokens=max_tokens)
            # The session checks its arguments before it yields the first event.
            if case.template:
                self.session.stream_infill(case.template, case.prompt, config).close()
            else:
                self.session.stream(case.asked, config).close()
        except PromptError as error:
            return str(error)
        except DiffGemmaError as error:
            if not case.options and not case.template:
                raise
            raise type(error)(f"prompt {case.name}: {error}") from error
        return None

    def warm_up(self, case: Case) -> None:
        """See Subject. Constraints and gaps are left out, because a single token could not meet them."""
        config = replace(self.config, max_tokens=1, max_steps=_WARM_UP_STEPS)
        self.session.generate(case.prompt or _WARM_UP_PROMPT, config)

    def reply(self, case: Case, max_tokens: int, seed: int) -> Reply:
        """See Subject."""
        config = replace(self.config_for(case), max_tokens=max_tokens, seed=seed)
        mx.reset_peak_memory()
        mx.synchronize()
        begin = time.perf_counter()
        if case.template:
            answer = self.session.infill(case.template, case.prompt, config)
        else:
            answer = self.session.generate(case.asked, config)
        seconds = time.perf_counter() - begin
        stats = answer.stats
        return Reply(
            text=answer.text,
            finish_reason=answer.finish_reason,
            tokens=stats.tokens,
            forwards=stats.steps,
            canvases=stats.blocks,
            first_seconds=stats.seconds_to_first_block,
            seconds=seconds,
            peak_memory=mx.get_peak_memory(),
        )

    def config_for(self, case: Case) -> GenerationConfig:
        """Return the options for a prompt: the checkpoint's, over them the prompt's, over them the command line's."""
        return self.choice.over(configured(self.session.defaults, case.options))
