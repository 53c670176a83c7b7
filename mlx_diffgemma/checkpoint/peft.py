"""Adapters of PEFT, which Unsloth writes too: what they change, and where.

adapter_config.json         peft_type, lora_alpha, use_rslora, alpha_pattern, and options that are refused
adapter_model.safetensors   base_model.model.<module>.lora_A.weight [r, in] and .lora_B.weight [out, r]

What is added to a weight is s * B @ A, where s is alpha / r, or alpha / sqrt(r) with use_rslora. In transformers the
encoder and the decoder have modules of their own for the weights that they share, so PEFT trains a change for each, or
for one of the two.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mlx_diffgemma.checkpoint.folder import ADAPTER_CONFIG
from mlx_diffgemma.checkpoint.names import DECODER, ENCODER, VISION, plain_name
from mlx_diffgemma.checkpoint.safetensors import FLOATS, TensorInfo, read_header
from mlx_diffgemma.errors import AdapterError

PEFT_WEIGHTS = "adapter_model.safetensors"
_LARGEST_ALPHA = 1e6
_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])(?:\.[^.]+)?\.weight")
_NOT_APPLIED = {
    "use_dora": "DoRA",
    "modules_to_save": "modules trained in full",
    "bias": "trained biases",
    "lora_bias": "trained biases",
    "target_parameters": "changes of experts",
    "trainable_token_indices": "trained token embeddings",
    "layer_replication": "repeated layers",
    "alora_invocation_tokens": "an adapter that begins at certain tokens",
}
"""Options of PEFT -> what an adapter with them has, which is not a low-rank change of a linear map."""
_CHANGED_BASES = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of init_lora_weights with which PEFT changes the weights of the model before it trains."""


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """A change scale * B @ A of a linear map [out, in]: `a` is [r, in] and `b` [out, r]."""

    a: TensorInfo
    b: TensorInfo
    scale: float

    @property
    def shape(self) -> tuple[int, int]:
        """The shape of the map, (out, in)."""
        return self.b.shape[0], self.a.shape[1]


@dataclass(frozen=True, kw_only=True)
class PeftAdapter:
    """The changes of an adapter by the path of a module in the decoder, as `layers.0.self_attn.q_proj`."""

    folder: Path
    encoder: Mapping[str, LowRank]
    decoder: Mapping[str, LowRank]
    vision: tuple[str, ...]
    """modules of the vision tower that are changed"""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that were read."""
        return (self.folder / PEFT_WEIGHTS, self.folder / ADAPTER_CONFIG)

    def is_shared(self) -> bool:
        """Compare the changes: whether the encoder's layers have those of the decoder's, value by value."""
        layers = {path: change for path, change in self.decoder.items() if path.startswith("layers.")}
        return layers.keys() == self.encoder.keys() and all(
            _equal(change, self.encoder[path]) for path, change in layers.items()
        )


def is_peft(settings: Mapping[str, Any]) -> bool:
    """Return whether the content of an adapter_config.json is PEFT's and not mlx-lm's."""
    return "peft_type" in settings and "lora_parameters" not in settings


def read_peft(folder: Path, settings: Mapping[str, Any]) -> PeftAdapter:
    """Read the headers of an adapter whose adapter_config.json is `settings`.

    Raises AdapterError that names what cannot be applied, WeightsError for a damaged file.
    """
    _refuse(folder, settings)
    factors: dict[str, dict[str, TensorInfo]] = {}
    for info in read_header(folder / PEFT_WEIGHTS):
        match = _FACTOR.fullmatch(info.name)
        if match is None or len(info.shape) != 2 or 0 in info.shape or info.dtype not in FLOATS:
            raise AdapterError(
                f"the adapter in {folder} cannot be applied: {info.name}, {info.dtype} {list(info.shape)}, is no "
                "factor of a low-rank change of a linear map"
            )
        factors.setdefault(plain_name(match["module"]), {})[match["factor"]] = info
    changes = {module: _change(folder, module, pair, settings) for module, pair in factors.items()}
    if not changes:
        raise AdapterError(f"the adapter in {folder} holds no tensors: train it for at least one step")
    if unknown := [module for module in changes if not module.startswith((ENCODER, DECODER, *VISION))]:
        raise AdapterError(f"the adapter in {folder} was made for another model: there is no {unknown[0]}")
    return PeftAdapter(
        folder=folder,
        encoder=_under(ENCODER, changes),
        decoder=_under(DECODER, changes),
        vision=tuple(module for module in changes if module.startswith(VISION)),
    )


def _under(prefix: str, changes: Mapping[str, LowRank]) -> dict[str, LowRank]:
    return {module.removeprefix(prefix): change for module, change in changes.items() if module.startswith(prefix)}


def _refuse(folder: Path, settings: Mapping[str, Any]) -> None:
    """Raise AdapterError for what is not a low-rank change of linear maps alone."""
    kind, start = settings["peft_type"], settings.get("init_lora_weights")
    if kind != "LORA":
        raise AdapterError(f"the adapter in {folder} cannot be applied: its peft_type is {kind!r}, only 'LORA' can be")
    for key, meaning in _NOT_APPLIED.items():
        if settings.get(key) not in (None, False, [], {}, "none"):
            raise AdapterError(f"the adapter in {folder} cannot be applied: it has {meaning} ({key}={settings[key]!r})")
    if isinstance(start, str) and start.startswith(_CHANGED_BASES):
        raise AdapterError(
            f"the adapter in {folder} cannot be applied: it fits a changed model (init_lora_weights={start!r}): "
            "save it from PEFT with path_initial_model_for_weight_conversion"
        )


def _change(folder: Path, module: str, factors: Mapping[str, TensorInfo], settings: Mapping[str, Any]) -> LowRank:
    for factor in "AB":
        if factor not in factors:
            raise AdapterError(f"the adapter in {folder} is incomplete: {module} has no lora_{factor}")
    a, b = factors["A"], factors["B"]
    rank = a.shape[0]
    if b.shape[1] != rank:
        raise AdapterError(f"the adapter in {folder} is damaged: {module} has factors of ranks {rank} and {b.shape[1]}")
    try:
        alpha = _alpha(module, settings)
    except re.error as error:
        raise AdapterError(f"the adapter in {folder} cannot be used: alpha_pattern: {error}") from None
    if not isinstance(alpha, (int, float)) or isinstance(alpha, bool) or not abs(alpha) < _LARGEST_ALPHA:
        raise AdapterError(f"the adapter in {folder} cannot be used: {ADAPTER_CONFIG} has no number lora_alpha")
    return LowRank(a=a, b=b, scale=alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank))


def _alpha(module: str, settings: Mapping[str, Any]) -> object:
    """Return the alpha of a module: PEFT's patterns are ends of names, or regular expressions of them."""
    patterns = settings.get("alpha_pattern")
    for pattern, alpha in cast("dict[str, object]", patterns).items() if isinstance(patterns, dict) else ():
        if re.fullmatch(rf"(?:.*\.)?(?:{pattern})", module):
            return alpha
    return settings.get("lora_alpha")


def _equal(first: LowRank, second: LowRank) -> bool:
    return first.scale == second.scale and all(
        one.dtype == other.dtype and _bytes(one) == _bytes(other)
        for one, other in ((first.a, second.a), (first.b, second.b))
    )


def _bytes(info: TensorInfo) -> bytes:
    with info.file.open("rb") as stream:
        stream.seek(info.offset)
        return stream.read(info.nbytes)
