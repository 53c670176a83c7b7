"""The model of this project as a subject: what is timed is the engine's own loop, with every option in force."""

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
from mlx_diffgemma.benchmark.subject import TEXT, repeated, steady, weight
from mlx_diffgemma.device.wired import wired
from mlx_diffgemma.errors import PromptError
from mlx_diffgemma.events import CanvasStarted, Denoised
from mlx_diffgemma.generation import engine
from mlx_diffgemma.generation.prefill import prefill
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.loading import load
from mlx_diffgemma.session import Session

ANY = GenerationConfig(t_min=0.0, t_max=sys.float_info.max)
"""Allows every option that some checkpoint's defaults allow."""
NEVER = sys.float_info.min
"""A mean entropy that no canvas falls below, but for one that is certain of everything."""


@dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """Which model to load, as `loading.load` takes it, and the options given for its answers. Raises OptionError."""

    model: str
    revision: str | None = None
    dtype: str | None = None
    adapter: Path | None = None
    choices: Mapping[str, Any] = dataclasses.field(default_factory=dict[str, Any])
    exact: bool = False

    def __post_init__(self) -> None:
        # What is out of range for every checkpoint is said before gigabytes are read.
        self.over(ANY)

    def over(self, defaults: GenerationConfig) -> GenerationConfig:
        """`defaults` with what was chosen in their place. Raises OptionError."""
        chosen = replace(defaults, **self.choices)
        return chosen.exact() if self.exact else chosen


def load_diffusion(source: ModelChoice) -> Diffusion:
    """Load a model, timed. Raises DiffGemmaError for what is wrong with it or with its options."""
    # Libraries are imported once per process: that is no part of a model's loading.
    import_module("mlx_lm.tokenizer_utils")
    mx.clear_cache()
    mx.reset_peak_memory()
    begin = time.perf_counter()
    session = load(source.model, revision=source.revision, dtype=source.dtype, adapter=source.adapter)
    mx.synchronize()
    seconds = time.perf_counter() - begin
    config = source.over(session.defaults)
    loaded = Loaded(
        model=source.model,
        kind="diffusion",
        seconds=seconds,
        weights=weight(session.model),
        peak_memory=mx.get_peak_memory(),
        options={"dtype": str(session.model.dtype).rpartition(".")[2], **dataclasses.asdict(config)},
    )
    return Diffusion(session=session, config=config, loaded=loaded, text=session.tokenizer.encode(TEXT))


@dataclass(frozen=True, kw_only=True, eq=False)
class Diffusion:
    """A loaded DiffusionGemma; see Subject. `text` are the ids that prefixes are made of."""

    session: Session
    config: GenerationConfig
    loaded: Loaded
    text: list[int]
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
        """See Subject: whole steps, from one `Denoised` to the next, on one canvas that is kept from finishing."""
        endless = replace(
            self.config,
            mode="canvas",
            canvas_length=canvas,
            max_tokens=canvas,
            max_steps=count + 2,
            stability=count + 2,
            confidence=NEVER,
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
            # The engine is a step ahead of its events.
            mx.synchronize()
        return steady(times)

    def problem(self, prompt: str, max_tokens: int) -> str | None:
        """See Subject."""
        try:
            # What is wrong is said before the first event.
            self.session.stream(prompt, replace(self.config, max_tokens=max_tokens)).close()
        except PromptError as error:
            return str(error)
        return None

    def warm_up(self, prompt: str) -> None:
        """See Subject."""
        self.session.generate(prompt, replace(self.config, max_tokens=1, max_steps=2))

    def reply(self, prompt: str, max_tokens: int, seed: int) -> Reply:
        """See Subject."""
        mx.reset_peak_memory()
        mx.synchronize()
        begin = time.perf_counter()
        completion = self.session.generate(prompt, replace(self.config, max_tokens=max_tokens, seed=seed))
        seconds = time.perf_counter() - begin
        stats = completion.stats
        return Reply(
            text=completion.text,
            finish_reason=completion.finish_reason,
            tokens=stats.tokens,
            forwards=stats.steps,
            canvases=stats.blocks,
            first_seconds=stats.seconds_to_first_block,
            seconds=seconds,
            peak_memory=mx.get_peak_memory(),
        )
