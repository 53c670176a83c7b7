"""Make a random DiffusionGemma checkpoint in Google's layout, of any depth and four widths, a few MB at a time.

The values are scaled as for a fresh initialization, so that every layer has an effect; the generated text is noise.
Tests use the tiny width, the conversion benchmark the full one, the comparison with mlx-vlm the bench one: it has the
release's proportions, but is small enough for a CPU, with a vocabulary and a window that are large beside the rest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mlx_diffgemma_convert.parameters import google_name, text_shapes
from mlx_diffgemma_convert.shards import Entry, group_into_shards, index_contents, lay_out
from mlx_diffgemma_convert.writer import shard_file, write_text

from mlx_diffgemma.checkpoint.folder import INDEX
from mlx_diffgemma.checkpoint.names import SCALAR
from mlx_diffgemma.model.config import parse_config

Width = Literal["full", "bench", "mid", "tiny"]
Bits = npt.NDArray[np.uint16]

WIDTHS: dict[Width, dict[str, int]] = {
    "full": {
        "vocab_size": 262_144, "hidden_size": 2816, "intermediate_size": 2112, "moe_intermediate_size": 704,
        "num_experts": 128, "top_k_experts": 8, "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 256,
        "num_global_key_value_heads": 2, "global_head_dim": 512, "sliding_window": 1024,
    },
    "bench": {
        "vocab_size": 65_536, "hidden_size": 512, "intermediate_size": 384, "moe_intermediate_size": 128,
        "num_experts": 32, "top_k_experts": 4, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
        "num_global_key_value_heads": 1, "global_head_dim": 128, "sliding_window": 1024,
    },
    "mid": {
        "vocab_size": 8192, "hidden_size": 512, "intermediate_size": 512, "moe_intermediate_size": 128,
        "num_experts": 16, "top_k_experts": 4, "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64,
        "num_global_key_value_heads": 2, "global_head_dim": 128, "sliding_window": 256,
    },
    "tiny": {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 64, "moe_intermediate_size": 64,
        "num_experts": 4, "top_k_experts": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32,
        "num_global_key_value_heads": 1, "global_head_dim": 64, "sliding_window": 24,
    },
}  # fmt: skip
CANVAS = {"full": 256, "bench": 256, "mid": 64, "tiny": 16}

VISION = {
    "hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 32,
    "global_head_dim": 32, "num_hidden_layers": 2, "patch_size": 16, "pooling_kernel_size": 3,
    "position_embedding_size": 64, "max_position_embeddings": 131072, "default_output_length": 280,
}  # fmt: skip

GENERATION = {
    "confidence_threshold": 0.005,
    "eos_token_id": [1, 106, 50],
    "max_denoising_steps": 48,
    "max_new_tokens": 256,
    "pad_token_id": 0,
    "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.1},
    "stability_threshold": 1,
    "t_max": 0.8,
    "t_min": 0.4,
}
"""The generation_config.json of the public checkpoint."""

CALM = {
    ".post_attention_layernorm.weight": 0.06,
    ".post_feedforward_layernorm.weight": 0.06,
    "model.decoder.norm.weight": 0.1,
}
"""End of a parameter's name -> the factor on its values in a calm checkpoint."""

BLOCK = 4 << 20
"""How many values are made at a time."""


