"""Plan and check a whole conversion from the headers and the configuration of the source; no weights are read.

CheckpointTensors + ModelConfig + Recipe -> ConversionPlan: the parameters of each shard, and the tensors they become
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mlx_diffgemma.checkpoint.names import CheckpointTensors, TensorSource
from mlx_diffgemma.checkpoint.quantization import Quantization, QuantizationTable
from mlx_diffgemma.checkpoint.safetensors import FLOATS
from mlx_diffgemma.errors import ConvertError, QuantizationError, WeightsError
from mlx_diffgemma.model.config import ModelConfig
from mlx_diffgemma_convert.parameters import text_shapes
from mlx_diffgemma_convert.recipe import VISION_TOWER, Recipe, tensor_class
from mlx_diffgemma_convert.shards import Entry, Shard, group_into_shards, lay_out
from mlx_diffgemma_convert.values import Values


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter: the source of its rows, and the entries that it becomes (a weight; or weight, scales, biases).

    Its values are rounded to `dtype` before they are quantized or written.
    """

    name: str
    tensor_class: str
    source: Values
    dtype: str
    quantization: Quantization | None
    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.source.shape)

    @property
    def row_length(self) -> int:
        """Values per row: the last axis, along which quantization groups run. A vector is one row."""
        return self.source.shape[-1]

    @property
    def rows(self) -> int:
        """The number of rows over all leading axes."""
        return self.size // self.row_length

    @property
    def source_bytes(self) -> int:
        """Bytes to read."""
        return sum(part.nbytes for part in self.source.parts)


@dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """The shards of the output with the parameters of each, and the quantization table for config.json."""

    shards: tuple[tuple[Shard, tuple[Parameter, ...]], ...]
    table: QuantizationTable | None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters, in the order in which they are written."""
        return tuple(parameter for _, parameters in self.shards for parameter in parameters)

    @property
    def nbytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard, _ in self.shards)


def make_plan(
    contents: CheckpointTensors, config: ModelConfig, recipe: Recipe, dtype: str, max_bytes: int
) -> ConversionPlan:
    """Check a source against its configuration and lay out the result in shards of at most `max_bytes`.

    `dtype` is the dtype of affine scales and of text values that are not quantized. Raises WeightsError for a tensor
    that is missing, unknown or has the wrong shape, ConvertError for a quantized source or an unreadable dtype,
    QuantizationError for rows that the groups do not divide.
    """
    expected = text_shapes(config)
    _check_names(contents.text, expected)
    parameters = [make_parameter(name, contents.text[name], recipe.at(name), dtype) for name in expected] + [
        make_parameter(name, TensorSource(parts=(info,), shape=info.shape), None, "BF16")
        for name, info in sorted(contents.vision.items())
    ]
    return assemble(parameters, _table(parameters, recipe), max_bytes)


def assemble(parameters: Sequence[Parameter], table: QuantizationTable | None, max_bytes: int) -> ConversionPlan:
    """Distribute parameters over shards of at most `max_bytes`."""
    groups = group_into_shards((parameter.entries for parameter in parameters), max_bytes)
    remaining = iter(parameters)
    shards = [
        (shard, tuple(next(remaining) for _ in taken)) for shard, taken in zip(lay_out(groups), groups, strict=True)
    ]
    return ConversionPlan(shards=tuple(shards), table=table)


def _check_names(text: Mapping[str, TensorSource], expected: Mapping[str, tuple[int, ...]]) -> None:
    if scales := [name for name in text if name.endswith(".scales")]:
        raise ConvertError(f"the source is already quantized (it has {scales[0]}): convert the bf16 checkpoint")
    for name, shape in expected.items():
        if name not in text:
            raise WeightsError(
                f"the source has no {name}: check that it is complete and that its config.json belongs to it"
            )
        if text[name].shape != shape:
            raise WeightsError(f"{name} is {list(text[name].shape)}, but config.json implies {list(shape)}")
    if unknown := sorted(set(text) - set(expected)):
        others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise WeightsError(
            f"the source holds the unknown tensor {unknown[0]}{others}: check that it is a DiffusionGemma"
        )


def make_parameter(name: str, source: Values, quantization: Quantization | None, dtype: str) -> Parameter:
    """Plan one parameter. Raises ConvertError for its dtype, WeightsError if it is empty, QuantizationError."""
    if source.dtype not in FLOATS:
        raise ConvertError(f"{name} is {source.dtype}: convert a checkpoint in {', '.join(FLOATS)}")
    if not source.shape or 0 in source.shape:
        raise WeightsError(f"{name} has the shape {list(source.shape)}: a parameter must hold at least one value")
    if quantization is None:
        entries: tuple[Entry, ...] = (Entry(name=name, dtype=dtype, shape=source.shape),)
    else:
        entries = _quantized_entries(name, source.shape, quantization, dtype)
    return Parameter(
        name=name,
        tensor_class=tensor_class(name),
        source=source,
        dtype=dtype,
        quantization=quantization,
        entries=entries,
    )


def _quantized_entries(name: str, shape: tuple[int, ...], quantization: Quantization, dtype: str) -> tuple[Entry, ...]:
    *leading, row = shape
    if row % quantization.group_size:
        raise QuantizationError(
            f"{name} has rows of {row} values, which groups of {quantization.group_size} do not divide: "
            "choose another --group-size or --mode, or leave its class in bf16 with --set"
        )
    path = name.removesuffix(".weight")
    groups = (*leading, row // quantization.group_size)
    entries = [
        Entry(name=name, dtype="U32", shape=(*leading, row * quantization.bits // 32)),
        Entry(name=f"{path}.scales", dtype=dtype if quantization.has_biases else "U8", shape=groups),
    ]
    if quantization.has_biases:
        entries.append(Entry(name=f"{path}.biases", dtype=dtype, shape=groups))
    return tuple(entries)


def _table(parameters: list[Parameter], recipe: Recipe) -> QuantizationTable | None:
    formats = {p.name.removesuffix(".weight"): p.quantization for p in parameters if p.quantization is not None}
    if recipe.default is None or not formats:
        return None
    overrides = {path: format for path, format in formats.items() if format != recipe.default}
    return QuantizationTable(default=recipe.default, overrides=overrides)


def has_vision(plan: ConversionPlan) -> bool:
    """Return whether the source has a vision tower."""
    return any(parameter.tensor_class == VISION_TOWER for parameter in plan.parameters)
