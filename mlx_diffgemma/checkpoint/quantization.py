"""Which formats weights can be packed in, and which module of a checkpoint has which.

config.json holds a default and overrides by module path:

    "quantization": {"group_size": 64, "bits": 4, "mode": "affine",
                     "model.decoder.embed_tokens": {"group_size": 64, "bits": 8}, ...}

An override without a mode is affine, also inside an mxfp4, mxfp8 or nvfp4 checkpoint. Whether a module is packed at
all is decided by the files, not here: it is where `<path>.scales` exists.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlx_diffgemma.errors import QuantizationError

AFFINE_BITS = (2, 3, 4, 5, 6, 8)
AFFINE_GROUPS = (32, 64, 128)
FIXED_FORMATS = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}
"""Mode -> (bits, group size): these floating-point formats have one of each."""


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """One packing of a weight: `bits` per value, one scale per `group_size` values of a row, and the `mode`."""

    bits: int
    group_size: int
    mode: str = "affine"

    def __post_init__(self) -> None:
        if self.mode == "affine":
            if self.bits not in AFFINE_BITS:
                raise QuantizationError(f"bits={self.bits} is not possible in mode affine: choose from {AFFINE_BITS}")
            if self.group_size not in AFFINE_GROUPS:
                raise QuantizationError(
                    f"group_size={self.group_size} is not possible in mode affine: choose from {AFFINE_GROUPS}"
                )
            return
        if self.mode not in FIXED_FORMATS:
            known = ", ".join(["affine", *FIXED_FORMATS])
            raise QuantizationError(f"unsupported quantization mode {self.mode!r}: this runtime knows {known}")
        bits, group_size = FIXED_FORMATS[self.mode]
        if (self.bits, self.group_size) != (bits, group_size):
            raise QuantizationError(
                f"mode {self.mode} is {bits} bits in groups of {group_size}, not {self.bits} bits in {self.group_size}"
            )

    @property
    def has_biases(self) -> bool:
        """Affine groups carry a scale and a bias, the floating-point formats a scale alone."""
        return self.mode == "affine"

    def to_dict(self) -> dict[str, Any]:
        """The form written to config.json; "mode" is left out where readers take its absence for affine."""
        entry: dict[str, Any] = {"group_size": self.group_size, "bits": self.bits}
        return entry if self.mode == "affine" else {**entry, "mode": self.mode}


def parse_quantization(where: str, raw: Mapping[str, Any]) -> Quantization:
    """Read one entry; `where` names it in the error. Raises QuantizationError."""
    try:
        bits, group_size, mode = raw["bits"], raw["group_size"], raw.get("mode", "affine")
    except KeyError as missing:
        raise QuantizationError(f"{where}: no {missing} in {dict(raw)}") from None
    if not isinstance(bits, int) or not isinstance(group_size, int) or not isinstance(mode, str):
        raise QuantizationError(f"{where}: bits and group_size must be whole numbers and mode a name, not {dict(raw)}")
    try:
        return Quantization(bits=bits, group_size=group_size, mode=mode)
    except QuantizationError as error:
        raise QuantizationError(f"{where}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class QuantizationTable:
    """The default packing of a checkpoint and the module paths that differ from it."""

    default: Quantization
    overrides: Mapping[str, Quantization] = field(default_factory=dict[str, Quantization])

    def at(self, path: str) -> Quantization:
        """The packing of the module at `path`, given that it is packed."""
        return self.overrides.get(path, self.default)

    def to_dict(self) -> dict[str, Any]:
        """The "quantization" object of config.json, as mlx-lm and mlx-vlm read it."""
        default = {**self.default.to_dict(), "mode": self.default.mode}
        return {**default, **{path: entry.to_dict() for path, entry in self.overrides.items()}}


def parse_table(config: Mapping[str, Any]) -> QuantizationTable | None:
    """The table in a parsed config.json, or None for a checkpoint that is not quantized.

    Raises QuantizationError for what no kernel here reads: other methods (fp8, GPTQ, compressed-tensors ...), unknown
    modes, impossible bits.
    """
    raw = config.get("quantization")
    if raw is None:
        foreign = config.get("quantization_config")
        if isinstance(foreign, Mapping):
            method = foreign.get("quant_method", foreign)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
            raise QuantizationError(
                f"unsupported quantization {method!r}: convert the bf16 checkpoint with mlx_diffgemma.convert instead"
            )
        return None
    if not isinstance(raw, Mapping):
        raise QuantizationError(f"config.json: quantization must be an object, not {raw!r}")
    entries: Mapping[str, Any] = raw
    overrides = {
        path: parse_quantization(f"config.json: quantization of {path}", entry)
        for path, entry in entries.items()
        if isinstance(entry, Mapping)
    }
    return QuantizationTable(default=parse_quantization("config.json: quantization", entries), overrides=overrides)
