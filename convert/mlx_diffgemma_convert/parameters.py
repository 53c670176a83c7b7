"""The text parameters that a configuration implies: what a source must hold, in the order in which it is written."""

from __future__ import annotations

from mlx_diffgemma.config import LayerConfig, ModelConfig
from mlx_diffgemma.layout import DECODER, EMBEDDING, ENCODER, SCALAR

Shape = tuple[int, ...]

NORMS = (
    "input_layernorm",
    "post_attention_layernorm",
    "pre_feedforward_layernorm",
    "post_feedforward_layernorm",
    "post_feedforward_layernorm_1",
    "post_feedforward_layernorm_2",
    "pre_feedforward_layernorm_2",
)


def text_shapes(config: ModelConfig) -> dict[str, Shape]:
    """Name -> shape of every text parameter, unpacked, in the order of a forward pass."""
    hidden, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, Shape] = {EMBEDDING: (config.vocab_size, hidden)}
    for index, layer in enumerate(config.layers):
        for name, shape in _layer_shapes(config, layer).items():
            shapes[f"{DECODER}layers.{index}.{name}"] = shape
        shapes[f"{ENCODER}layers.{index}{SCALAR}"] = (1,)
    shapes[f"{DECODER}norm.weight"] = (hidden,)
    conditioning = f"{DECODER}self_conditioning."
    shapes[f"{conditioning}pre_norm.weight"] = (hidden,)
    shapes[f"{conditioning}gate_proj.weight"] = (inner, hidden)
    shapes[f"{conditioning}up_proj.weight"] = (inner, hidden)
    shapes[f"{conditioning}down_proj.weight"] = (hidden, inner)
    return shapes


def _layer_shapes(config: ModelConfig, layer: LayerConfig) -> dict[str, Shape]:
    hidden, inner, experts = config.hidden_size, config.intermediate_size, config.num_experts
    queries = config.num_attention_heads * layer.head_dim
    keys = layer.num_key_value_heads * layer.head_dim
    shapes: dict[str, Shape] = {
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
    }
    if layer.sliding:
        shapes["self_attn.v_proj.weight"] = (keys, hidden)
    return {
        **shapes,
        "self_attn.o_proj.weight": (hidden, queries),
        "self_attn.q_norm.weight": (layer.head_dim,),
        "self_attn.k_norm.weight": (layer.head_dim,),
        "mlp.gate_proj.weight": (inner, hidden),
        "mlp.up_proj.weight": (inner, hidden),
        "mlp.down_proj.weight": (hidden, inner),
        "router.proj.weight": (experts, hidden),
        "router.scale": (hidden,),
        "router.per_expert_scale": (experts,),
        "experts.gate_up_proj.weight": (experts, 2 * config.moe_intermediate_size, hidden),
        "experts.down_proj.weight": (experts, hidden, config.moe_intermediate_size),
        **{f"{norm}.weight": (hidden,) for norm in NORMS},
        SCALAR.removeprefix("."): (1,),
    }
