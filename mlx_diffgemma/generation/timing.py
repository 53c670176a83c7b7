"""The times of one generation."""

from __future__ import annotations

import time

import mlx.core as mx

from mlx_diffgemma.events import Stats


class Clock:
    """Measures one generation."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._prefilled = self._start
        self._first_block = 0.0
        self._last_block = self._start
        self._steps: list[int] = []

    def prefilled(self) -> None:
        """Note that the prompt is in the cache."""
        self._prefilled = time.perf_counter()

    def committed(self, steps: int) -> None:
        """Note that a block is final, after this many steps."""
        self._last_block = time.perf_counter()
        self._first_block = self._first_block or self._last_block - self._start
        self._steps.append(steps)

    def stats(self, prompt_tokens: int, tokens: int, *, reused: int = 0) -> Stats:
        """Return all figures at the end; the seconds per step include encoding the blocks before the last.

        reused: tokens of the prompt that were read before.
        """
        return Stats(
            prompt_tokens=prompt_tokens,
            reused_tokens=reused,
            tokens=tokens,
            blocks=len(self._steps),
            steps_per_block=tuple(self._steps),
            prefill_seconds=self._prefilled - self._start,
            seconds_to_first_block=self._first_block,
            seconds=self._last_block - self._start,
            seconds_per_step=(self._last_block - self._prefilled) / sum(self._steps),
            peak_memory=mx.get_peak_memory(),
        )
