"""The model's configuration: config.json in either of its spellings -> one checked, resolved ModelConfig.

Google writes `global_head_dim` and `num_global_key_value_heads` for the full-attention layers; transformers 5.23 writes
`per_layer_config: {"5": {"head_dim": 512, "num_key_value_heads": 2}, ...}`. Both end as one LayerConfig per layer.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from mlx_diffgemma.errors import ConfigError

_logger = logging.getLogger("mlx_diffgemma")

MODEL_TYPE = "diffusion_gemma"
LARGEST = 2**31
"""No size or constant of a model comes near it; sizes beyond it overflow."""
MOST_LAYERS = 1000
AttentionKind: TypeAlias = Literal["sliding_attention", "full_attention"]
Raw: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """What differs between layers. Full layers have no v_proj: their values are their raw keys."""

    kind: AttentionKind
    head_dim: int
    num_key_value_heads: int

    @property
    def sliding(self) -> bool:
        """Whether the layer sees only the last window of the prefix."""
        return self.kind == "sliding_attention"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Sizes and constants of one DiffusionGemma; raises ConfigError naming what does not fit together."""

    hidden_size: int
    intermediate_size: int
    moe_intermediate_size: int
    num_experts: int
    top_k_experts: int
    num_attention_heads: int
    layers: tuple[LayerConfig, ...]
    vocab_size: int
    sliding_window: int
    canvas_length: int
    max_position_embeddings: int
    sliding_rope_theta: float = 10_000.0
    full_rope_theta: float = 1_000_000.0
    full_rotary_factor: float = 0.25
    rms_norm_eps: float = 1e-6
    final_logit_softcapping: float = 30.0

    def __post_init__(self) -> None:
        if self.top_k_experts > self.num_experts:
            raise ConfigError(
                f"config.json: top_k_experts={self.top_k_experts} is above num_experts={self.num_experts}"
            )
        if self.full_rotary_factor > 1:
            raise ConfigError(f"config.json: partial_rotary_factor={self.full_rotary_factor} is above 1")
        for index, layer in enumerate(self.layers):
            if self.num_attention_heads % layer.num_key_value_heads:
                raise ConfigError(
                    f"config.json: layer {index} shares {layer.num_key_value_heads} key-value heads among "
                    f"{self.num_attention_heads} query heads: not a whole number each"
                )
            if layer.head_dim % 2:
                raise ConfigError(f"config.json: layer {index} has an odd head_dim {layer.head_dim}")


def parse_config(raw: Raw) -> ModelConfig:
    """Resolve a parsed config.json. Raises ConfigError naming the key at fault."""
    if raw.get("model_type") != MODEL_TYPE:
        raise ConfigError(
            f"not a DiffusionGemma: config.json has model_type {raw.get('model_type')!r}, not {MODEL_TYPE!r}"
        )
    text = object_at(raw, "text_config")
    if text is None:
        raise ConfigError("config.json: no text_config object")
    _refuse_unsupported(raw, text)
    _warn_unknown("config.json", raw, KNOWN_KEYS)
    _warn_unknown("config.json: text_config", text, KNOWN_TEXT_KEYS)
    sliding, full = _rope(text)
    return ModelConfig(
        hidden_size=_whole(text, "hidden_size"),
        intermediate_size=_whole(text, "intermediate_size"),
        moe_intermediate_size=_whole(text, "moe_intermediate_size"),
        num_experts=_whole(text, "num_experts"),
        top_k_experts=_whole(text, "top_k_experts"),
        num_attention_heads=_whole(text, "num_attention_heads"),
        layers=_layers(text),
        vocab_size=_whole(text, "vocab_size"),
        sliding_window=_whole(text, "sliding_window"),
        canvas_length=_whole(raw, "canvas_length", 256),
        max_position_embeddings=_whole(text, "max_position_embeddings"),
        sliding_rope_theta=_number(sliding, "rope_theta"),
        full_rope_theta=_number(full, "rope_theta"),
        full_rotary_factor=_number(full, "partial_rotary_factor", 1.0),
        rms_norm_eps=_number(text, "rms_norm_eps", 1e-6),
        final_logit_softcapping=_number(text, "final_logit_softcapping", 30.0),
    )


def _layers(text: Raw) -> tuple[LayerConfig, ...]:
    count = _whole(text, "num_hidden_layers")
    if count > MOST_LAYERS:
        raise ConfigError(f"config.json: num_hidden_layers={count} is more than any model has")
    kinds = _layer_kinds(text, count)
    head_dim = _whole(text, "head_dim")
    kv_heads = _whole(text, "num_key_value_heads")
    full = {
        "head_dim": _whole(text, "global_head_dim", 512),
        "num_key_value_heads": _whole(text, "num_global_key_value_heads", kv_heads),
    }
    overrides = object_at(text, "per_layer_config")
    if overrides is None:
        overrides = {str(index): full for index, kind in enumerate(kinds) if kind == "full_attention"}
    layers: list[LayerConfig] = []
    for index, kind in enumerate(kinds):
        own = object_at(overrides, str(index)) or {}
        layers.append(
            LayerConfig(
                kind=kind,
                head_dim=_whole(own, "head_dim", head_dim),
                num_key_value_heads=_whole(own, "num_key_value_heads", kv_heads),
            )
        )
    return tuple(layers)


