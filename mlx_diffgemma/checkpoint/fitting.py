"""Whether memory holds a checkpoint, judged before its weights are read, and what would fit where it does not."""

from __future__ import annotations

from collections.abc import Iterator

import mlx.core as mx

from mlx_diffgemma.checkpoint.weights import Checkpoint
from mlx_diffgemma.device.memory import higher_limit, mac_for, machine_bytes, usable_bytes
from mlx_diffgemma.errors import OutOfMemoryError
from mlx_diffgemma.model.kernels import sparing
from mlx_diffgemma.model.memory import MemoryNeed, memory_need

_SHORTEST_CANVAS = 32


def require_memory(name: str, checkpoint: Checkpoint) -> None:
    """Raise OutOfMemoryError, with what would fit, for a checkpoint that needs more memory than MLX should use.

    Counted are the weights, a step with the model's canvas, and a prompt of 1,024 tokens. name: for the message.
    """
    usable = usable_bytes()
    need = _need(checkpoint, usable)
    if need.total > usable:
        *others, last = [*_remedies(checkpoint, need, usable), "add --force (force=True) to load it all the same"]
        raise OutOfMemoryError(
            f"{name} needs {_size(need.total)} of memory ({_size(need.weights)} for the weights), and MLX should use "
            f"{_size(usable)} at most on this machine: {', '.join(others)}, or {last}"
        )


def spare_memory(checkpoint: Checkpoint) -> None:
    """Let the model read its logits in parts if memory does not hold those of all positions, which is a bit faster."""
    if _need(checkpoint).total > usable_bytes():
        checkpoint.model.kernels = sparing(checkpoint.model.kernels)


def _need(checkpoint: Checkpoint, usable: int | None = None, canvas: int | None = None) -> MemoryNeed:
    """Return what a checkpoint needs; usable, canvas: see `memory_need`."""
    return memory_need(
        checkpoint.model.config,
        checkpoint.weight_bytes,
        itemsize=checkpoint.dtype.size,
        canvas=canvas,
        usable=usable,
    )


def _remedies(checkpoint: Checkpoint, need: MemoryNeed, usable: int) -> Iterator[str]:
    """Yield what would fit: a shorter canvas, another conversion, a higher limit."""
    canvas = checkpoint.model.config.canvas_length // 2
    while canvas >= _SHORTEST_CANVAS:
        if _need(checkpoint, usable, canvas).total <= usable:
            yield f"use a shorter canvas (--force --canvas-length {canvas})"
            break
        canvas //= 2
    yield f"convert it again with `mlx_diffgemma.convert SRC DST --fit {mac_for(usable)}GB`"
    command = higher_limit(need.total, machine_bytes()) if mx.metal.is_available() else None
    if command is not None:
        yield f"raise the limit with `{command}`"


def _size(nbytes: int) -> str:
    """Return a number of bytes in powers of 1000, as files are counted."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.1f} MB"
