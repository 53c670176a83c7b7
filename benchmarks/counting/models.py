"""Make models whose weights are never evaluated, so that 26 billion parameters take no memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx_diffgemma_convert.recipe import Recipe, make_quantization, make_recipe
from random_checkpoint import Width, make_config

from mlx_diffgemma.checkpoint.folder import read_folder
from mlx_diffgemma.checkpoint.hub import model_folder
from mlx_diffgemma.checkpoint.quantization import Quantization, parse_table
from mlx_diffgemma.files import read_json
from mlx_diffgemma.model.config import ModelConfig, parse_config
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.kernels import Kernels

SHAPES: dict[str, tuple[Width, int]] = {
    "26b": ("full", 30),
    "wide": ("full", 2),
    "mid": ("bench", 8),
    "tiny": ("tiny", 4),
}
"""Name -> width of a random checkpoint, number of layers."""

Packing = Callable[[str], Quantization | None]
"""Path of a module -> how its weights are packed, None if they are not."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is counted: a config.json, and how the weights are packed."""

    config: Mapping[str, Any]
    packing: Packing

    @property
    def sizes(self) -> ModelConfig:
        """The parsed configuration."""
        return parse_config(self.config)


def subject(name: str, bits: int | None) -> Subject:
    """Return a built-in shape in the mixed recipe with `bits` (None: bf16), or a checkpoint as it is packed.

    Raises DiffGemmaError for a folder that holds no checkpoint.
    """
    if name in SHAPES:
        width, layers = SHAPES[name]
        recipe = Recipe() if bits is None else make_recipe("mixed", make_quantization("affine", bits, None), {})
        return Subject(config=make_config(layers, width), packing=lambda path: recipe.at(f"{path}.weight"))
    folder = model_folder(name)
    config = read_json(folder / "config.json")
    table = parse_table(config)
    packed = {tensor.removesuffix(".scales") for tensor in read_folder(folder) if tensor.endswith(".scales")}
    return Subject(config=config, packing=lambda path: table.at(path) if table is not None and path in packed else None)


def ours(subject: Subject, dtype: mx.Dtype, kernels: Kernels) -> DiffusionGemma:
    """Return this runtime's model of a subject, with the kernels of the device that is counted."""
    model = DiffusionGemma(subject.sizes, kernels)
    prepare(model, subject.packing, dtype)
    model.join_projections()
    return model


def theirs(subject: Subject, dtype: mx.Dtype) -> nn.Module:
    """Return mlx-vlm's model of a subject."""
    from mlx_vlm.models.diffusion_gemma import Model
    from mlx_vlm.models.diffusion_gemma import ModelConfig as TheirConfig

    model = Model(TheirConfig.from_dict({**subject.config, "generation_config": {}}))
    prepare(model, subject.packing, dtype)
    return model


def prepare(model: nn.Module, packing: Packing, dtype: mx.Dtype) -> None:
    """Pack the weights and set the compute dtype, as loading does."""

    def packed(path: str, module: nn.Module) -> dict[str, int | str] | bool:
        entry = packing(path) if hasattr(module, "to_quantized") else None
        return False if entry is None else {"group_size": entry.group_size, "bits": entry.bits, "mode": entry.mode}

    nn.quantize(model, class_predicate=packed)
    model.set_dtype(dtype)
    model.eval()


def arrays(root: object) -> dict[str, mx.array]:
    """Return every array that an object holds, by its path."""
    found: dict[str, mx.array] = {}

    def note(path: str, array: mx.array) -> mx.array:
        found[path] = array
        return array

    _exchange(root, "", note, set())
    return found


def put(root: object, values: Mapping[str, mx.array]) -> None:
    """Replace the arrays that an object holds, by their paths."""
    _exchange(root, "", lambda path, _: values[path], set())


def _exchange(value: Any, path: str, change: Callable[[str, mx.array], mx.array], seen: set[int]) -> Any:
    """Return the value with its arrays changed; containers are changed in place, tuples are rebuilt."""
    if isinstance(value, mx.array):
        return change(path.lstrip("."), value)
    if isinstance(value, tuple):
        changed = [_exchange(each, f"{path}.{index}", change, seen) for index, each in enumerate(value)]
        return type(value)(*changed) if hasattr(value, "_fields") else tuple(changed)
    if id(value) in seen:
        return value
    seen.add(id(value))
    if isinstance(value, list):
        value[:] = [_exchange(each, f"{path}.{index}", change, seen) for index, each in enumerate(value)]
    if isinstance(value, dict):
        # A module of MLX is a dict of its arrays and modules.
        for key, each in list(value.items()):
            value[key] = _exchange(each, f"{path}.{key}", change, seen)
    if type(value).__module__.split(".")[0] in HOLDERS:
        for key, each in list(vars(value).items()) if hasattr(value, "__dict__") else []:
            vars(value)[key] = _exchange(each, f"{path}.{key}", change, seen)
    return value


HOLDERS = {"mlx", "mlx_diffgemma", "mlx_lm", "mlx_vlm"}
"""Packages whose objects may hold arrays of a model or a cache."""
