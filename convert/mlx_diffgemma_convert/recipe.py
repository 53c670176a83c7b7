"""Which tensor is quantized how: parameter name -> tensor class -> Quantization, or None for a tensor that is not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from mlx_diffgemma.checkpoint.names import VISION
from mlx_diffgemma.checkpoint.quantization import FIXED_FORMATS, Quantization
from mlx_diffgemma.errors import OptionError

RecipeName: TypeAlias = Literal["mixed", "uniform", "small"]

MODULES = {
    "embed": r"embed_tokens",
    "attention": r"layers\.\d+\.self_attn\.[qkvo]_proj",
    "mlp": r"layers\.\d+\.mlp\.(?:gate|up|down)_proj",
    "router": r"layers\.\d+\.router\.proj",
    "experts": r"layers\.\d+\.experts\.(?:gate_up|down)_proj",
    "conditioning": r"self_conditioning\.(?:gate|up|down)_proj",
}
"""The classes of tensors that can be quantized, and a pattern for the modules of each."""

OTHER = "other"
"""The class of norms, scales and scalars, which are never quantized."""
VISION_TOWER = "vision"
"""The class of the vision tower and its projection, which are never quantized and always bf16."""

KEPT_PRECISE = ("embed", "attention", "mlp", "router")
"""The classes that the recipe "mixed" quantizes to 8 bits: every token passes through them, so an error there affects
all tokens."""
PRECISE = Quantization(bits=8, group_size=64)
SMALL_EXPERT_BITS = 3
"""The bits of experts in the recipe "small"."""
SETTABLE_BITS = (3, 4, 5, 6, 8)

DTYPE_NAMES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
"""The names of dtypes in safetensors files -> in config.json and on the command line."""

_WEIGHT = re.compile(
    r"model\.decoder\.(?:" + "|".join(f"(?P<{name}>{path})" for name, path in MODULES.items()) + r")\.weight"
)


def tensor_class(name: str) -> str:
    """Return the class of a parameter: a key of MODULES, OTHER or VISION_TOWER."""
    if name.startswith(VISION):
        return VISION_TOWER
    match = _WEIGHT.fullmatch(name)
    return match.lastgroup or OTHER if match else OTHER


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The quantization of every class; a class that is absent or None is not quantized. Recipe() quantizes nothing.

    `default` is the quantization that config.json names for the whole checkpoint; modules that differ are listed there.
    """

    default: Quantization | None = None
    classes: Mapping[str, Quantization | None] = field(default_factory=dict[str, "Quantization | None"])

    def at(self, name: str) -> Quantization | None:
        """Return the quantization of the parameter `name`, None if it is not quantized."""
        return self.classes.get(tensor_class(name))


def make_quantization(mode: str, bits: int | None, group_size: int | None) -> Quantization:
    """Return a quantization. None means 4 bits in groups of 64, or the mode's own values. Raises QuantizationError."""
    own_bits, own_group = FIXED_FORMATS.get(mode, (4, 64))
    return Quantization(
        bits=own_bits if bits is None else bits,
        group_size=own_group if group_size is None else group_size,
        mode=mode,
    )


def make_recipe(name: RecipeName, chosen: Quantization, settings: Mapping[str, int | None]) -> Recipe:
    """Return a recipe by name, changed by `settings`.

    mixed: KEPT_PRECISE in 8 bits, the rest as `chosen`; uniform: every class as `chosen`; small: experts in 3 bits, the
    rest as `chosen`. settings: class -> bits, or None for a class that is not quantized. Those bits, and those of small
    experts, are affine, in groups of `chosen` if it is affine, else of 64.
    """
    classes: dict[str, Quantization | None] = dict.fromkeys(MODULES, chosen)
    if name == "mixed":
        classes.update(dict.fromkeys(KEPT_PRECISE, PRECISE))
    if name == "small":
        settings = {"experts": SMALL_EXPERT_BITS, **settings}
    group_size = chosen.group_size if chosen.mode == "affine" else PRECISE.group_size
    for each, bits in settings.items():
        classes[each] = None if bits is None else Quantization(bits=bits, group_size=group_size)
    return Recipe(default=chosen, classes=classes)


def parse_setting(text: str) -> tuple[str, int | None]:
    """Read CLASS=BITS, or CLASS=bf16 as None. Raises OptionError that names the possible values."""
    name, _, value = text.partition("=")
    if name not in MODULES:
        raise OptionError(f"{text!r}: no tensor class {name!r}, choose from {', '.join(MODULES)}")
    if value == "bf16":
        return name, None
    if value not in map(str, SETTABLE_BITS):
        raise OptionError(f"{text!r}: set {name} to bf16 or to one of {', '.join(map(str, SETTABLE_BITS))} bits")
    return name, int(value)
