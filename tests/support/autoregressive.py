"""A tiny autoregressive model for mlx-lm: its own llama with random weights, and the demo model's tokenizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.models.llama import Model, ModelArgs
from mlx_lm.utils import save_config, save_model

from mlx_diffgemma.checkpoint.hub import DEMO, model_folder

CONTEXT = 600
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


def write_llama(folder: Path, *, sampling: dict[str, Any] | None = None, template: bool = True) -> Path:
    """Write a model of two layers. `sampling` becomes generation_config.json; `template` copies the chat template."""
    config: dict[str, Any] = {
        "model_type": "llama",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "rms_norm_eps": 1e-6,
        "vocab_size": json.loads((model_folder(DEMO) / "config.json").read_text())["text_config"]["vocab_size"],
        "max_position_embeddings": CONTEXT,
        "eos_token_id": [1, 106],
        # If input and output shared one table, a token would mostly predict itself.
        "tie_word_embeddings": False,
    }
    mx.random.seed(0)
    save_model(folder, Model(ModelArgs.from_dict(config)))
    save_config(config, folder / "config.json")
    for name in TOKENIZER:
        if template or name != "chat_template.jinja":
            shutil.copy(model_folder(DEMO) / name, folder)
    if sampling is not None:
        (folder / "generation_config.json").write_text(json.dumps(sampling))
    return folder