def _layer_kinds(text: Raw, count: int) -> list[AttentionKind]:
    """layer_types, or five sliding layers to one full; the last is always full, as in the reference."""
    kinds = text.get("layer_types")
    if kinds is None:
        kinds = ["full_attention" if (index + 1) % 6 == 0 else "sliding_attention" for index in range(count)]
    if not isinstance(kinds, list) or len(cast("list[Any]", kinds)) != count:
        raise ConfigError(f"config.json: layer_types must list {count} layers, not {kinds!r}")
    for kind in cast("list[Any]", kinds):
        if kind not in ("sliding_attention", "full_attention"):
            raise ConfigError(f"config.json: unknown layer type {kind!r}")
    return [*cast("list[AttentionKind]", kinds)[:-1], "full_attention"]


def _rope(text: Raw) -> tuple[Raw, Raw]:
    """(sliding, full) rope parameters, of the two types that this model has."""
    rope = object_at(text, "rope_parameters") or {}
    sliding = object_at(rope, "sliding_attention") or {"rope_type": "default", "rope_theta": 10_000.0}
    full = object_at(rope, "full_attention") or {
        "rope_type": "proportional",
        "partial_rotary_factor": 0.25,
        "rope_theta": 1_000_000.0,
    }
    for kind, entry, wanted in (("sliding", sliding, "default"), ("full", full, "proportional")):
        if entry.get("rope_type") != wanted:
            raise ConfigError(
                f"config.json: rope_type {entry.get('rope_type')!r} of {kind}_attention is not {wanted!r}"
            )
    return sliding, full


def _refuse_unsupported(raw: Raw, text: Raw) -> None:
    """Settings that change the arithmetic in ways this model code does not have: refused, never ignored."""
    refused = [
        ("tie_word_embeddings", raw.get("tie_word_embeddings", True), (True,)),
        ("attention_bias", text.get("attention_bias", False), (False,)),
        ("hidden_activation", text.get("hidden_activation", "gelu_pytorch_tanh"), ("gelu_pytorch_tanh",)),
        ("use_bidirectional_attention", text.get("use_bidirectional_attention"), (None, "vision")),
        ("attention_k_eq_v", text.get("attention_k_eq_v", True), (True,)),
        ("enable_moe_block", text.get("enable_moe_block", True), (True,)),
    ]
    for key, value, supported in refused:
        if value not in supported:
            wanted = " or ".join(repr(choice) for choice in supported)
            raise ConfigError(f"config.json: {key}={value!r} is not supported, only {wanted}")


def object_at(raw: Raw, key: str) -> Raw | None:
    """The object under `key`, None where there is none. Raises ConfigError."""
    value = raw.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise ConfigError(f"config.json: {key} must be an object, not {value!r}")
    return cast("Raw | None", value)


def _whole(raw: Raw, key: str, default: int | None = None) -> int:
    value = raw.get(key)
    value = default if value is None else value
    if value is None:
        raise ConfigError(f"config.json: {key} is missing")
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value < LARGEST:
        raise ConfigError(f"config.json: {key} must be a positive whole number, not {value!r}")
    return value


def _number(raw: Raw, key: str, default: float | None = None) -> float:
    value = raw.get(key)
    value = default if value is None else value
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 < value < LARGEST:
        raise ConfigError(f"config.json: {key} must be a positive number, not {value!r}")
    return float(value)


def _warn_unknown(where: str, raw: Raw, known: Iterable[str]) -> None:
    if unknown := sorted(set(raw) - set(known)):
        _logger.warning("%s: ignoring unknown keys: %s", where, ", ".join(unknown))


KNOWN_KEYS = frozenset(
    """architectures audio_config audio_token_id boa_token_id boi_token_id bos_token_id canvas_length dtype eoa_token_id
    eoi_token_id eos_token_id generation_config image_token_id initializer_range model_type pad_token_id quantization
    quantization_config text_config tie_word_embeddings torch_dtype transformers_version video_token_id vision_config
    vision_soft_tokens_per_image vocab_size _name_or_path""".split()
)
KNOWN_TEXT_KEYS = frozenset(
    """attention_bias attention_dropout attention_k_eq_v bos_token_id dtype enable_moe_block eos_token_id
    final_logit_softcapping global_head_dim head_dim hidden_activation hidden_size initializer_range intermediate_size
    layer_types max_position_embeddings model_type moe_intermediate_size num_attention_heads num_experts
    num_global_key_value_heads num_hidden_layers num_key_value_heads pad_token_id per_layer_config rms_norm_eps
    rope_parameters sliding_window tie_word_embeddings top_k_experts torch_dtype use_bidirectional_attention use_cache
    vocab_size _name_or_path architectures""".split()
)
