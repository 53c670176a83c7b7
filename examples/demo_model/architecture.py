"""Write the untrained demo model in Google's layout: configuration, tokenizer, random weights.

    python examples/demo_model/architecture.py FOLDER [--seed 0]

It has every part of the release in a small size: sliding and full layers (K = V), experts, self-conditioning, canvases.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

sys.path.insert(0, str(Path(__file__).parent.parent))
from demo_model.vocabulary import vocabulary, write_tokenizer

from mlx_diffgemma.model.config import parse_config
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma

SLIDING, FULL = "sliding_attention", "full_attention"
TEXT = {
    "model_type": "diffusion_gemma_text",
    "hidden_size": 128,
    "intermediate_size": 192,
    "moe_intermediate_size": 128,
    "num_experts": 8,
    "top_k_experts": 2,
    "num_hidden_layers": 5,
    "layer_types": [SLIDING, SLIDING, FULL, SLIDING, FULL],
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "num_global_key_value_heads": 1,
    "global_head_dim": 64,
    "sliding_window": 64,
    "max_position_embeddings": 2048,
    "vocab_size": len(vocabulary()),
    "rms_norm_eps": 1e-6,
    "final_logit_softcapping": 30.0,
    "hidden_activation": "gelu_pytorch_tanh",
    "attention_bias": False,
    "rope_parameters": {
        SLIDING: {"rope_type": "default", "rope_theta": 10_000.0},
        FULL: {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1_000_000.0},
    },
    "tie_word_embeddings": True,
}
CONFIG = {
    "architectures": ["DiffusionGemmaForBlockDiffusion"],
    "model_type": "diffusion_gemma",
    "canvas_length": 32,
    "dtype": "bfloat16",
    "eos_token_id": [1, 106],
    "pad_token_id": 0,
    "bos_token_id": 2,
    "tie_word_embeddings": True,
    "text_config": TEXT,
    "vision_config": None,
}
GENERATION = {
    "bos_token_id": 2,
    "eos_token_id": [1, 106, 50],
    "pad_token_id": 0,
    "max_new_tokens": 384,
    "max_denoising_steps": 48,
    "t_max": 0.8,
    "t_min": 0.4,
    "stability_threshold": 1,
    "confidence_threshold": 0.005,
    "sampler_config": {"_cls_name": "EntropyBoundSamplerConfig", "entropy_bound": 0.01},
}


def write_untrained(folder: Path, *, seed: int = 0) -> None:
    """Write the whole folder for mlx_diffgemma.train."""
    write_tokenizer(folder)
    write_model(folder, CONFIG, GENERATION, seed=seed)


def write_model(folder: Path, config: Mapping[str, Any], generation: Mapping[str, Any], *, seed: int) -> None:
    """Write config.json, generation_config.json and random weights."""
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=1) + "\n", encoding="utf-8")
    model = DiffusionGemma(parse_config(config))
    flat: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    keys = mx.random.split(mx.random.key(seed), len(flat))
    weights = {
        name.removesuffix(".weight") if ".experts." in name else name: initial(name, value, key)
        for (name, value), key in zip(sorted(flat.items()), keys, strict=True)
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})


def initial(name: str, value: mx.array, key: mx.array) -> mx.array:
    """Return the initial value of a parameter."""
    if name.endswith((".q_norm.weight", ".k_norm.weight")):
        # Attention has scale 1; with these norms the scores of unrelated tokens have a standard deviation of 1.
        return mx.full(value.shape, value.shape[0] ** -0.25)
    if value.ndim == 1:
        return mx.ones(value.shape)
    if ".embed_tokens." in name:
        return mx.random.normal(value.shape, key=key) * 0.06
    scale = 0.5 if ".router." in name else value.shape[-1] ** -0.5
    return mx.random.normal(value.shape, key=key) * scale


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write_untrained(arguments.folder, seed=arguments.seed)
