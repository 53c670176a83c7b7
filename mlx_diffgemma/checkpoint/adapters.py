"""Adapters: low-rank changes of a model's linear maps, in the layers and files of mlx-lm.

adapters.safetensors    lora_a and lora_b of every adapted module; after a full training, every trained parameter
adapter_config.json     fine_tune_type, num_layers, lora_parameters, and the settings of the training
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from mlx_diffgemma.checkpoint.folder import ADAPTER_CONFIG
from mlx_diffgemma.checkpoint.peft import PEFT_WEIGHTS, LowRank, PeftAdapter, is_peft, read_peft
from mlx_diffgemma.errors import AdapterError, DiffGemmaError, OptionError
from mlx_diffgemma.files import read_json, replacing
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma

_logger = logging.getLogger("mlx_diffgemma")

WEIGHTS = "adapters.safetensors"
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
    """Write the trainable parameters and `config` into `folder`; old files are replaced when both are complete.

    Raises AdapterError if that fails; the old files are then as they were.
    """
    flat: dict[str, mx.array] = dict(tree_flatten(model.trainable_parameters()))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / WEIGHTS) as weights, replacing(folder / ADAPTER_CONFIG) as settings:
            mx.save_safetensors(str(weights), flat, metadata={"format": "mlx"})
            settings.write_text(json.dumps(dict(config), indent=1) + "\n", encoding="utf-8")
    except (OSError, RuntimeError) as error:  # MLX raises RuntimeError where the disk is full
        reason = getattr(error, "strerror", None) or error
        raise AdapterError(
            f"the adapter cannot be saved in {folder} ({reason}): check its permissions and the free space"
        ) from error


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
    """Read adapter_config.json, and check that the weights are there too; an adapter of PEFT is checked whole.

    Raises AdapterError, and WeightsError for damaged weights of PEFT.
    """
    if not folder.is_dir():
        raise AdapterError(f"no adapter at {folder}: it is a folder with {WEIGHTS} and {ADAPTER_CONFIG}")
    try:
        settings = read_json(folder / ADAPTER_CONFIG)
    except DiffGemmaError as error:
        raise AdapterError(f"the adapter in {folder} cannot be used: {error}") from None
    weights = PEFT_WEIGHTS if is_peft(settings) else WEIGHTS
    if not (folder / weights).is_file():
        raise AdapterError(f"the adapter in {folder} has no {weights}: copy it there, or train it again")
    if is_peft(settings):
        read_peft(folder, settings)
    return settings


def low_rank_scale(folder: Path, settings: Mapping[str, Any]) -> float:
    """Return by what mlx-lm multiplies the changes of an adapter. Raises AdapterError if that is no finite number."""
    parameters = settings.get("lora_parameters")
    scale = cast("dict[str, Any]", parameters).get("scale") if isinstance(parameters, dict) else None
    if not isinstance(scale, int | float) or isinstance(scale, bool) or not math.isfinite(scale):
        raise AdapterError(
            f"the adapter in {folder} cannot be used: {ADAPTER_CONFIG} has no number lora_parameters.scale"
        )
    return float(scale)


def refuse_foreign_adapter(folder: Path) -> None:
    """Raise AdapterError if a training in `folder` would replace the files of an adapter of PEFT."""
    if (folder / ADAPTER_CONFIG).exists() and is_peft(read_json(folder / ADAPTER_CONFIG)):
        raise AdapterError(
            f"{folder} holds an adapter of PEFT, which is not replaced: to begin with it, name it as --start-from, "
            "and another folder as --adapter-path"
        )


def load_adapter(model: DiffusionGemma, folder: Path) -> None:
    """Add the changes of an adapter to a loaded model. Raises AdapterError for an adapter that does not fit it."""
    settings = read_adapter_config(folder)
    if is_peft(settings):
        _load_peft(model, read_peft(folder, settings))
    else:
        _load_mlx(model, folder, settings)
    model.eval()
    model.freeze()
    mx.eval(model.parameters())


def _load_mlx(model: DiffusionGemma, folder: Path, settings: Mapping[str, Any]) -> None:
    from mlx_lm.tuner.utils import load_adapters

    dtype = model.dtype
    parameters = settings.get("lora_parameters")
    if isinstance(parameters, dict) and "scale" in parameters:
        # mlx-lm multiplies by whatever is there.
        low_rank_scale(folder, settings)
    try:
        load_adapters(model, str(folder))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        lines = [" ".join(line.split()) for line in str(error).splitlines()]
        rest = f" (and {len(lines) - _MAX_REASONS} more)" if len(lines) > _MAX_REASONS else ""
        reason = " ".join(lines[:_MAX_REASONS]) + rest
        raise AdapterError(f"the adapter in {folder} does not fit the model: {reason}") from error
    if settings.get("fine_tune_type") == "full":
        model.set_dtype(dtype)


def _load_peft(model: DiffusionGemma, adapter: PeftAdapter) -> None:
    """Attach the changes; those of encoder and decoder go to layers of their own unless they are equal."""
    if adapter.vision:
        _logger.info("skipping the adapter's changes of the vision tower (%d modules)", len(adapter.vision))
    shared = adapter.is_shared()
    # The encoder's layers are copied before the decoder's get their changes.
    encoder = [] if shared else model.separate_encoder()
    decoder: dict[str, nn.Module] = {f"layers.{index}": layer for index, layer in enumerate(model.layers)}
    decoder["self_conditioning"] = model.model.decoder.self_conditioning
    _attach(adapter, adapter.decoder, decoder)
    if not shared:
        _attach(adapter, adapter.encoder, {f"layers.{index}": layer for index, layer in enumerate(encoder)})


def _attach(adapter: PeftAdapter, changes: Mapping[str, LowRank], parents: Mapping[str, nn.Module]) -> None:
    """Replace the linear maps in `parents` by ones with their changes added."""
    from mlx_lm.tuner.lora import LoRALinear

    arrays = cast("dict[str, mx.array]", mx.load(str(adapter.folder / PEFT_WEIGHTS)))
    for path, change in changes.items():
        name = next((name for name in parents if path.startswith(f"{name}.")), "")
        inner = path.removeprefix(f"{name}.")
        linear = dict(parents[name].named_modules()).get(inner) if name else None
        if not isinstance(linear, (nn.Linear, nn.QuantizedLinear)):
            raise AdapterError(f"the adapter in {adapter.folder} was made for another model: {path} is no linear map")
        changed = LoRALinear.from_base(cast("nn.Linear", linear), r=change.a.shape[0], scale=change.scale)
        shape = (changed.lora_b.shape[1], changed.lora_a.shape[0])
        if change.shape != shape:
            raise AdapterError(
                f"the adapter in {adapter.folder} was made for another model: {path} is {list(shape)}, "
                f"and its change {list(change.shape)}"
            )
        changed.lora_a, changed.lora_b = arrays[change.a.name].T, arrays[change.b.name].T
        mx.eval(changed.lora_a, changed.lora_b)
        changed.freeze()
        changed.eval()
        parents[name].update_modules(cast("dict[str, Any]", tree_unflatten([(inner, changed)])))
