"""A checkpoint folder -> a model with its weights.

1  configuration   config.json, generation_config.json -> ModelConfig, QuantizationTable, GenerationConfig
2  headers         safetensors headers -> name, dtype, shape and position of every parameter in the files
3  model           nothing is computed yet; a module is packed if the files hold it packed
4  strict check    names, shapes and dtypes, before any weight is read
5  weights         read lazily, cast to the compute dtype, evaluated layer by layer
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

from mlx_diffgemma.checkpoint.defaults import load_generation_config
from mlx_diffgemma.checkpoint.folder import read_config, read_folder
from mlx_diffgemma.checkpoint.names import CheckpointTensors, TensorSource, sort_tensors
from mlx_diffgemma.checkpoint.quantization import ENTRIES, QuantizationTable, parse_table, refuse_foreign
from mlx_diffgemma.checkpoint.safetensors import FLOATS, held_bytes
from mlx_diffgemma.checkpoint.scaled import ScaledTensor
from mlx_diffgemma.device.environment import prepare_float32
from mlx_diffgemma.display.bar import Progress, no_progress
from mlx_diffgemma.errors import OptionError, QuantizationError, WeightsError, out_of_memory
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.config import ModelConfig, parse_config
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.experts import ExpertLinear

_logger = logging.getLogger("mlx_diffgemma")

DTYPES = {"bfloat16": mx.bfloat16, "float32": mx.float32}
"""The compute dtypes that an option can name."""

_LAYER = re.compile(r"\.layers\.(\d+)\.")
_MAX_PROBLEMS = 3
"""Problems that a message lists; the others are counted."""


def default_dtype() -> mx.Dtype:
    """Return bfloat16 on a GPU and float32 on the CPU, where bfloat16 kernels are slow or missing."""
    return mx.float32 if mx.default_device() == mx.Device(mx.cpu) else mx.bfloat16


def load_model(folder: Path, dtype: str | None = None) -> DiffusionGemma:
    """Load the checkpoint in `folder`, to compute in `dtype`; None is the default of the device.

    Raises ModelNotFoundError, ConfigError, QuantizationError, WeightsError, OptionError or OutOfMemoryError.
    """
    return open_checkpoint(folder, dtype).load()


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checked folder whose weights have not been read yet."""

    model: DiffusionGemma
    sources: Mapping[str, TensorSource]
    dtype: mx.Dtype
    defaults: GenerationConfig

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights once they are loaded."""
        return sum(held_bytes(source.dtype, source.shape, self.dtype.size) for source in self.sources.values())

    def load(self, progress: Progress = no_progress) -> DiffusionGemma:
        """Read the weights into the model and return it. Raises WeightsError or OutOfMemoryError."""
        with out_of_memory("loading the weights", "choose a smaller quantization, or close other programs"):
            install_weights(self.model, self.sources, self.dtype, progress)
        return self.model


def open_checkpoint(folder: Path, dtype: str | None = None) -> Checkpoint:
    """Check all of a folder that can be checked without reading weights: phases 1 to 4. Raises as load_model does."""
    if dtype == "float16":
        raise OptionError(
            "dtype='float16' ends at 65,504, and this model's activations do not: use bfloat16 or float32"
        )
    if dtype is not None and dtype not in DTYPES:
        raise OptionError(f"dtype={dtype!r} must be one of {', '.join(DTYPES)}")
    prepare_float32(dtype)
    compute = default_dtype() if dtype is None else DTYPES[dtype]
    raw = read_config(folder)
    config, defaults = parse_config(raw), load_generation_config(folder, raw)
    tensors = sort_tensors(read_folder(folder))
    table = table_of_files(raw, tensors)
    if tensors.vision:
        _logger.info("skipping the vision tower (%d tensors): this version reads text only", len(tensors.vision))
    model = build_model(config, table, tensors.text)
    check_tensors(model, tensors)
    check_dtype(model, compute)
    return Checkpoint(model=model, sources=tensors.text, dtype=compute, defaults=defaults)


def table_of_files(config: Mapping[str, Any], tensors: CheckpointTensors) -> QuantizationTable | None:
    """Return the table by which the files are packed; None for files that are not, whatever config.json says.

    Raises QuantizationError for packed tensors that MLX cannot run, or without an entry in config.json.
    """
    refuse_foreign(tensors.text)
    if any(name.endswith(".scales") for name in tensors.text):
        table = parse_table(config)
        if table is None:
            raise QuantizationError(
                "the files hold packed weights, but config.json has no quantization entry of MLX: "
                "download or convert them again"
            )
        return table
    stale = [key for key in ENTRIES if config.get(key)]
    if stale and _scaled(tensors) is None:
        _logger.warning("ignoring %s in config.json: the files hold no packed weights", " and ".join(stale))
    return None


def _scaled(tensors: CheckpointTensors) -> ScaledTensor | None:
    """Return a tensor in FP8 or NVFP4, None if there is none."""
    parts = (part for source in tensors.text.values() for part in source.parts)
    return next((part for part in parts if isinstance(part, ScaledTensor)), None)


def build_model(
    config: ModelConfig, table: QuantizationTable | None, sources: Mapping[str, TensorSource]
) -> DiffusionGemma:
    """Build the model without allocating memory; a module is packed if `sources` has its `.scales`.

    table: the formats of packed modules, None if there are none.
    """
    model = DiffusionGemma(config)
    if table is None:
        return model
    packed = {name.removesuffix(".scales") for name in sources if name.endswith(".scales")}

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


def check_tensors(model: nn.Module, tensors: CheckpointTensors) -> None:
    """Raise WeightsError that names the tensors that are missing or unknown, or have a wrong shape or dtype."""
    if scaled := _scaled(tensors):
        raise WeightsError(
            f"the weights are in FP8 or NVFP4 ({scaled.name} is {scaled.stored.dtype}), which the converter alone "
            "reads: run `mlx_diffgemma convert FOLDER NEW`, and use NEW"
        )
    expected = dict(tree_flatten(model.parameters()))
    problems = [
        f"{name} is missing, expected {_shape(expected[name].shape)}" for name in expected if name not in tensors.text
    ]
    for name, source in tensors.text.items():
        if name not in expected:
            found = source.parts[0]
            problems.append(f"{found.name} is unknown ({found.dtype} {_shape(source.shape)})")
        elif source.shape != tuple(expected[name].shape):
            problems.append(f"{name} has shape {_shape(source.shape)}, expected {_shape(expected[name].shape)}")
        elif source.dtype not in (dtypes := _file_dtypes(expected[name].dtype)):
            problems.append(f"{name} is {source.dtype}, expected {' or '.join(dtypes)}")
    if problems:
        rest = f" (and {len(problems) - _MAX_PROBLEMS} more)" if len(problems) > _MAX_PROBLEMS else ""
        raise WeightsError(f"the weights do not fit config.json: {'; '.join(problems[:_MAX_PROBLEMS])}{rest}")


def check_dtype(model: nn.Module, dtype: mx.Dtype) -> None:
    """Raise OptionError for a compute dtype in which MLX cannot multiply unpacked experts on the CPU."""
    unpacked = any(isinstance(module, ExpertLinear) for module in model.modules())
    if unpacked and dtype != mx.float32 and mx.default_device() == mx.Device(mx.cpu):
        raise OptionError(
            "unquantized experts need dtype=float32 on the CPU: leave the dtype to the runtime, or convert to 4 bits"
        )


def install_weights(
    model: nn.Module, sources: Mapping[str, TensorSource], dtype: mx.Dtype, progress: Progress = no_progress
) -> None:
    """Read the weights into `model` as `dtype`, layer by layer: at most one layer is in memory twice."""
    files = {part.file for source in sources.values() for part in source.parts}
    lazy = {file: _lazy(file) for file in sorted(files)}
    groups: dict[str, list[tuple[str, mx.array]]] = {}
    for name, source in sources.items():
        parts = [lazy[part.file][part.name] for part in source.parts]
        array = parts[0] if len(parts) == 1 else mx.concatenate(parts).reshape(source.shape)
        if mx.issubdtype(array.dtype, mx.floating):
            array = array.astype(dtype)
        found = _LAYER.search(name)
        groups.setdefault(found[1] if found else "", []).append((name, array))
    lazy.clear()
    for layer in progress("reading the weights", [*groups], len(groups)):
        arrays = groups.pop(layer)
        mx.eval([array for _, array in arrays])
        model.load_weights(arrays, strict=False)
    model.eval()
    model.freeze()
    mx.clear_cache()


def _lazy(file: Path) -> dict[str, mx.array]:
    """Return the tensors of a shard; MLX reads them when they are evaluated."""
    try:
        return cast("dict[str, mx.array]", mx.load(str(file)))
    except RuntimeError as error:
        raise WeightsError(f"{file} cannot be read by MLX ({error}): download it again") from error


def _file_dtypes(dtype: mx.Dtype) -> tuple[str, ...]:
    """Return the dtypes, as safetensors spells them, that a file may have for a parameter of `dtype`."""
    if mx.issubdtype(dtype, mx.floating):
        return FLOATS
    return (str(dtype).rpartition(".")[2].upper().replace("UINT", "U"),)


def _shape(shape: Iterable[int]) -> str:
    return "[" + ", ".join(map(str, shape)) + "]"
