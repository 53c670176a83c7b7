"""What each program is to the worker. Every class imports its own program when it is made, and no other.

Tokens come as numbers drawn from a seed, the same for all. `steps` times steps in their steady state only (`stepping`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np


class Program(Protocol):
    """A model in memory, and a prefix behind which it denoises."""

    def version(self) -> str:
        """Of the program and of what it computes with."""
        ...

    def vocabulary(self) -> int:
        """Number of tokens."""
        ...

    def prefill(self, tokens: Sequence[int]) -> float:
        """Begin a new prefix with these tokens -> seconds."""
        ...

    def steps(self, canvas: Sequence[int], count: int, top_k: int | None, seed: int) -> list[float]:
        """Denoise a canvas behind the prefix -> the seconds of `count` steps."""
        ...

    def best(self, canvas: Sequence[int]) -> list[int]:
        """The most likely tokens of a canvas that nothing conditions."""
        ...

    def peak(self, *, begin: bool = False) -> int:
        """Most bytes that were held at once since the last time with `begin`."""
        ...


class Ours:
    """This runtime."""

    def __init__(self, folder: Path, dtype: str, greedy: bool) -> None:
        import mlx.core as mx
        from stepping import ours

        from mlx_diffgemma.checkpoint.weights import load_model

        self._mx = mx
        self._loop = ours
        self._greedy = greedy
        self._model = load_model(folder, dtype)
        self._cache = self._model.make_cache()

    def version(self) -> str:
        """mlx-diffgemma's and MLX's."""
        return f"mlx-diffgemma {version('mlx-diffgemma')}, mlx {version('mlx')}"

    def vocabulary(self) -> int:
        """The model's."""
        return self._model.config.vocab_size

    def prefill(self, tokens: Sequence[int]) -> float:
        """As the engine does it."""
        self._cache = self._model.make_cache()
        self._mx.clear_cache()
        begin = time.perf_counter()
        self._cache = self._loop.prefilled(self._model, self._array(tokens))
        return time.perf_counter() - begin

    def steps(self, canvas: Sequence[int], count: int, top_k: int | None, seed: int) -> list[float]:
        """As the engine does it."""
        # The first step is conditioned by nothing: it is not timed.
        stepping = self._loop.Stepping(steps=count + 1, top_k=top_k, greedy=self._greedy, seed=seed)
        drafts = self._loop.drafts(self._model, self._cache, self._array(canvas), stepping)
        stamps = [time.perf_counter() for _ in drafts]
        return _intervals(stamps, count)

    def best(self, canvas: Sequence[int]) -> list[int]:
        """Of the logits."""
        logits = self._loop.logits(self._model, self._cache, self._array(canvas))
        return self._mx.argmax(logits, axis=-1)[0].tolist()

    def peak(self, *, begin: bool = False) -> int:
        """MLX's count."""
        return _mlx_peak(begin)

    def _array(self, tokens: Sequence[int]) -> Any:
        return self._mx.array([list(tokens)], dtype=self._mx.int32)


class MlxVlm:
    """mlx-vlm, with the reference's sampler or its own."""

    def __init__(self, folder: Path, dtype: str, greedy: bool, sampler: str) -> None:
        import mlx.core as mx
        from mlx_vlm.utils import load_model
        from stepping import theirs

        self._mx = mx
        self._loop = theirs
        self._greedy = greedy
        self._sampler = sampler
        self._model = load_model(folder, lazy=True)
        self._model.set_dtype(getattr(mx, dtype))
        mx.eval(self._model.parameters())
        theirs.settle_never(self._model)
        self._cache = self._model.make_cache()

    def version(self) -> str:
        """mlx-vlm's and MLX's."""
        return f"mlx-vlm {version('mlx-vlm')}, mlx {version('mlx')}"

    def vocabulary(self) -> int:
        """The model's."""
        return self._model.config.text_config.vocab_size

    def prefill(self, tokens: Sequence[int]) -> float:
        """As its generator does it."""
        self._cache = []
        self._mx.clear_cache()
        begin = time.perf_counter()
        self._cache = self._loop.prefilled(self._model, self._array(tokens))
        return time.perf_counter() - begin

    def steps(self, canvas: Sequence[int], count: int, top_k: int | None, seed: int) -> list[float]:
        """As its generator does it. Raises ValueError for a top_k, which it does not have."""
        if top_k is not None:
            raise ValueError("mlx-vlm conditions by all tokens")
        self._mx.random.seed(seed)
        stamps: list[float] = []
        stepping = self._loop.Stepping(steps=count + 3, sampler=self._sampler, greedy=self._greedy)
        listen: Callable[..., None] = lambda *_: stamps.append(time.perf_counter())  # noqa: E731
        self._loop.generate(self._model, self._cache, self._array(canvas), stepping, listen)
        # From the third step's beginning: its first is not waited for, the last is shorter.
        return _intervals(stamps[2:], count)

    def best(self, canvas: Sequence[int]) -> list[int]:
        """Of the logits."""
        ids = self._array(canvas)
        masks = self._model.diffusion_decoder_masks(ids, self._cache)
        logits = self._model.diffusion_decoder_logits(ids, cache=self._cache, decoder_attention_mask=masks)
        return self._mx.argmax(logits, axis=-1)[0].tolist()

    def peak(self, *, begin: bool = False) -> int:
        """MLX's count."""
        return _mlx_peak(begin)

    def _array(self, tokens: Sequence[int]) -> Any:
        return self._mx.array([list(tokens)], dtype=self._mx.int32)


def _mlx_peak(begin: bool) -> int:
    import mlx.core as mx

    peak = mx.get_peak_memory()
    if begin:
        mx.reset_peak_memory()
    return peak


def _intervals(stamps: Sequence[float], count: int) -> list[float]:
    """The times between stamps. Raises RuntimeError where there are not as many steps as there should be."""
    if len(stamps) != count + 1:
        raise RuntimeError(f"{len(stamps) - 1} steps ran, not {count}: the canvas was finished early")
    return [after - before for before, after in pairwise(stamps)]


def draw(seed: int, count: int, vocabulary: int) -> list[int]:
    """Token ids from a seed, the same in every process."""
    return np.random.default_rng(seed).integers(0, vocabulary, count).tolist()
