"""mlx-vlm's loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

UNREACHABLE = -1.0
"""A mean entropy in nats that no canvas is below, so that all steps run."""
CHUNK = 2048
"""Tokens per chunk of a prefill, the default of mlx-vlm's programs."""


@dataclass(frozen=True, kw_only=True)
class Stepping:
    """Options of the steps; `sampler` is one of mlx-vlm's names."""

    steps: int
    sampler: str = "entropy-bound"
    greedy: bool = False


def never_converge(model: nn.Module) -> None:
    """Change the model's generation config so that every step runs; other values stay the checkpoint's."""
    config = dict(model.config.generation_config or {})
    model.config.generation_config = {**config, "stability_threshold": 1, "confidence_threshold": UNREACHABLE}


def prefilled(model: nn.Module, tokens: mx.array) -> list[Any]:
    """Encode tokens [1, L] in chunks as mlx-vlm's generator does; return the evaluated cache."""
    cache = model.make_cache()
    length = tokens.shape[1]
    if length:
        cache = model.diffusion_prefill_cache(
            tokens,
            attention_mask=None,
            cache=cache,
            pixel_values=None,
            mm_token_type_ids=None,
            prefill_step_size=CHUNK,
            chunk_prefill=length > CHUNK,
        )
        mx.eval([each.state for each in cache])
    return cache


def generate(
    model: nn.Module, cache: list[Any], canvas: mx.array, stepping: Stepping, listen: Callable[..., None]
) -> None:
    """Run the steps on canvas [1, C] after the prefix in the cache.

    listen(canvas, self_conditioning) is called as each step begins.
    """
    from mlx_vlm.generate.diffusion import stream_diffusion_generate

    length = canvas.shape[1]
    results = stream_diffusion_generate(
        _Prefilled(model, cache, listen),
        _NoTokenizer(),
        _NoTokenizer(),
        # One token takes the place of the prompt, which is in the cache already.
        mx.zeros((1, 1), mx.int32),
        None,
        None,
        max_tokens=length,
        skip_special_token_ids=[],
        temperature=0.0 if stepping.greedy else 1.0,
        max_denoising_steps=stepping.steps,
        diffusion_min_canvas_length=length,
        diffusion_max_canvas_length=length,
        diffusion_sampler=stepping.sampler,
        decoder_input_ids=canvas,
    )
    try:
        # The first result is yielded after the last step.
        next(results)
    finally:
        results.close()


class _Prefilled:
    """A model whose prompt is encoded already and that reports when a step begins."""

    def __init__(self, model: nn.Module, cache: list[Any], listen: Callable[..., None]) -> None:
        self._model = model
        self._cache = cache
        self._listen = listen

    def make_cache(self, **_: Any) -> list[Any]:
        """Return the cache with the prompt."""
        return self._cache

    def diffusion_prefill_cache(self, *_: Any, **__: Any) -> list[Any]:
        """Return the cache with the prompt: nothing is left to encode."""
        return self._cache

    def diffusion_decoder_logits(self, canvas_ids: mx.array, **options: Any) -> mx.array:
        """Report that a step begins; return the model's logits."""
        self._listen(canvas_ids, options.get("self_conditioning"))
        return self._model.diffusion_decoder_logits(canvas_ids, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class _NoTokenizer:
    """A tokenizer without text, because the generator needs one."""

    last_segment = ""

    @property
    def detokenizer(self) -> _NoTokenizer:
        """Return this object."""
        return self

    @property
    def stopping_criteria(self) -> _NoTokenizer:
        """Return this object: no token ends the text."""
        return self

    def __call__(self, _: int) -> bool:
        return False

    def add_eos_token_ids(self, _: Any) -> None:
        """Do nothing."""

    def reset(self) -> None:
        """Do nothing."""

    def add_token(self, *_: Any, **__: Any) -> None:
        """Do nothing."""

    def finalize(self) -> None:
        """Do nothing."""
