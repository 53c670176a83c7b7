"""The formats in which weights can be packed, and the format of each module of a checkpoint.

config.json holds a default and overrides by module path:

    "quantization": {"group_size": 64, "bits": 4, "mode": "affine",
                     "model.decoder.embed_tokens": {"group_size": 64, "bits": 8}, ...}

An override without a mode is affine, in an mxfp4, mxfp8 or nvfp4 checkpoint too. Some tools write the object under
"quantization_config" alone. Whether a module is packed at all is decided by the files and not by config.json: it is
packed if they hold `<path>.scales`. Merging tools leave an entry behind whose files are plain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from mlx_diffgemma.errors import QuantizationError

ENTRIES = ("quantization", "quantization_config")
"""The keys of config.json that describe a quantization: MLX's tools write both, other tools the second."""
FOREIGN = {
    ".qweight": "GPTQ or AWQ",
    ".qzeros": "GPTQ or AWQ",
    ".absmax": "bitsandbytes",
    ".SCB": "bitsandbytes",
    ".weight_shape": "compressed-tensors in whole numbers",
    "_blocks": "another tool's MXFP4",
}
"""Endings of tensors that only files of other tools have -> what packed them."""
AFFINE_BITS = (2, 3, 4, 5, 6, 8)
AFFINE_GROUPS = (32, 64, 128)
FIXED_FORMATS = {"mxfp4": (4, 32), "mxfp8": (8, 32), "nvfp4": (4, 16)}
"""mode -> (bits, group size): each of these floating-point formats has one bit width and one group size."""


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """The format of a packed weight: `bits` per value, one scale per `group_size` values of a row."""

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
        """Whether a group has a bias beside its scale: only affine groups have."""
        return self.mode == "affine"

    def to_dict(self) -> dict[str, Any]:
        """Return the entry of config.json; an affine one has no "mode", because readers assume affine."""
        entry: dict[str, Any] = {"group_size": self.group_size, "bits": self.bits}
        return entry if self.mode == "affine" else {**entry, "mode": self.mode}


def parse_quantization(where: str, raw: Mapping[str, Any]) -> Quantization:
    """Parse one entry of config.json; `where` names it in the message of a QuantizationError."""
    try:
        bits, group_size, mode = raw["bits"], raw["group_size"], raw.get("mode", "affine")
    except KeyError as missing:
        raise QuantizationError(f"{where}: no {missing} in {dict(raw)}: it needs bits and group_size") from None
    if not isinstance(bits, int) or not isinstance(group_size, int) or not isinstance(mode, str):
        raise QuantizationError(f"{where}: bits and group_size must be whole numbers and mode a name, not {dict(raw)}")
    try:
        return Quantization(bits=bits, group_size=group_size, mode=mode)
    except QuantizationError as error:
        raise QuantizationError(f"{where}: {error}") from None


@dataclass(frozen=True, kw_only=True)
class QuantizationTable:
    """The default format of a checkpoint, and the formats of modules that differ from it, by module path."""

    default: Quantization
    overrides: Mapping[str, Quantization] = field(default_factory=dict[str, Quantization])

    def at(self, path: str) -> Quantization:
        """Return the format of the packed module at `path`."""
        return self.overrides.get(path, self.default)

    def to_dict(self) -> dict[str, Any]:
        """Return the "quantization" object of config.json, as mlx-lm and mlx-vlm read it."""
        default = {**self.default.to_dict(), "mode": self.default.mode}
        return {**default, **{path: entry.to_dict() for path, entry in self.overrides.items()}}


def parse_table(config: Mapping[str, Any]) -> QuantizationTable | None:
    """Return the table in a parsed config.json; None for one without an entry that has MLX's keys.

    Raises QuantizationError for unknown modes and impossible bit widths.
    """
    for key in ENTRIES:
        raw: object = config.get(key)
        if raw is None:
            continue
        if not isinstance(raw, Mapping):
            raise QuantizationError(f"config.json: {key} must be an object, not {raw!r}")
        entries = cast("Mapping[str, Any]", raw)
        if "quant_method" not in entries:
            return _table(f"config.json: {key}", entries)
    return None


def refuse_foreign(names: Iterable[str]) -> None:
    """Raise QuantizationError for the names of tensors that other tools packed in ways that MLX cannot run."""
    for name in names:
        for ending, tool in FOREIGN.items():
            if name.endswith(ending):
                raise QuantizationError(
                    f"the weights are packed by {tool} ({name}), which MLX cannot run: "
                    "convert the 16-bit checkpoint that they were made from"
                )


def _table(where: str, entries: Mapping[str, Any]) -> QuantizationTable:
    overrides = {
        path: parse_quantization(f"{where} of {path}", entry)
        for path, entry in entries.items()
        if isinstance(entry, Mapping)
    }
    return QuantizationTable(default=parse_quantization(where, entries), overrides=overrides)
