"""This runtime and mlx-vlm behind one protocol; a class imports its program when it is created.

Tokens are numbers drawn from a seed, equal for all programs. `steps` times only steps in their steady state: see
`stepping`.
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
    """A model in memory, and the prefix after which it denoises."""

    def version(self) -> str:
        """Return the versions of the program and of its array library."""
        ...

    def vocabulary(self) -> int:
        """Return the number of tokens."""
        ...

    def prefill(self, tokens: Sequence[int]) -> float:
        """Begin a new prefix with these tokens; return the seconds."""
        ...

    def steps(self, canvas: Sequence[int], count: int, top_k: int | None, seed: int) -> list[float]:
        """Denoise a canvas after the prefix; return the seconds of `count` steps."""
        ...

    def best(self, canvas: Sequence[int]) -> list[int]:
        """Return the most likely tokens of a canvas without conditioning."""
        ...

    def peak(self, *, begin: bool = False) -> int:
        """Return the peak memory in bytes since the last call with `begin`."""
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
        """See Program."""
        return f"mlx-diffgemma {version('mlx-diffgemma')}, mlx {version('mlx')}"

    def vocabulary(self) -> int:
        """See Program."""
        return self._model.config.vocab_size

    def prefill(self, tokens: Sequence[int]) -> float:
        """See Program. Computes as the engine does."""
        self._cache = self._model.make_cache()
        self._mx.clear_cache()
        begin = time.perf_counter()
        self._cache = self._loop.prefilled(self._model, self._array(tokens))
        return time.perf_counter() - begin

    def steps(self, canvas: Sequence[int], count: int, top_k: int | None, seed: int) -> list[float]:
        """See Program. Computes as the engine does."""
        # The first step has no conditioning and is not timed.
        stepping = self._loop.Stepping(steps=count + 1, top_k=top_k, greedy=self._greedy, seed=seed)
        drafts = self._loop.drafts(self._model, self._cache, self._array(canvas), stepping)
        stamps = [time.perf_counter() for _ in drafts]
        return _intervals(stamps, count)

    def best(self, canvas: Sequence[int]) -> list[int]:
        """See Program."""
        logits = self._loop.logits(self._model, self._cache, self._array(canvas))
        return self._mx.argmax(logits, axis=-1)[0].tolist()

    def peak(self, *, begin: bool = False) -> int:
        """See Program. Counted by MLX."""
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
        theirs.never_converge(self._model)
        self._cache = self._model.make_cache()

    def version(self) -> str:
        """See Program."""
        return f"mlx-vlm {version('mlx-vlm')}, mlx {version('mlx')}"

    def vocabulary(self) -> int:
        """See Program."""
        return self._model.config.text_config.vocab_size

    def prefill(self, tokens: Sequence[int]) -> float:
        """See Program. Computes as mlx-vlm's generator does."""
        self._cache = []
        self._mx.clear_cache()
        begin = time.perf_counter()
        self._cache = self._loop.prefilled(self._model, self._array(tokens))
        return time.perf_counter() - begin

    def steps(self, canvas: Sequence[int], count: int, top_k: int | None, seed: int) -> list[float]:
        """See Program. Computes as mlx-vlm's generator does. Raises ValueError for a top_k, which it does not have."""
        if top_k is not None:
            raise ValueError("mlx-vlm conditions by all tokens")
        self._mx.random.seed(seed)
        stamps: list[float] = []
        stepping = self._loop.Stepping(steps=count + 3, sampler=self._sampler, greedy=self._greedy)
        listen: Callable[..., None] = lambda *_: stamps.append(time.perf_counter())  # noqa: E731
        self._loop.generate(self._model, self._cache, self._array(canvas), stepping, listen)
        # From the beginning of the third step: mlx-vlm does not wait for its first, and its last is shorter.
        return _intervals(stamps[2:], count)

    def best(self, canvas: Sequence[int]) -> list[int]:
        """See Program."""
        ids = self._array(canvas)
        masks = self._model.diffusion_decoder_masks(ids, self._cache)
        logits = self._model.diffusion_decoder_logits(ids, cache=self._cache, decoder_attention_mask=masks)
        return self._mx.argmax(logits, axis=-1)[0].tolist()

    def peak(self, *, begin: bool = False) -> int:
        """See Program. Counted by MLX."""
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
    """Return the times between stamps. Raises RuntimeError if there are not `count` of them."""
    if len(stamps) != count + 1:
        raise RuntimeError(f"{len(stamps) - 1} steps ran, not {count}: the canvas converged early")
    return [after - before for before, after in pairwise(stamps)]


def random_tokens(seed: int, count: int, vocabulary: int) -> list[int]:
    """Return token ids from a seed, equal in every process."""
    return np.random.default_rng(seed).integers(0, vocabulary, count).tolist()
