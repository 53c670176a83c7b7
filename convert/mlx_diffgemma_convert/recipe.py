"""Which tensor is packed how: parameter name -> tensor class -> Quantization, or None for a tensor left as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from mlx_diffgemma.checkpoint.names import VISION
from mlx_diffgemma.checkpoint.quantization import FIXED_FORMATS, Quantization
from mlx_diffgemma.errors import OptionError

Kind: TypeAlias = Literal["mixed", "uniform"]

MODULES = {
    "embed": r"embed_tokens",
    "attention": r"layers\.\d+\.self_attn\.[qkvo]_proj",
    "mlp": r"layers\.\d+\.mlp\.(?:gate|up|down)_proj",
    "router": r"layers\.\d+\.router\.proj",
    "experts": r"layers\.\d+\.experts\.(?:gate_up|down)_proj",
    "conditioning": r"self_conditioning\.(?:gate|up|down)_proj",
}
"""The classes of tensors that can be packed, and the modules that make up each."""

OTHER = "other"
"""Norms, scales and scalars: never packed."""
VISION_TOWER = "vision"
"""The vision tower and its projection: never packed, always bf16."""

KEPT_PRECISE = ("embed", "attention", "mlp", "router")
"""What the mixed recipe keeps at 8 bits: every token passes through these, a packed error there meets all of them."""
PRECISE = Quantization(bits=8, group_size=64)
SETTABLE_BITS = (4, 5, 6, 8)

_WEIGHT = re.compile(
    r"model\.decoder\.(?:" + "|".join(f"(?P<{name}>{path})" for name, path in MODULES.items()) + r")\.weight"
)


def tensor_class(name: str) -> str:
    """The class of a parameter: a key of MODULES, OTHER or VISION_TOWER."""
    if name.startswith(VISION):
        return VISION_TOWER
    match = _WEIGHT.fullmatch(name)
    return match.lastgroup or OTHER if match else OTHER


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The packing of every class; a class that is absent or None is not packed. The default recipe packs nothing.

    `default` is what config.json names for the checkpoint as a whole; classes that differ are listed there by module.
    """

    default: Quantization | None = None
    classes: Mapping[str, Quantization | None] = field(default_factory=dict[str, "Quantization | None"])

    def at(self, name: str) -> Quantization | None:
        """The packing of the parameter `name`, or None where it stays as it is."""
        return self.classes.get(tensor_class(name))


def choose(mode: str, bits: int | None, group_size: int | None) -> Quantization:
    """Complete what the user left open: 4 bits in groups of 64, or a format's own. Raises QuantizationError."""
    own_bits, own_group = FIXED_FORMATS.get(mode, (4, 64))
    return Quantization(
        bits=own_bits if bits is None else bits,
        group_size=own_group if group_size is None else group_size,
        mode=mode,
    )


def make_recipe(kind: Kind, chosen: Quantization, settings: Mapping[str, int | None]) -> Recipe:
    """mixed: KEPT_PRECISE at 8 bits, the rest as `chosen`; uniform: all as `chosen`; then `settings` by class.

    A setting in bits is affine, in the chosen groups where those are affine too; None leaves the class unpacked.
    """
    classes: dict[str, Quantization | None] = dict.fromkeys(MODULES, chosen)
    if kind == "mixed":
        classes.update(dict.fromkeys(KEPT_PRECISE, PRECISE))
    group_size = chosen.group_size if chosen.mode == "affine" else PRECISE.group_size
    for name, bits in settings.items():
        classes[name] = None if bits is None else Quantization(bits=bits, group_size=group_size)
    return Recipe(default=chosen, classes=classes)


def parse_setting(text: str) -> tuple[str, int | None]:
    """Read one CLASS=BITS or CLASS=bf16; bf16 is None. Raises OptionError naming what is possible."""
    name, _, value = text.partition("=")
    if name not in MODULES:
        raise OptionError(f"{text!r}: no tensor class {name!r}, choose from {', '.join(MODULES)}")
    if value == "bf16":
        return name, None
    if value not in map(str, SETTABLE_BITS):
        raise OptionError(f"{text!r}: set {name} to bf16 or to one of {', '.join(map(str, SETTABLE_BITS))} bits")
    return name, int(value)
