"""Read an adapter's files, in the layout of mlx-lm or of PEFT, and find the parameters that they change.

fine_tune_type lora   <module>.lora_a and <module>.lora_b, lora_parameters.scale   -> a change added to <module>.weight
fine_tune_type full   parameters under this model's names                         -> values that replace them
peft_type LORA        see mlx_diffgemma.checkpoint.peft                            -> a change added to <module>.weight
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlx_diffgemma.checkpoint.adapters import WEIGHTS, low_rank_scale, read_adapter_config
from mlx_diffgemma.checkpoint.folder import ADAPTER_CONFIG
from mlx_diffgemma.checkpoint.names import DECODER, TensorSource
from mlx_diffgemma.checkpoint.peft import PeftAdapter, is_peft, read_peft
from mlx_diffgemma.checkpoint.safetensors import FLOATS, read_header
from mlx_diffgemma.errors import AdapterError
from mlx_diffgemma_convert.chunks import CHUNK_BYTES, is_finite
from mlx_diffgemma_convert.recipe import MODULES, tensor_class
from mlx_diffgemma_convert.values import AdaptedValues, QuantizedValues, Values, read_rows

LOW_RANK = ("lora_a", "lora_b")
"""The last part of the names of an adapter's two factors."""
LINEAR_CLASSES = MODULES.keys() - {"embed"}
"""The classes of tensors that are linear maps. The embedding is a table and cannot have a low-rank change."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """The contents of an adapter's folder; `scale` multiplies a low-rank change and is None for a full training."""

    folder: Path
    tensors: Mapping[str, TensorSource]
    scale: float | None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that were read."""
        return (self.folder / WEIGHTS, self.folder / ADAPTER_CONFIG)


def read_adapter(folder: Path) -> Adapter | PeftAdapter:
    """Read an adapter's configuration and headers, and check all of its values. Raises AdapterError, WeightsError."""
    config = read_adapter_config(folder)
    if is_peft(config):
        peft = read_peft(folder, config)
        for change in peft.decoder.values():
            for info in (change.a, change.b):
                _check_values(folder, info.name, TensorSource(parts=(info,), shape=info.shape))
        return peft
    infos = sorted(read_header(folder / WEIGHTS), key=lambda info: info.name)
    if not infos:
        raise AdapterError(f"the adapter in {folder} holds no tensors: train it for at least one step")
    adapter = Adapter(
        folder=folder,
        tensors={info.name: TensorSource(parts=(info,), shape=info.shape) for info in infos},
        scale=_read_scale(folder, config),
    )
    for name, source in adapter.tensors.items():
        _check_values(folder, name, source)
    return adapter


def changed_parameters(
    adapter: Adapter | PeftAdapter, base: Mapping[str, TensorSource | QuantizedValues]
) -> dict[str, Values]:
    """Return the parameters of `base` that the adapter changes, with their new values.

    Raises AdapterError that names the first tensor that does not fit the base.
    """
    if isinstance(adapter, PeftAdapter):
        return dict(_changed_by_peft(adapter, base))
    if adapter.scale is None:
        for name, source in adapter.tensors.items():
            if name not in base:
                raise _misfit(adapter, f"the model has no {name}")
            _check_shape(adapter, name, source.shape, base[name].shape)
        return dict(adapter.tensors)
    values: dict[str, Values] = {}
    for name in adapter.tensors:
        module, _, part = name.rpartition(".")
        weight = f"{module}.weight"
        if part not in LOW_RANK or weight not in base or tensor_class(weight) not in LINEAR_CLASSES:
            raise _misfit(adapter, f"{name} belongs to no linear map of the model")
        values[weight] = _adapt(adapter, module, base[weight], adapter.scale)
    return values


def _changed_by_peft(
    adapter: PeftAdapter, base: Mapping[str, TensorSource | QuantizedValues]
) -> Iterator[tuple[str, Values]]:
    """Pair weights with their factors, which have the layout of a stack of one expert."""
    if adapter.vision:
        raise AdapterError(f"the adapter in {adapter.folder} cannot be fused: it changes {adapter.vision[0]}")
    if not adapter.is_shared():
        raise AdapterError(
            f"the adapter in {adapter.folder} cannot be fused: it changes the layers of the encoder and of the decoder "
            "differently, and they have one set of weights: use it with --adapter"
        )
    for path, change in adapter.decoder.items():
        weight = f"{DECODER}{path}.weight"
        if weight not in base or tensor_class(weight) not in LINEAR_CLASSES or len(base[weight].shape) != 2:
            raise _misfit(adapter, f"{path} is no linear map")
        _check_shape(adapter, path, change.shape, base[weight].shape)
        a, b = (TensorSource(parts=(info,), shape=(1, *info.shape)) for info in (change.a, change.b))
        yield weight, AdaptedValues(base=base[weight], a=a, b=b, scale=change.scale)


def _adapt(adapter: Adapter, module: str, base: TensorSource | QuantizedValues, scale: float) -> AdaptedValues:
    """Pair a weight with its two factors, whose shapes are checked."""
    names = [f"{module}.{part}" for part in LOW_RANK]
    for name in names:
        if name not in adapter.tensors:
            raise _misfit(adapter, f"it has no {name}")
    a, b = (adapter.tensors[name] for name in names)
    *experts, outputs, inputs = base.shape
    rank = a.shape[1] if len(a.shape) > 1 else 1
    wanted_a = (*experts, rank, inputs) if experts else (inputs, rank)
    wanted_b = (*experts, outputs, rank) if experts else (rank, outputs)
    _check_shape(adapter, names[0], a.shape, wanted_a)
    _check_shape(adapter, names[1], b.shape, wanted_b)
    return AdaptedValues(base=base, a=a, b=b, scale=scale)


def _read_scale(folder: Path, config: Mapping[str, Any]) -> float | None:
    """Return the scale of a low-rank adapter, None for a full one. Raises AdapterError for any other type."""
    kind = config.get("fine_tune_type", "lora")
    if kind == "full":
        return None
    if kind != "lora":
        raise AdapterError(f"the adapter in {folder} is of the type {kind!r}: only lora and full can be fused")
    return low_rank_scale(folder, config)


def _check_values(folder: Path, name: str, source: TensorSource) -> None:
    if source.dtype not in FLOATS or not source.shape or 0 in source.shape:
        raise AdapterError(
            f"{name} of the adapter in {folder} is {source.dtype} {list(source.shape)}: "
            f"it must hold values in {', '.join(FLOATS)}"
        )
    rows = math.prod(source.shape[:-1])
    step = max(1, CHUNK_BYTES // (source.parts[0].nbytes // rows))
    for first in range(0, rows, step):
        if not is_finite(read_rows(source, first, min(step, rows - first)), source.dtype):
            raise AdapterError(
                f"{name} of the adapter in {folder} holds NaN or Inf: "
                "use an adapter that was saved earlier in the training"
            )


def _check_shape(adapter: Adapter | PeftAdapter, name: str, shape: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    if shape != wanted:
        raise _misfit(adapter, f"{name} is {list(shape)}, but the model needs {list(wanted)}")


def _misfit(adapter: Adapter | PeftAdapter, reason: str) -> AdapterError:
    return AdapterError(f"the adapter in {adapter.folder} was made for another model: {reason}")
