"""Adapters as PEFT writes them, and what they add to the weights by PEFT's formula."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

PREFIX = {"decoder": "model.decoder.", "encoder": "model.encoder.language_model."}
Factors = tuple[mx.array, mx.array]
"""A [r, in] and B [out, r]"""
SETTINGS: dict[str, Any] = {
    "peft_type": "LORA",
    "r": 4,
    "lora_alpha": 6,
    "bias": "none",
    "use_dora": False,
    "use_rslora": False,
    "modules_to_save": None,
    "target_modules": ["q_proj", "up_proj"],
    "init_lora_weights": True,
    "alpha_pattern": {},
    "rank_pattern": {},
}


def factors(shapes: Mapping[str, Sequence[int]], rank: int = 4, seed: int = 0) -> dict[str, Factors]:
    """Return random factors for linear maps: path in the decoder -> shape (out, in)."""
    keys = iter(mx.random.split(mx.random.key(seed), 2 * len(shapes)))
    return {
        path: (
            0.3 * mx.random.normal((rank, columns), key=next(keys)),
            0.3 * mx.random.normal((rows, rank), key=next(keys)),
        )
        for path, (rows, columns) in shapes.items()
    }


def write_peft(
    folder: Path, *, name: str = "base_model.model.{}.lora_{}.weight", extra: Mapping[str, mx.array] | None = None,
    changes: Mapping[str, Mapping[str, Factors]], **settings: Any,
) -> Path:  # fmt: skip
    """Write an adapter. changes: "encoder" or "decoder" -> path -> factors; settings: what differs from SETTINGS."""
    tensors = {
        name.format(PREFIX[mode] + path, letter): factor
        for mode, found in changes.items()
        for path, pair in found.items()
        for letter, factor in zip("AB", pair, strict=True)
    }
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / "adapter_model.safetensors"), {**tensors, **(extra or {})})
    (folder / "adapter_config.json").write_text(json.dumps({**SETTINGS, **settings}))
    return folder
