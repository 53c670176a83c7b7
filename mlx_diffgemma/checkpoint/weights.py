"""A checkpoint folder -> a model with its weights in place.

1  config.json, generation_config.json -> ModelConfig, QuantizationTable, GenerationConfig
2  safetensors headers             -> every parameter's name, dtype, shape and place in the files
3  the model, nothing computed yet; modules that the files hold packed become their packed kind
4  the strict check                names, shapes and kinds of dtype, before any weight is read
5  the weights, read lazily, cast to the compute dtype, and evaluated a layer at a time
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_diffgemma.checkpoint.names import CheckpointTensors, TensorSource, sort_tensors
from mlx_diffgemma.checkpoint.quantization import QuantizationTable, parse_table
from mlx_diffgemma.checkpoint.safetensors import FLOATS, read_folder
from mlx_diffgemma.errors import OptionError, QuantizationError, WeightsError, out_of_memory
from mlx_diffgemma.files import read_json
from mlx_diffgemma.generation_config import GenerationConfig, parse_generation_config, token_ids
from mlx_diffgemma.model.config import ModelConfig, object_at, parse_config
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.experts import ExpertLinear

logger = logging.getLogger("mlx_diffgemma")

DTYPES = {"bfloat16": mx.bfloat16, "float32": mx.float32}
"""Compute dtypes by the names that options use; activations of this family exceed the range of float16."""

LAYER = re.compile(r"\.layers\.(\d+)\.")
LISTED = 3


def default_dtype() -> mx.Dtype:
    """bfloat16 where the device is a GPU; float32 on the CPU, where bfloat16 kernels are slow or missing."""
    return mx.float32 if mx.default_device() == mx.Device(mx.cpu) else mx.bfloat16


def load_generation_config(folder: Path, raw: Mapping[str, Any]) -> GenerationConfig:
    """The checkpoint's defaults: generation_config.json, else the object inside config.json, else the reference's."""
    stop_tokens = token_ids("config.json: eos_token_id", raw.get("eos_token_id"))
    path = folder / "generation_config.json"
    if path.exists():
        return parse_generation_config(read_json(path), stop_tokens)
    return parse_generation_config(object_at(raw, "generation_config") or {}, stop_tokens)


def load_model(folder: Path, dtype: str | None = None) -> DiffusionGemma:
    """Load the checkpoint in `folder` for the compute dtype named, None being the device's own.

    Raises ModelNotFoundError, ConfigError, QuantizationError, WeightsError, OptionError or OutOfMemoryError.
    """
    return open_checkpoint(folder, dtype).load()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A folder that was found to be in order, its weights not read yet."""

    model: DiffusionGemma
    sources: Mapping[str, TensorSource]
    dtype: mx.Dtype
    defaults: GenerationConfig

    def load(self) -> DiffusionGemma:
        """The model with its weights in place. Raises WeightsError or OutOfMemoryError."""
        with out_of_memory("loading the weights", "choose a smaller quantization, or close other programs"):
            install(self.model, self.sources, self.dtype)
        return self.model


def open_checkpoint(folder: Path, dtype: str | None = None) -> Checkpoint:
    """Check everything about a folder that can be checked without reading its weights: phases 1 to 4."""
    if dtype is not None and dtype not in DTYPES:
        raise OptionError(f"dtype={dtype!r} must be one of {', '.join(DTYPES)}")
    compute = default_dtype() if dtype is None else DTYPES[dtype]
    raw = read_json(folder / "config.json")
    config, table, defaults = parse_config(raw), parse_table(raw), load_generation_config(folder, raw)
    contents = sort_tensors(read_folder(folder))
    if contents.vision:
        logger.info("skipping the vision tower (%d tensors): this version reads text only", len(contents.vision))
    model = build(config, table, contents.text)
    check(model, contents)
    check_device(model, compute)
    return Checkpoint(model=model, sources=contents.text, dtype=compute, defaults=defaults)