def write_checkpoint(
    folder: Path,
    *,
    layers: int = 3,
    width: Width = "tiny",
    vocab_size: int | None = None,
    vision: bool = False,
    calm: bool = False,
    seed: int = 0,
    shard_bytes: int = 5_000_000_000,
) -> None:
    """Write a checkpoint of bf16 values into a new folder: weights, index, both configurations, no tokenizer.

    Every sixth layer and the last are full, the others sliding. vision: add a tower of two small layers. calm: layers
    add little and the head is unsure, so that rounding sends no token to another expert and no canvas converges.
    Equal arguments give equal bytes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config = make_config(layers, width, vocab_size, vision=vision)
    shapes = {google_name(name): shape for name, shape in text_shapes(parse_config(config)).items()}
    if vision:
        shapes |= _vision_shapes(WIDTHS[width]["hidden_size"])
    groups = group_into_shards(
        ([Entry(name=name, dtype="BF16", shape=shape)] for name, shape in shapes.items()), shard_bytes
    )
    shards = lay_out(groups)
    random = np.random.default_rng(seed)
    for shard in shards:
        with shard_file(folder, shard) as file:
            for entry in shard.entries:
                start = 0
                for block in values(entry.name, entry.shape, random, calm=calm):
                    file.write(entry.name, start, block.data)
                    start += block.nbytes
    write_text(folder / INDEX, json.dumps(index_contents(shards), indent=1))
    write_text(folder / "config.json", json.dumps(config, indent=1))
    write_text(folder / "generation_config.json", json.dumps(GENERATION, indent=1))


def make_config(layers: int, width: Width, vocab_size: int | None = None, *, vision: bool = False) -> dict[str, Any]:
    """Return the config.json of a checkpoint of this size."""
    kinds = ["full_attention" if (i + 1) % 6 == 0 else "sliding_attention" for i in range(layers - 1)]
    sizes = WIDTHS[width] if vocab_size is None else {**WIDTHS[width], "vocab_size": vocab_size}
    text = {
        **sizes,
        "model_type": "diffusion_gemma_text",
        "num_hidden_layers": layers,
        "layer_types": [*kinds, "full_attention"],
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "final_logit_softcapping": 30.0,
        "max_position_embeddings": 262_144,
        "rope_parameters": {
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        },
        "attention_bias": False,
        "use_bidirectional_attention": "vision",
        "tie_word_embeddings": True,
        "dtype": "bfloat16",
        "bos_token_id": 2,
        "eos_token_id": 1,
        "pad_token_id": 0,
    }
    tower = {
        **VISION,
        "model_type": "gemma4_vision",
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
        "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
        "standardize": True,
        "use_clipped_linears": False,
        "dtype": "bfloat16",
    }
    return {
        "architectures": ["DiffusionGemmaForBlockDiffusion"],
        "model_type": "diffusion_gemma",
        "canvas_length": CANVAS[width],
        "dtype": "bfloat16",
        "eos_token_id": [1, 106],
        "boi_token_id": 255_999,
        "eoi_token_id": 258_882,
        "image_token_id": 258_880,
        "initializer_range": 0.02,
        "tie_word_embeddings": True,
        "text_config": text,
        "vision_config": tower if vision else None,
        "vision_soft_tokens_per_image": 280,
    }


def _vision_shapes(text_hidden: int) -> dict[str, tuple[int, ...]]:
    hidden, inner, head_dim = VISION["hidden_size"], VISION["intermediate_size"], VISION["head_dim"]
    projected = VISION["num_attention_heads"] * head_dim
    tower = "model.encoder.vision_tower."
    shapes: dict[str, tuple[int, ...]] = {
        f"{tower}std_bias": (hidden,),
        f"{tower}std_scale": (hidden,),
        f"{tower}patch_embedder.input_proj.weight": (hidden, 3 * VISION["patch_size"] ** 2),
        f"{tower}patch_embedder.position_embedding_table": (2, VISION["position_embedding_size"], hidden),
        "model.encoder.embed_vision.embedding_projection.weight": (text_hidden, hidden),
    }
    for layer in range(VISION["num_hidden_layers"]):
        at = f"{tower}encoder.layers.{layer}."
        shapes |= {f"{at}self_attn.{part}_proj.linear.weight": (projected, hidden) for part in "qkv"}
        shapes[f"{at}self_attn.o_proj.linear.weight"] = (hidden, projected)
        shapes |= {f"{at}self_attn.{part}_norm.weight": (head_dim,) for part in "qk"}
        shapes |= {f"{at}mlp.{part}_proj.linear.weight": (inner, hidden) for part in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.linear.weight"] = (hidden, inner)
        for norm in ("input", "post_attention", "pre_feedforward", "post_feedforward"):
            shapes[f"{at}{norm}_layernorm.weight"] = (hidden,)
    return shapes


def values(name: str, shape: Sequence[int], random: np.random.Generator, *, calm: bool = False) -> Iterator[Bits]:
    """Yield the values of one tensor as bf16 bits, in blocks of BLOCK values."""
    factor = next((factor for end, factor in CALM.items() if calm and name.endswith(end)), 1.0)
    mean, spread = (factor * value for value in _scale(name, shape))
    count = math.prod(shape)
    if count <= 65_536:
        yield bf16(mean + spread * random.standard_normal(count, dtype=np.float32))
        return
    # Uniform 16-bit numbers index a table of 65,536 normal quantiles: ten times as fast as drawing normal values.
    table = bf16(mean + spread * QUANTILES)
    for start in range(0, count, BLOCK):
        draws = random.integers(0, 65_536, min(BLOCK, count - start), dtype=np.uint16)
        yield table[draws]


def _scale(name: str, shape: Sequence[int]) -> tuple[float, float]:
    """Return (mean, standard deviation) of a tensor's values."""
    if name.endswith(SCALAR):
        # Trained scalars are far from 1, and after fine-tuning the encoder's differ from the decoder's.
        return (0.7 if name.startswith("model.decoder.") else 0.5), 0.07
    if len(shape) == 1:
        return (0.0 if name.endswith("std_bias") else 1.0), 0.1
    return 0.0, shape[-1] ** -0.5


def bf16(values: npt.NDArray[np.float32]) -> Bits:
    """Round float32 values to bf16; return their bits."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


QUANTILES = np.array([NormalDist().inv_cdf((i + 0.5) / 65_536) for i in range(65_536)], dtype=np.float32)
