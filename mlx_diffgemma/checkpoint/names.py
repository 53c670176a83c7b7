"""The tensor names in circulation -> this model's parameter names.

The parameters have the names of the MLX layouts. Google's files have one difference: their two expert tensors have no
suffix (`experts.gate_up_proj`), here they end in `.weight`. Training tools add tied copies and rotary buffers, write
one tensor per expert, or put the names of wrappers before all names. All of that is resolved here, for the loader and
for the converter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mlx_diffgemma.checkpoint.safetensors import TensorInfo
from mlx_diffgemma.checkpoint.scaled import join_scales
from mlx_diffgemma.errors import WeightsError

VISION = ("model.encoder.vision_tower.", "model.encoder.embed_vision.")
ENCODER = "model.encoder.language_model."
DECODER = "model.decoder."
EMBEDDING = "model.decoder.embed_tokens.weight"
SCALAR = ".layer_scalar"
HEAD = "lm_head"
_WRAPPERS = re.compile(r"(?:(?:_orig_mod|module|base_model|language_model|model)\.)*(?=(?:encoder|decoder|lm_head)\.)")
"""What torch.compile, data-parallel training, PEFT and other layouts put before a name, and what they leave out."""
BARE_EXPERTS = (".experts.gate_up_proj", ".experts.down_proj")
_ONE_EXPERT = re.compile(r"(?P<prefix>.+\.experts)\.(?P<expert>\d+)\.(?P<part>gate|up|down)_proj(\.weight)?")


@dataclass(frozen=True, kw_only=True)
class TensorSource:
    """Where one parameter is in the files: the rows of `parts`, one after another, are a tensor of `shape`."""

    parts: tuple[TensorInfo, ...]
    shape: tuple[int, ...]

    @property
    def dtype(self) -> str:
        """The dtype of every part, as safetensors spells it."""
        return self.parts[0].dtype


@dataclass(frozen=True, kw_only=True)
class CheckpointTensors:
    """The tensors of a checkpoint by purpose."""

    text: Mapping[str, TensorSource]
    """parameter name -> where it is"""
    vision: Mapping[str, TensorInfo]
    """the vision tower, which this version does not read"""
    ignored: tuple[str, ...]
    """tied copies and rotary buffers: they repeat or follow from other tensors"""


def sort_tensors(tensors: Mapping[str, TensorInfo]) -> CheckpointTensors:
    """Sort a checkpoint's tensors by purpose, and give text parameters this model's names.

    The names of wrappers are removed. A tied copy is ignored if its module has an original, and is used as the original
    if it has none. A tensor with an unknown name keeps it: the strict check of the loader reports it. Raises
    WeightsError for an incomplete set of experts, and for two tensors that are the same parameter.
    """
    tensors = join_scales(_unwrapped(tensors))
    vision = {name: info for name, info in tensors.items() if name.startswith(VISION)}
    buffers = [name for name in tensors if ".rotary_emb." in name]
    single: dict[str, TensorInfo] = {}
    experts: dict[str, dict[tuple[int, str], TensorInfo]] = {}
    copies: dict[str, TensorInfo] = {}
    for name, info in tensors.items():
        if name in vision or name in buffers:
            continue
        original = _original(name)
        target = original or name
        if match := _ONE_EXPERT.fullmatch(target):
            group = experts.setdefault(match["prefix"], {})
            key = (int(match["expert"]), match["part"])
            if original is None or key not in group:
                group[key] = info
        elif original is not None:
            copies[_with_weight(target)] = info
        else:
            single[_with_weight(target)] = info
    # By module: a head packed on its own must not lend its scales to an embedding that is plain.
    modules = {_module(name) for name in single}
    tied = {name: info for name, info in copies.items() if _module(name) not in modules}
    text = {name: TensorSource(parts=(info,), shape=info.shape) for name, info in {**tied, **single}.items()}
    for prefix, group in experts.items():
        text.update(_stacked(prefix, group))
    _complete_scalars(text)
    ignored = [*buffers, *(info.name for name, info in copies.items() if name not in tied)]
    return CheckpointTensors(text=text, vision=vision, ignored=tuple(sorted(ignored)))


def plain_name(name: str) -> str:
    """Return a name without those of wrappers: it begins with `model.encoder.`, `model.decoder.` or `lm_head.`.

    A name that has none of the three stays as it is.
    """
    plain = name.replace("._orig_mod.", ".")
    match = _WRAPPERS.match(plain)
    if match is None:
        return name
    rest = plain[match.end() :]
    return rest if rest.startswith(HEAD) else f"model.{rest}"


def _unwrapped(tensors: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    found: dict[str, TensorInfo] = {}
    for name, info in tensors.items():
        plain = plain_name(name)
        if plain in found:
            first, second = sorted([found[plain].name, info.name])
            raise WeightsError(f"{first} and {second} are the same parameter: save the model again with one of them")
        found[plain] = info
    return found


def _original(name: str) -> str | None:
    """Return the name of the tensor that `name` is a tied copy of; None for an original."""
    if _module(name) == HEAD:
        return name.replace(HEAD, _module(EMBEDDING), 1)
    if name.startswith(ENCODER) and not name.endswith(SCALAR):
        return DECODER + name.removeprefix(ENCODER)
    return None


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _with_weight(name: str) -> str:
    return f"{name}.weight" if name.endswith(BARE_EXPERTS) else name


def _stacked(prefix: str, group: Mapping[tuple[int, str], TensorInfo]) -> dict[str, TensorSource]:
    """Join the tensors of single experts to the two stacked ones; in each expert gate rows come before up rows."""
    count = 1 + max(expert for expert, _ in group)
    for expert in range(count):
        for part in ("gate", "up", "down"):
            if (expert, part) not in group:
                missing = f"{prefix}.{expert}.{part}_proj"
                raise WeightsError(f"{prefix} has {count} experts, but {missing} is missing: download it again")
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
                f"{part.name} is {part.dtype} {list(part.shape)}, but {first.name} is {first.dtype} "
                f"{list(first.shape)}: convert or download them again"
            )
    rows = math.prod(first.shape[:-1]) * len(parts) // count
    return TensorSource(parts=parts, shape=(count, rows, first.shape[-1]))


def _complete_scalars(text: dict[str, TensorSource]) -> None:
    """Use the decoder's layer scalar for the encoder where the encoder has none of its own.

    The scalars are far from 1, so leaving one out would change the model.
    """
    for name in [name for name in text if name.startswith(DECODER) and name.endswith(SCALAR)]:
        text.setdefault(ENCODER + name.removeprefix(DECODER), text[name])