def build(config: ModelConfig, table: QuantizationTable | None, sources: Mapping[str, TensorSource]) -> DiffusionGemma:
    """The model with every module packed that has `.scales` in the files; nothing is allocated or computed."""
    model = DiffusionGemma(config)
    packed = {name.removesuffix(".scales") for name in sources if name.endswith(".scales")}
    if not packed:
        return model
    if table is None:
        raise QuantizationError("the files hold packed weights, but config.json has no quantization entry")

    def packing(path: str, module: nn.Module) -> dict[str, int | str] | bool:
        if path not in packed or not hasattr(module, "to_quantized"):
            return False
        entry = table.at(path)
        row = cast("mx.array", module.weight).shape[-1]
        if row % entry.group_size:
            raise QuantizationError(f"{path}: rows of {row} values do not divide into groups of {entry.group_size}")
        return {"group_size": entry.group_size, "bits": entry.bits, "mode": entry.mode}

    nn.quantize(model, class_predicate=packing)
    return model


def check(model: nn.Module, contents: CheckpointTensors) -> None:
    """Raise WeightsError naming the tensors that are missing, unknown, mis-shaped or of the wrong kind."""
    expected = dict(tree_flatten(model.parameters()))
    problems = [
        f"{name} is missing, expected {_shape(expected[name].shape)}" for name in expected if name not in contents.text
    ]
    for name, source in contents.text.items():
        if name not in expected:
            found = source.parts[0]
            problems.append(f"{found.name} is unknown ({found.dtype} {_shape(source.shape)})")
        elif source.shape != tuple(expected[name].shape):
            problems.append(f"{name} has shape {_shape(source.shape)}, expected {_shape(expected[name].shape)}")
        elif source.dtype not in (kinds := _kinds(expected[name].dtype)):
            problems.append(f"{name} is {source.dtype}, expected {' or '.join(kinds)}")
    if problems:
        rest = f" (and {len(problems) - LISTED} more)" if len(problems) > LISTED else ""
        raise WeightsError(f"the weights do not fit config.json: {'; '.join(problems[:LISTED])}{rest}")


def check_device(model: nn.Module, dtype: mx.Dtype) -> None:
    """Raise OptionError for a dtype that MLX's CPU backend cannot multiply unpacked experts in."""
    unpacked = any(isinstance(module, ExpertLinear) for module in model.modules())
    if unpacked and dtype != mx.float32 and mx.default_device() == mx.Device(mx.cpu):
        raise OptionError(
            "unquantized experts need dtype=float32 on the CPU: leave the dtype to the runtime, or convert to 4 bits"
        )


def install(model: nn.Module, sources: Mapping[str, TensorSource], dtype: mx.Dtype) -> None:
    """Put the sources' values in place as `dtype`, at most one layer's worth of files being held twice at any time."""
    files = {part.file for source in sources.values() for part in source.parts}
    lazy = {file: _lazy(file) for file in sorted(files)}
    groups: dict[str, list[tuple[str, mx.array]]] = {}
    for name, source in sources.items():
        parts = [lazy[part.file][part.name] for part in source.parts]
        array = parts[0] if len(parts) == 1 else mx.concatenate(parts).reshape(source.shape)
        if mx.issubdtype(array.dtype, mx.floating):
            array = array.astype(dtype)
        layer = LAYER.search(name)
        groups.setdefault(layer[1] if layer else "", []).append((name, array))
    lazy.clear()
    while groups:
        _, arrays = groups.popitem()
        mx.eval([array for _, array in arrays])
        model.load_weights(arrays, strict=False)
    model.eval()
    model.freeze()
    mx.clear_cache()


def _lazy(file: Path) -> dict[str, mx.array]:
    """A shard's tensors, not read yet."""
    try:
        return cast("dict[str, mx.array]", mx.load(str(file)))
    except RuntimeError as error:
        raise WeightsError(f"{file} cannot be read by MLX ({error}): download it again") from error


def _kinds(dtype: mx.Dtype) -> tuple[str, ...]:
    """The dtypes that a file may have for a parameter of this dtype."""
    return (
        FLOATS if mx.issubdtype(dtype, mx.floating) else (str(dtype).rpartition(".")[2].upper().replace("UINT", "U"),)
    )


def _shape(shape: Iterable[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
