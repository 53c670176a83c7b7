"""Adapters: low-rank changes of a model's linear maps, in the layers and files of mlx-lm.

adapters.safetensors    lora_a and lora_b of every adapted module; after a full training, every trained parameter
adapter_config.json     fine_tune_type, num_layers, lora_parameters, and the settings of the training
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from mlx_diffgemma.errors import AdapterError, DiffGemmaError, OptionError
from mlx_diffgemma.files import read_json, replacing
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma

WEIGHTS, CONFIG = "adapters.safetensors", "adapter_config.json"
ATTENTION = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj")
DENSE = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
EXPERTS = ("experts.gate_up_proj", "experts.down_proj")
ROUTER = ("router.proj",)
_MAX_REASONS = 3
"""Lines of mlx-lm's message that are quoted: it has one line per tensor that does not fit."""


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Which modules of which layers get low-rank changes, and of what rank. Raises OptionError."""

    rank: int = 16
    alpha: float = 32.0
    """the change is multiplied by alpha / rank"""
    layers: int | None = None
    """how many layers, counted from the last; None is all"""
    keys: tuple[str, ...] = ATTENTION + DENSE

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise OptionError(f"rank={self.rank} must be at least 1")
        if not 0 < self.alpha < math.inf:
            raise OptionError(f"alpha={self.alpha} must be above 0")
        if self.layers is not None and self.layers < 1:
            raise OptionError(f"layers={self.layers} must be at least 1")

    @property
    def parameters(self) -> dict[str, Any]:
        """The object `lora_parameters` of mlx-lm."""
        scale = self.alpha / self.rank
        return {"rank": self.rank, "scale": scale, "dropout": 0.0, "keys": list(self.keys)}


def attach_adapter(model: DiffusionGemma, lora: LoRA, seed: int) -> None:
    """Freeze the model and add trainable low-rank changes to the modules of `lora.keys`; at first they are zero."""
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model.freeze()
    # mlx-lm initializes its layers with MLX's global random state.
    mx.random.seed(seed)
    count = len(model.layers)
    linear_to_lora_layers(model, min(lora.layers or count, count), lora.parameters)
    mx.eval(model.parameters())


def save_adapter(folder: Path, model: DiffusionGemma, config: Mapping[str, Any]) -> None:
    """Write the trainable parameters and `config` into `folder`; old files are replaced when both are complete."""
    folder.mkdir(parents=True, exist_ok=True)
    flat: dict[str, mx.array] = dict(tree_flatten(model.trainable_parameters()))
    with replacing(folder / WEIGHTS) as weights, replacing(folder / CONFIG) as settings:
        mx.save_safetensors(str(weights), flat, metadata={"format": "mlx"})
        settings.write_text(json.dumps(dict(config), indent=1) + "\n", encoding="utf-8")


def adapter_config(lora: LoRA | None, model: DiffusionGemma, training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of adapter_config.json; `lora` None is a full training, `training` its settings."""
    if lora is None:
        return {"fine_tune_type": "full", **training}
    count = len(model.layers)
    return {
        "fine_tune_type": "lora",
        "num_layers": min(lora.layers or count, count),
        "lora_parameters": lora.parameters,
        **training,
    }


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """Read adapter_config.json, and check that the weights are there too. Raises AdapterError."""
    if not folder.is_dir():
        raise AdapterError(f"no adapter at {folder}: it is a folder with {WEIGHTS} and {CONFIG}")
    try:
        settings = read_json(folder / CONFIG)
    except DiffGemmaError as error:
        raise AdapterError(f"the adapter in {folder} cannot be used: {error}") from None
    if not (folder / WEIGHTS).is_file():
        raise AdapterError(f"the adapter in {folder} has no {WEIGHTS}: copy it there, or train it again")
    return settings


def load_adapter(model: DiffusionGemma, folder: Path) -> None:
    """Add the changes of an adapter to a loaded model. Raises AdapterError for an adapter that does not fit it."""
    settings = read_adapter_config(folder)
    from mlx_lm.tuner.utils import load_adapters

    dtype = model.dtype
    try:
        load_adapters(model, str(folder))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        lines = [" ".join(line.split()) for line in str(error).splitlines()]
        rest = f" (and {len(lines) - _MAX_REASONS} more)" if len(lines) > _MAX_REASONS else ""
        reason = " ".join(lines[:_MAX_REASONS]) + rest
        raise AdapterError(f"the adapter in {folder} does not fit the model: {reason}") from error
    if settings.get("fine_tune_type") == "full":
        model.set_dtype(dtype)
    model.eval()
    model.freeze()
    mx.eval(model.parameters())
