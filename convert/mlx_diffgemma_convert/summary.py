"""Summarize a conversion by tensor class: values, bytes, quantization, and the largest relative error of a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlx_diffgemma.checkpoint.quantization import Quantization
from mlx_diffgemma_convert.plan import ConversionPlan, Parameter
from mlx_diffgemma_convert.recipe import DTYPE_NAMES, MODULES, OTHER, VISION_TOWER

CLASSES = (*MODULES, OTHER, VISION_TOWER)
"""All tensor classes, in the order of the table."""
TOTAL = "total"


@dataclass(frozen=True, kw_only=True)
class ClassSummary:
    """One tensor class, or TOTAL. `error`: norm of the difference over norm of the source, of the worst tensor."""

    tensor_class: str
    packing: str
    tensors: int
    values: int
    nbytes: int
    error: float | None

    @property
    def bits_per_weight(self) -> float:
        """Bits on disk per value, scales and biases included."""
        return 8 * self.nbytes / self.values


def summarize(plan: ConversionPlan, errors: Mapping[str, float]) -> list[ClassSummary]:
    """Return a summary of every class in the checkpoint, then the total. errors: parameter name -> relative error."""
    classes = [_summary(each, [p for p in plan.parameters if p.tensor_class == each], errors) for each in CLASSES]
    classes = [summary for summary in classes if summary.tensors]
    total = ClassSummary(
        tensor_class=TOTAL,
        packing="",
        tensors=sum(summary.tensors for summary in classes),
        values=sum(summary.values for summary in classes),
        nbytes=sum(summary.nbytes for summary in classes),
        error=None,
    )
    return [*classes, total]


def describe(quantization: Quantization | None, dtype: str) -> str:
    """Describe how a tensor is stored: "4 bits, group 64", "nvfp4, group 16", "bfloat16"."""
    if quantization is None:
        return DTYPE_NAMES[dtype]
    name = f"{quantization.bits} bits" if quantization.mode == "affine" else quantization.mode
    return f"{name}, group {quantization.group_size}"


def readable_size(nbytes: int) -> str:
    """Format a number of bytes in powers of 1000, as disks and the Hub count: "1.61 GB"."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.2f} {unit}"
    return f"{nbytes} B"


def _summary(name: str, parameters: list[Parameter], errors: Mapping[str, float]) -> ClassSummary:
    packings = {describe(p.quantization, p.dtype): None for p in parameters}
    return ClassSummary(
        tensor_class=name,
        packing=" / ".join(packings),
        tensors=len(parameters),
        values=sum(p.size for p in parameters),
        nbytes=sum(entry.nbytes for p in parameters for entry in p.entries),
        error=max((errors[p.name] for p in parameters), default=None),
    )
