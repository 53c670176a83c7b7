"""Weights in FP8 and NVFP4 as compressed-tensors, ModelOpt and transformers write them: values beside their scales.

FP8     weight F8_E4M3, weight_scale or weight_scale_inv: one factor per tensor, expert, row or block of 128 x 128
NVFP4   weight U8, two values per byte; weight_scale F8_E4M3, one per 16 values; and a factor of the whole tensor:
        weight_scale_2 (ModelOpt), or weight_packed with weight_global_scale, by which one divides (compressed-tensors)

Which it is, is decided by names and dtypes in the files. The runtime has no layers for these formats: the converter
computes their values.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlx_diffgemma.checkpoint.safetensors import FLOATS, TensorInfo
from mlx_diffgemma.errors import WeightsError

NVFP4_GROUP = 16
"""Values that share one scale."""
BLOCK = 128
"""Rows, and columns, of a block with one scale."""
_SCALES = ("_scale", "_scale_inv")
_UNUSED = (".input_scale", ".input_global_scale", ".k_scale", ".v_scale", ".q_scale", ".output_scale")
"""Endings of the scales of activations and caches, which are no part of the weights."""


@dataclass(frozen=True, kw_only=True)
class ScaledTensor(TensorInfo):
    """A tensor whose values are computed: `shape` is theirs, and `dtype` F32.

    stored: the values as they are in the file. scales: their factors, one per `block` rows and columns. factor: of the
    whole tensor; `divides` says that its reciprocal is meant.
    """

    stored: TensorInfo
    scales: TensorInfo
    block: tuple[int, int]
    factor: TensorInfo | None = None
    divides: bool = False

    @property
    def nbytes(self) -> int:
        """The number of bytes in the file."""
        return self.stored.nbytes + self.scales.nbytes


def join_scales(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Join weights with their scales, under the name of the weight. Raises WeightsError for scales that do not fit."""
    joined = {name: info for name, info in tensors.items() if not name.endswith(_UNUSED)}
    for name in tensors:
        plain = name.removesuffix("_packed")
        found = [joined[plain + ending] for ending in _SCALES if plain + ending in joined]
        if not found or not plain.endswith((".weight", "_proj")):
            continue
        stored = joined.pop(name)
        for ending in (*_SCALES, "_scale_2", "_global_scale"):
            joined.pop(plain + ending, None)
        divided, multiplied = tensors.get(f"{plain}_global_scale"), tensors.get(f"{plain}_scale_2")
        joined[plain] = _scaled(stored, found[0], multiplied or divided, divides=multiplied is None)
    return joined


def _scaled(stored: TensorInfo, scales: TensorInfo, factor: TensorInfo | None, *, divides: bool) -> ScaledTensor:
    shape, block = stored.shape, None
    if len(shape) > 1 and stored.dtype == "U8" and scales.dtype == "F8_E4M3":
        shape = (*shape[:-1], 2 * shape[-1])
        if _is_number(factor) and shape[-1] % NVFP4_GROUP == 0:
            block = (1, NVFP4_GROUP) if scales.shape == (*shape[:-1], shape[-1] // NVFP4_GROUP) else None
    elif len(shape) > 1 and stored.dtype == "F8_E4M3" and scales.dtype in FLOATS and factor is None:
        block = _block(shape, scales)
    if block is None:
        raise WeightsError(
            f"{stored.name} is {stored.dtype} {list(stored.shape)} with scales in {scales.dtype} {list(scales.shape)}: "
            "neither FP8 nor NVFP4, convert the 16-bit checkpoint"
        )
    return ScaledTensor(
        name=stored.name,
        file=stored.file,
        dtype="F32",
        shape=shape,
        offset=stored.offset,
        stored=stored,
        scales=scales,
        block=block,
        factor=factor,
        divides=divides,
    )


def _is_number(factor: TensorInfo | None) -> bool:
    return factor is not None and factor.size == 1 and factor.dtype in FLOATS


def _block(shape: tuple[int, ...], scales: TensorInfo) -> tuple[int, int] | None:
    """Return how many rows and columns share a scale; None for a shape that none of the formats has."""
    *leading, rows, columns = shape
    if scales.shape in ((*leading,), (*leading, 1), (*leading, 1, 1)):
        return rows, columns
    if scales.shape in ((*leading, rows), (*leading, rows, 1)):
        return 1, columns
    if scales.shape == (*leading, -(-rows // BLOCK), -(-columns // BLOCK)):
        return BLOCK, BLOCK
    return None
