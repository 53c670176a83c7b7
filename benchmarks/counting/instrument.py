"""Replace functions of MLX, so that a trace shows the kernels that run instead of their members.

A trace takes compiled functions apart, refuses `mx.contiguous`, and on the CPU shows the primitives that `mx.fast`
falls back to. While a trace runs, a replaced function leaves one marked node: `mx.depends` of arrays of the right
shapes on a tag and on the real inputs. The tag is the number of a `Call`. Outside of a trace a replaced function acts
as MLX's own.

`install` must run before the import of modules that compile functions: mlx.nn, mlx_diffgemma, mlx_vlm.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten, tree_map

MARK = 0x5EED
"""The first number of a tag."""

real_compile = mx.compile
real_contiguous = mx.contiguous
real_eval, real_async_eval = mx.eval, mx.async_eval


class CountError(Exception):
    """A computation that the counter has no rule for, or that it would count wrongly."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """The call that a node marks."""

    kind: str
    function: Callable[..., list[mx.array]] | None = None
    """inputs -> outputs, if the call is traced separately"""
    compiled: Callable[..., list[mx.array]] | None = None
    """that function as MLX compiles it"""
    shapeless: bool = False
    """whether the function is compiled for any shapes, which makes another graph"""
    key: Hashable = None
    """calls with equal keys and shapes have equal graphs"""


@dataclass(kw_only=True)
class Recording:
    """The marked nodes of the running trace; `inside` a compiled function, others are not marked."""

    calls: list[Call] = field(default_factory=list)
    marking: bool = True
    inside: bool = False
    gpu: bool = False


_current: list[Recording] = []


def recording() -> Recording | None:
    """Return the recording of the running trace; None outside of a trace."""
    return _current[-1] if _current else None


@contextmanager
def record(*, gpu: bool = False, inside: bool = False, marking: bool = True) -> Generator[Recording]:
    """Record a trace, in which nothing is evaluated.

    marking: replaced functions leave marks. gpu: each function of mx.fast is one kernel.
    """
    _current.append(Recording(gpu=gpu, inside=inside, marking=marking))
    mx.contiguous = _contiguous
    mx.eval = mx.async_eval = _leave
    try:
        yield _current[-1]
    finally:
        _current.pop()
        if not _current:
            mx.contiguous = real_contiguous
            mx.eval, mx.async_eval = real_eval, real_async_eval


def install() -> None:
    """Replace the functions for the rest of the process."""
    mx.compile = compiled
    mx.custom_function = Plain
    for name, kind in {"rms_norm": "RMSNorm", "rope": "RoPE", "scaled_dot_product_attention": ATTENTION}.items():
        setattr(mx.fast, name, _fast(getattr(mx.fast, name), kind))
    mx.dequantize = _one_kernel_on_a_gpu(mx.dequantize, DEQUANTIZE)


ATTENTION, DEQUANTIZE = "ScaledDotProductAttention", "Dequantize"


def mark(call: Call, inputs: Iterable[mx.array], outputs: Sequence[mx.array]) -> list[mx.array]:
    """Return arrays of the shapes of `outputs` that one marked node makes from `inputs`."""
    current = recording()
    assert current is not None
    tag = mx.array([MARK, len(current.calls)])
    current.calls.append(call)
    return mx.depends([mx.zeros(output.shape, output.dtype) for output in outputs], [tag, *inputs])


def apart(array: mx.array) -> mx.array:
    """Return a copy of an array, so that a trace does not merge primitives on it with primitives on the original."""
    current = recording()
    if current is None or not current.marking:
        return array
    return mark(Call(kind="Copy"), [array], [array])[0]


class Plain:
    """mx.custom_function without its gradient, because a trace refuses the node of a custom function."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Call the function."""
        return self._function(*arguments, **named)

    def vjp(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the gradient unused."""
        return function

    jvp = vmap = vjp


def compiled(function: Callable[..., Any] | None = None, **options: Any) -> Callable[..., Any]:
    """Replace mx.compile, as a call or as a decorator with options."""
    if function is None:
        return lambda wanted: compiled(wanted, **options)
    kernel = real_compile(function, **options)

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        current = recording()
        if current is None or not current.marking:
            return kernel(*arguments, **named)
        if current.inside:
            return function(*arguments, **named)
        if options.keys() - {"shapeless"}:
            raise CountError(f"{function.__qualname__} is compiled with {', '.join(options)}: no rule for that")
        call = Call(kind="Compiled", shapeless=bool(options.get("shapeless")))
        return _taken_apart_later(call, function, kernel, (arguments, named))

    return called


def _taken_apart_later(
    call: Call, function: Callable[..., Any], kernel: Callable[..., Any] | None, passed: tuple[Any, Any]
) -> Any:
    """Call the function for the shapes of its results; return arrays that a mark makes in its place."""
    current = recording()
    assert current is not None
    leaves = [leaf for _, leaf in tree_flatten(passed)]
    arrays = [leaf for leaf in leaves if isinstance(leaf, mx.array)]
    fixed = tuple(repr(leaf) for leaf in leaves if not isinstance(leaf, mx.array))

    def flat(inner: Callable[..., Any]) -> Callable[..., list[mx.array]]:
        def on_arrays(*values: mx.array) -> list[mx.array]:
            left = iter(values)
            arguments, named = tree_map(lambda leaf: next(left) if isinstance(leaf, mx.array) else leaf, passed)
            return [leaf for _, leaf in tree_flatten(inner(*arguments, **named))]

        return on_arrays

    inside, current.inside = current.inside, True
    try:
        result = function(*passed[0], **passed[1])
    finally:
        current.inside = inside
    outputs = [leaf for _, leaf in tree_flatten(result)]
    compiled = None if kernel is None else flat(kernel)
    call = replace(call, function=flat(function), compiled=compiled, key=(function, fixed))
    marked = iter(mark(call, arrays, outputs))
    return tree_map(lambda _: next(marked), result)


def _leave(*_: Any) -> None:
    """Replace mx.eval by nothing, so that the graph is kept."""


def _contiguous(array: mx.array, *arguments: Any, **named: Any) -> mx.array:
    current = recording()
    if current is None or not current.marking:
        return real_contiguous(array, *arguments, **named)
    return mark(Call(kind="Contiguous"), [array], [array])[0]


def _fast(function: Callable[..., mx.array], kind: str) -> Callable[..., mx.array]:
    """Replace a function of mx.fast: one kernel on a GPU; on the CPU a call that is traced separately."""

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> mx.array:
        current = recording()
        if current is None or not current.marking or (current.inside and not current.gpu):
            return function(*arguments, **named)
        if not current.gpu:
            return _taken_apart_later(Call(kind=kind), function, None, (arguments, named))
        return on_gpu(*arguments, **named)

    on_gpu = _one_kernel_on_a_gpu(function, kind)
    return called


def _one_kernel_on_a_gpu(function: Callable[..., mx.array], kind: str) -> Callable[..., mx.array]:
    """Replace a function that is one kernel on a GPU and several primitives on the CPU."""

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> mx.array:
        current = recording()
        if current is None or not current.marking or not current.gpu:
            return function(*arguments, **named)
        arrays = [leaf for leaf in (*arguments, *named.values()) if isinstance(leaf, mx.array)]
        return mark(Call(kind=kind), arrays, [function(*arguments, **named)])[0]

    return called
