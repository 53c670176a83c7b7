"""Load a model: from a folder or a name to a Session."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

import mlx.core as mx

from mlx_diffgemma.checkpoint.adapters import load_adapter, read_adapter_config
from mlx_diffgemma.checkpoint.fitting import require_memory, spare_memory
from mlx_diffgemma.checkpoint.hub import model_folder
from mlx_diffgemma.checkpoint.weights import open_checkpoint
from mlx_diffgemma.device.accelerators import apple_facts
from mlx_diffgemma.device.environment import lengthen_command_buffers
from mlx_diffgemma.display.bar import Progress, no_progress
from mlx_diffgemma.errors import AdapterError
from mlx_diffgemma.files import home_expanded
from mlx_diffgemma.session import Session
from mlx_diffgemma.text.tokenizer import load_tokenizer

_logger = logging.getLogger("mlx_diffgemma")


def load(
    model: str | Path,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    adapter: str | Path | None = None,
    progress: Progress = no_progress,
    force: bool = False,
) -> Session:
    """Load a model from a folder or a Hub repository id; "demo" is the small one in the package.

    revision: branch, tag or commit of a Hub repository. dtype: "bfloat16" or "float32" to compute in; None is bfloat16
    on a GPU and float32 on the CPU. adapter: folder of an adapter to apply to the model. progress: shows the reading of
    the weights. force: load a model that needs more memory than MLX should use on this machine, which is refused
    otherwise. Raises a DiffGemmaError that says what is wrong with the folder.

    On M5 and CUDA float32 is float32 only if MLX has multiplied no float32 matrices in this process before, or
    MLX_ENABLE_TF32=0 was set then.
    """
    changes = None if adapter is None else home_expanded(adapter, AdapterError)
    if changes is not None:
        read_adapter_config(changes)
    session = load_trainable(model, revision=revision, dtype=dtype, progress=progress, force=force)
    if changes is None:
        session.model.join_projections()
    else:
        load_adapter(session.model, changes)
    return session


def load_trainable(
    model: str | Path,
    *,
    revision: str | None = None,
    dtype: str | None = None,
    progress: Progress = no_progress,
    force: bool = False,
) -> Session:
    """Load a model without an adapter, its parameters as files name them: what adapters and training need."""
    lengthen_command_buffers()
    _warn_of_old_software()
    folder = model_folder(model, revision)
    # Everything is checked before gigabytes are read.
    checkpoint = open_checkpoint(folder, dtype)
    tokenizer = load_tokenizer(folder)
    if not force:
        require_memory(str(model), checkpoint)
    spare_memory(checkpoint)
    return Session(checkpoint.load(progress), tokenizer, checkpoint.defaults)


@cache
def _warn_of_old_software() -> None:
    """Log once if MLX could be faster on this machine with a newer system or package."""
    if warning := apple_facts(mx.device_info().get("architecture")).warning():
        _logger.warning("%s", warning)
