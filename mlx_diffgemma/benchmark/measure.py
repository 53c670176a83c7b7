"""Time a model: prefills by length, steps by canvas and by prefix, each several times after a warm-up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlx.core as mx

from mlx_diffgemma.benchmark.results import Point
from mlx_diffgemma.benchmark.subject import Subject
from mlx_diffgemma.errors import OptionError, OutOfMemoryError, out_of_memory

PREFILLS, STEPS = 3, 8
"""How many prefills and how many steps one measurement times."""
PATIENCE = 10.0
"""Seconds after which no further repetition of one measurement begins."""


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What to measure, in tokens; `canvases` of None are the model's own length, a half, a quarter, an eighth of it."""

    lengths: tuple[int, ...]
    prefixes: tuple[int, ...]
    canvases: tuple[int, ...] | None = None


def read_sizes(option: str, text: str) -> tuple[int, ...]:
    """Parse numbers separated by commas; return them sorted, each once. Raises OptionError that names the option."""
    try:
        sizes = sorted({int(part) for part in text.split(",")})
    except ValueError:
        sizes = [0]
    if sizes[0] < 1:
        raise OptionError(f"{option} {text}: give whole numbers above 0, separated by commas")
    return tuple(sizes)


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """The sizes that a model can hold: lengths of prefills, (prefix, canvas) of steps, and a line per size left out."""

    lengths: tuple[int, ...]
    steps: tuple[tuple[int, int], ...]
    dropped: tuple[str, ...]


def fit(subject: Subject, sizes: Sizes) -> Fitting:
    """Choose the sizes that a model can hold: all canvases after the shortest prefix, the longest canvas after each."""
    whole = subject.canvas
    wanted = sizes.canvases or tuple(sorted({max(1, whole // part) for part in (8, 4, 2, 1)}))
    canvases = [canvas for canvas in wanted if canvas <= whole] if whole > 1 else [1]
    longest = max(canvases, default=0)
    lengths = [length for length in sizes.lengths if length <= subject.context]
    prefixes = [prefix for prefix in sizes.prefixes if prefix + longest <= subject.context] if canvases else []
    steps = [(prefixes[0], canvas) for canvas in canvases] if prefixes else []
    steps += [(prefix, longest) for prefix in prefixes[1:]]
    model, context = subject.loaded.model, f"{subject.context:,}"
    beside = f", a canvas of {longest} among them" if whole > 1 else ""
    dropped = [
        _dropped("prefill", sizes.lengths, lengths, f"{model} holds {context} tokens"),
        _dropped("canvas", wanted if whole > 1 else [], canvases, f"{model} denoises {whole} positions at most"),
        _dropped("prefix", sizes.prefixes if canvases else [], prefixes, f"{model} holds {context} tokens{beside}"),
    ]
    return Fitting(lengths=tuple(lengths), steps=tuple(steps), dropped=tuple(filter(None, dropped)))


def _dropped(what: str, wanted: Sequence[int], kept: Sequence[int], reason: str) -> str:
    """Return a line that names the sizes left out; "" if none is."""
    left = [f"{size:,}" for size in wanted if size not in kept]
    return f"{what} of {' and '.join(left)} tokens: {reason}" if left else ""


def time_prefill(subject: Subject, length: int) -> Point | OutOfMemoryError:
    """Time a prefill; return the error if the memory is too small for it."""

    def seconds() -> list[float]:
        subject.prefill(length)
        times = [subject.prefill(length)]
        while len(times) < PREFILLS and sum(times) < PATIENCE:
            times.append(subject.prefill(length))
        return times

    return _point(length, 0, seconds)


def time_steps(subject: Subject, prefix: int, canvas: int) -> Point | OutOfMemoryError:
    """Time steps; return the error if the memory is too small for them."""
    return _point(prefix, canvas, lambda: subject.steps(prefix, canvas, STEPS, PATIENCE))


def _point(prefix: int, canvas: int, seconds: Callable[[], list[float]]) -> Point | OutOfMemoryError:
    mx.clear_cache()
    mx.reset_peak_memory()
    try:
        with out_of_memory(f"measuring {prefix:,} tokens", "shorter ones are measured"):
            times = seconds()
    except OutOfMemoryError as error:
        return error
    return Point(prefix=prefix, canvas=canvas, seconds=tuple(times), peak_memory=mx.get_peak_memory())
