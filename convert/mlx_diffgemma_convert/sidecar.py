"""The files beside tensors and model card: config.json in Google's spelling, the index, copied files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_diffgemma.checkpoint.folder import INDEX
from mlx_diffgemma.errors import ConfigError, ConvertError
from mlx_diffgemma.files import read_json
from mlx_diffgemma.model.config import ModelConfig, Raw
from mlx_diffgemma_convert.plan import ConversionPlan, has_vision
from mlx_diffgemma_convert.recipe import DTYPE_NAMES
from mlx_diffgemma_convert.shards import index_contents
from mlx_diffgemma_convert.writer import write_bytes, write_text

GENERATION = "generation_config.json"
COPIED = (
    GENERATION,
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "processor_config.json",
    "preprocessor_config.json",
)
"""Files that are copied if the source has them."""
TOKENIZERS = ("tokenizer.json", "tokenizer.model")


def copied_files(source: Path) -> list[Path]:
    """Return the files of `source` that are copied into the result. Raises ConfigError for a broken JSON file."""
    files = [source / name for name in COPIED if (source / name).is_file()]
    for file in files:
        if file.suffix == ".json":
            read_json(file)
    return files


def generation_defaults(source: Path, raw: Raw) -> Mapping[str, Any] | None:
    """Return the generation config from its own file or from config.json, None if the source has none."""
    if (source / GENERATION).is_file():
        return read_json(source / GENERATION)
    return raw.get("generation_config")


def write_sidecar(
    source: Path, folder: Path, config: Mapping[str, Any], generation: Mapping[str, Any] | None, plan: ConversionPlan
) -> None:
    """Write the index and the configurations into `folder`, and copy the other files. Raises ConvertError."""
    if generation is not None and not (source / GENERATION).is_file():
        write_text(folder / GENERATION, json.dumps(generation, indent=2) + "\n")
    for file in copied_files(source):
        try:
            contents = file.read_bytes()
        except OSError as error:
            raise ConvertError(f"{file} cannot be read: {error.strerror}") from None
        write_bytes(folder / file.name, contents)
    shards = [shard for shard, _ in plan.shards]
    write_text(folder / INDEX, json.dumps(index_contents(shards), indent=2) + "\n")
    write_text(folder / "config.json", json.dumps(config, indent=2, sort_keys=True) + "\n")


def output_config(
    raw: Raw, config: ModelConfig, plan: ConversionPlan, dtype: str, generation: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the result's config.json: Google's spelling, with the quantization table and the generation defaults.

    Raises ConfigError if layers of one kind differ, because that spelling has one value for all of them.
    """
    dropped = ("quantization", "quantization_config", "torch_dtype", "generation_config")
    result: dict[str, Any] = {key: value for key, value in raw.items() if key not in dropped}
    result["dtype"] = DTYPE_NAMES[dtype]
    result["text_config"] = _text_config(raw["text_config"], config, dtype)
    if not has_vision(plan):
        result["vision_config"] = None
    if generation is not None:
        result["generation_config"] = dict(generation)
        # The generation config lists every token that ends an answer; config.json lacks the end of a tool call.
        result["eos_token_id"] = generation.get("eos_token_id") or raw.get("eos_token_id")
    if plan.table is not None:
        # Both names are needed: mlx-lm and mlx-vlm read the first, the Hub shows the second.
        result["quantization"] = result["quantization_config"] = plan.table.to_dict()
    return result


def _text_config(raw: Raw, config: ModelConfig, dtype: str) -> dict[str, Any]:
    result = {key: value for key, value in raw.items() if key not in ("per_layer_config", "torch_dtype")}
    sliding = {(layer.head_dim, layer.num_key_value_heads) for layer in config.layers if layer.sliding}
    full = {(layer.head_dim, layer.num_key_value_heads) for layer in config.layers if not layer.sliding}
    if len(sliding) > 1 or len(full) > 1:
        raise ConfigError("config.json: all layers of one kind must have the same head_dim and num_key_value_heads")
    head_dim, heads = sliding.pop() if sliding else (raw["head_dim"], raw["num_key_value_heads"])
    global_head_dim, global_heads = full.pop()
    return {
        **result,
        "dtype": DTYPE_NAMES[dtype],
        "head_dim": head_dim,
        "num_key_value_heads": heads,
        "global_head_dim": global_head_dim,
        "num_global_key_value_heads": global_heads,
        "final_logit_softcapping": config.final_logit_softcapping,
        "layer_types": [layer.kind for layer in config.layers],
    }
