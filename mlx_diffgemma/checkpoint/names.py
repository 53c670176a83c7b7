"""From the tensor names in circulation to this model's parameter names.

The parameters are named as in the MLX layouts, which are Google's names but for one thing: the two expert tensors are
bare in Google's files (`experts.gate_up_proj`) and end in `.weight` here. Training tools add tied copies, rotary
buffers, or one tensor per expert; all of that is resolved here, once, for the loader and the converter alike.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlx_diffgemma.checkpoint.safetensors import TensorInfo
from mlx_diffgemma.errors import WeightsError

VISION = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")
ENCODER = "model.encoder.language_model."
DECODER = "model.decoder."
EMBEDDING = "model.decoder.embed_tokens.weight"
SCALAR = ".layer_scalar"
BARE_EXPERTS = (".experts.gate_up_proj", ".experts.down_proj")
ONE_EXPERT = re.compile(r"(?P<prefix>.+\.experts)\.(?P<expert>\d+)\.(?P<part>gate|up|down)_proj(\.weight)?")


@dataclass(frozen=True, kw_only=True)
class TensorSource:
    """Where one parameter comes from: `parts`, whose rows follow each other, are together a tensor of `shape`."""

    parts: tuple[TensorInfo, ...]
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """The dtype that all parts have, as safetensors spells it."""
        return self.parts[0].dtype


@dataclass(frozen=True, kw_only=True)
class CheckpointTensors:
    """A checkpoint's tensors by what they are for; `ignored` names what repeats others: tied copies, rotary buffers."""

    text: Mapping[str, TensorSource]
    vision: Mapping[str, TensorInfo]
    ignored: tuple[str, ...]


def sort_tensors(tensors: Mapping[str, TensorInfo]) -> CheckpointTensors:
    """Sort a checkpoint's tensors: text parameters under this model's names, the vision tower, and what repeats others.

    A tied copy is ignored where the original is there and takes its place where it is not. An unknown name is kept
    under its own, for the strict check of the loader to name. Raises WeightsError for an incomplete set of experts.
    """
    vision = {name: info for name, info in tensors.items() if name.startswith(VISION)}
    buffers = [name for name in tensors if ".rotary_emb." in name]
    single: dict[str, TensorInfo] = {}
    experts: dict[str, dict[tuple[int, str], TensorInfo]] = {}
    tied: dict[str, TensorInfo] = {}
    for name, info in tensors.items():
        if name in vision or name in buffers:
            continue
        original = _original(name)
        target = original or name
        if match := ONE_EXPERT.fullmatch(target):
            group = experts.setdefault(match["prefix"], {})
            key = (int(match["expert"]), match["part"])
            if original is None or key not in group:
                group[key] = info
        elif original is not None:
            tied[_with_weight(target)] = info
        else:
            single[_with_weight(target)] = info
    text = {name: TensorSource(parts=(info,), shape=info.shape) for name, info in {**tied, **single}.items()}
    for prefix, group in experts.items():
        text.update(_stack(prefix, group))
    _complete_scalars(text)
    ignored = [*buffers, *(info.name for name, info in tied.items() if name in single)]
    return CheckpointTensors(text=text, vision=vision, ignored=tuple(sorted(ignored)))


def _original(name: str) -> str | None:
    """The name of which `name` is a tied copy, or None for an original."""
    if name == "lm_head.weight":
        return EMBEDDING
    if name.startswith(ENCODER) and not name.endswith(SCALAR):
        return DECODER + name.removeprefix(ENCODER)
    return None


def _with_weight(name: str) -> str:
    return f"{name}.weight" if name.endswith(BARE_EXPERTS) else name


def _stack(prefix: str, group: Mapping[tuple[int, str], TensorInfo]) -> dict[str, TensorSource]:
    """One tensor per expert -> the two stacked ones, gate rows above up rows within each expert."""
    count = 1 + max(expert for expert, _ in group)
    for expert in range(count):
        for part in ("gate", "up", "down"):
            if (expert, part) not in group:
                raise WeightsError(f"{prefix} has {count} experts, but {prefix}.{expert}.{part}_proj is missing")
    gate_up = tuple(group[expert, part] for expert in range(count) for part in ("gate", "up"))
    down = tuple(group[expert, "down"] for expert in range(count))
    return {
        f"{prefix}.gate_up_proj.weight": _joined(gate_up, count),
        f"{prefix}.down_proj.weight": _joined(down, count),
    }


def _joined(parts: tuple[TensorInfo, ...], count: int) -> TensorSource:
    first = parts[0]
    for part in parts:
        if (part.shape, part.dtype) != (first.shape, first.dtype) or len(part.shape) != 2:
            raise WeightsError(
                f"{part.name} is {part.dtype} {list(part.shape)}, but {first.name} is {first.dtype} {list(first.shape)}"
            )
    rows = math.prod(first.shape[:-1]) * len(parts) // count
    return TensorSource(parts=parts, shape=(count, rows, first.shape[-1]))


def _complete_scalars(text: dict[str, TensorSource]) -> None:
    """Where the encoder's own layer scalar is missing, the decoder's is meant: they are far from 1."""
    for name in [name for name in text if name.startswith(DECODER) and name.endswith(SCALAR)]:
        text.setdefault(ENCODER + name.removeprefix(DECODER), text[name])
