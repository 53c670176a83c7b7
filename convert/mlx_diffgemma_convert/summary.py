"""What a conversion did, by tensor class: values, bytes, packing, and the largest relative error of a tensor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mlx_diffgemma.checkpoint.quantization import Quantization
from mlx_diffgemma_convert.plan import ConversionPlan, Parameter
from mlx_diffgemma_convert.recipe import MODULES, OTHER, VISION_TOWER

NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
ORDER = (*MODULES, OTHER, VISION_TOWER)


@dataclass(frozen=True, kw_only=True)
class Line:
    """One class; `error` is the norm of the difference over the norm of the source, of the class's worst tensor."""

    kind: str
    packing: str
    tensors: int
    values: int
    nbytes: int
    error: float | None

    @property
    def bits_per_weight(self) -> float:
        """Bits on disk per value, scales and biases included."""
        return 8 * self.nbytes / self.values


def summarize(plan: ConversionPlan, errors: Mapping[str, float]) -> list[Line]:
    """A line per class that the checkpoint has, then a total; `errors` by parameter name."""
    lines = [_line(kind, [p for p in plan.parameters if p.kind == kind], errors) for kind in ORDER]
    lines = [line for line in lines if line.tensors]
    total = Line(
        kind="total",
        packing="",
        tensors=sum(line.tensors for line in lines),
        values=sum(line.values for line in lines),
        nbytes=sum(line.nbytes for line in lines),
        error=None,
    )
    return [*lines, total]


def describe(quantization: Quantization | None, dtype: str) -> str:
    """A packing in words."""
    if quantization is None:
        return NAMES[dtype]
    name = f"{quantization.bits} bits" if quantization.mode == "affine" else quantization.mode
    return f"{name}, group {quantization.group_size}"


def size(nbytes: int) -> str:
    """Bytes in words, in powers of 1000 as disks and the Hub count."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.2f} {unit}"
    return f"{nbytes} B"


def _line(kind: str, parameters: list[Parameter], errors: Mapping[str, float]) -> Line:
    packings = {describe(p.quantization, p.dtype): None for p in parameters}
    return Line(
        kind=kind,
        packing=" / ".join(packings),
        tensors=len(parameters),
        values=sum(p.size for p in parameters),
        nbytes=sum(entry.nbytes for p in parameters for entry in p.entries),
        error=max((errors[p.name] for p in parameters), default=None),
    )
