"""What a conversion will do, in full, from the source's headers and configuration alone; everything is checked here.

Contents + ModelConfig + Recipe -> Plan: per shard the parameters it takes, and what each of them becomes
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
from mlx_diffgemma_convert.shards import Entry, Shard, group, lay_out
from mlx_diffgemma_convert.values import Values


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One parameter: where its rows come from, and the entries (weight, or weight, scales, biases) it becomes.

    `dtype` is what its values are rounded to before they are packed, or written.
    """

    name: str
    kind: str
    source: Values
    dtype: str
    quantization: Quantization | None
    entries: tuple[Entry, ...]

    @property
    def size(self) -> int:
        """Number of values."""
        return math.prod(self.source.shape)

    @property
    def row_length(self) -> int:
        """Values per row: the last axis, along which packing groups run; a vector is one row."""
        return self.source.shape[-1]

    @property
    def rows(self) -> int:
        """Rows over all leading axes."""
        return self.size // self.row_length

    @property
    def source_bytes(self) -> int:
        """Bytes to read."""
        return sum(part.nbytes for part in self.source.parts)


@dataclass(frozen=True, kw_only=True)
class ConversionPlan:
    """All shards of the output with the parameters of each, and the table that config.json will carry."""

    shards: tuple[tuple[Shard, tuple[Parameter, ...]], ...]
    table: QuantizationTable | None

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters in the order in which they are written."""
        return tuple(parameter for _, parameters in self.shards for parameter in parameters)

    @property
    def nbytes(self) -> int:
        """Bytes of all shards."""
        return sum(shard.size for shard, _ in self.shards)


def make_plan(
    contents: CheckpointTensors, config: ModelConfig, recipe: Recipe, dtype: str, max_bytes: int
) -> ConversionPlan:
    """Check a source against its configuration and lay out the result.

    `dtype` is that of unpacked text values and affine scales; `max_bytes` bounds a shard. Raises WeightsError for a
    tensor that is missing, unknown or mis-shaped, ConvertError for one that is already packed, QuantizationError for
    rows that the groups do not divide.
    """
    expected = text_shapes(config)
    _check_names(contents.text, expected)
    parameters = [make_parameter(name, contents.text[name], recipe.at(name), dtype) for name in expected] + [
        make_parameter(name, TensorSource(parts=(info,), shape=info.shape), None, "BF16")
        for name, info in sorted(contents.vision.items())
    ]
    return assemble(parameters, _table(parameters, recipe), max_bytes)


def assemble(parameters: Sequence[Parameter], table: QuantizationTable | None, max_bytes: int) -> ConversionPlan:
    """Distribute parameters over shards of `max_bytes` at most."""
    groups = group((parameter.entries for parameter in parameters), max_bytes)
    remaining = iter(parameters)
    shards = [
        (shard, tuple(next(remaining) for _ in taken)) for shard, taken in zip(lay_out(groups), groups, strict=True)
    ]
    return ConversionPlan(shards=tuple(shards), table=table)


def _check_names(text: Mapping[str, TensorSource], expected: Mapping[str, tuple[int, ...]]) -> None:
    if packed := [name for name in text if name.endswith(".scales")]:
        raise ConvertError(f"the source is already quantized (it has {packed[0]}): convert the bf16 checkpoint")
    for name, shape in expected.items():
        if name not in text:
            raise WeightsError(f"the source has no {name}: is it complete, and does its config.json belong to it?")
        if text[name].shape != shape:
            raise WeightsError(f"{name} is {list(text[name].shape)}, but config.json makes it {list(shape)}")
    if unknown := sorted(set(text) - set(expected)):
        others = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
        raise WeightsError(f"the source holds the unknown tensor {unknown[0]}{others}: is it a DiffusionGemma?")


def make_parameter(name: str, source: Values, quantization: Quantization | None, dtype: str) -> Parameter:
    """One parameter and what it becomes. Raises ConvertError for a dtype that is not read, QuantizationError."""
    if source.dtype not in FLOATS:
        raise ConvertError(f"{name} is {source.dtype}: convert a checkpoint in {', '.join(FLOATS)}")
    if not source.shape or 0 in source.shape:
        raise WeightsError(f"{name} has the shape {list(source.shape)}: no values")
    if quantization is None:
        entries: tuple[Entry, ...] = (Entry(name=name, dtype=dtype, shape=source.shape),)
    else:
        entries = _packed(name, source.shape, quantization, dtype)
    return Parameter(
        name=name, kind=tensor_class(name), source=source, dtype=dtype, quantization=quantization, entries=entries
    )


def _packed(name: str, shape: tuple[int, ...], quantization: Quantization, dtype: str) -> tuple[Entry, ...]:
    *leading, row = shape
    if row % quantization.group_size:
        raise QuantizationError(
            f"{name} has rows of {row}, which groups of {quantization.group_size} do not divide: "
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
    packed = {p.name.removesuffix(".weight"): p.quantization for p in parameters if p.quantization is not None}
    if recipe.default is None or not packed:
        return None
    overrides = {path: packing for path, packing in packed.items() if packing != recipe.default}
    return QuantizationTable(default=recipe.default, overrides=overrides)


def has_vision(plan: ConversionPlan) -> bool:
    """Whether the source came with a vision tower."""
    return any(parameter.kind == VISION_TOWER for parameter in plan.parameters)
