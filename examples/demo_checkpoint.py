"""Write a small DiffusionGemma in Google's layout with random weights, tokenizer and template included.

    python examples/demo_checkpoint.py FOLDER

It generates noise, which shows the machinery and not a language model. The tokenizer is of Gemma's kind and trained
here: byte-pair merges over characters, bytes for other characters, the release's control tokens at the release's ids.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import mlx.core as mx
from tokenizers import Tokenizer, decoders, models, normalizers, trainers

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))
from random_checkpoint import write_checkpoint

VOCABULARY = 1024
CANVAS = 64
SURER_NORMS = {
    ".post_attention_layernorm.weight": 0.06,
    ".post_feedforward_layernorm.weight": 0.06,
    "decoder.norm.weight": 3.0,
}
"""End of a parameter's name -> the factor on its values."""
CONTROLS = {
    0: "<pad>", 1: "<eos>", 2: "<bos>", 3: "<unk>", 4: "<mask>",
    46: "<|tool>", 47: "<tool|>", 48: "<|tool_call>", 49: "<tool_call|>",
    50: "<|tool_response>", 51: "<tool_response|>", 52: '<|"|>',
    98: "<|think|>", 100: "<|channel>", 101: "<channel|>", 105: "<|turn>", 106: "<turn|>",
}  # fmt: skip
"""The release's control tokens at their ids; the ids between them are <unusedN>."""

SAMPLES = [
    "Hello! Who are you? What can you do? Why is the sky blue?\n",
    "def area(width, height):\n    return width * height\n",
    '{"name": "Ana", "age": 34, "city": "Rome"}\n',
    "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 + - = < > ( ) [ ]\n",
]
"""Text of the kinds that the license, which is the rest of the tokenizer's training text, has too little of."""

BYTES = [f"<0x{value:02X}>" for value in range(256)]
TEMPLATE = """\
{{ bos_token }}
{%- if enable_thinking or messages[0]['role'] == 'system' -%}
<|turn>system
{% if enable_thinking %}<|think|>
{% endif %}
{%- if messages[0]['role'] == 'system' %}
  {{- messages[0]['content'] | trim }}{% set messages = messages[1:] %}{% endif -%}
<turn|>
{% endif %}
{%- for message in messages -%}
<|turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}
{{ message['content'] | trim }}<turn|>
{% endfor %}
{%- if add_generation_prompt %}<|turn>model
{% endif -%}
"""


def write_demo(folder: Path, *, layers: int = 6, seed: int = 0) -> None:
    """Write a checkpoint of tiny layers for the converter or for `load`; its canvases converge."""
    write_checkpoint(folder, layers=layers, width="tiny", vocab_size=VOCABULARY, seed=seed)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"canvas_length": CANVAS}, indent=1))
    make_converge(folder)
    write_tokenizer(folder)


def make_converge(folder: Path) -> None:
    """Scale the norms so that layers add little and the head is sure: a token then mostly predicts itself.

    With unchanged random weights no canvas would converge, and there would be nothing to see.
    """
    for shard in folder.glob("*.safetensors"):
        weights = mx.load(str(shard))
        for name in weights:
            factor = next((factor for end, factor in SURER_NORMS.items() if name.endswith(end)), None)
            if factor is not None:
                weights[name] = (weights[name] * factor).astype(weights[name].dtype)
        mx.eval(weights)
        mx.save_safetensors(str(shard), weights)


def write_tokenizer(folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja, as the release has them."""
    folder.mkdir(parents=True, exist_ok=True)
    controls = [CONTROLS.get(token, f"<unused{token}>") for token in range(107)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=controls + BYTES, max_token_length=12, show_progress=False
    )
    license_text = (Path(__file__).parent.parent / "LICENSE").read_text(encoding="utf-8")
    tokenizer.train_from_iterator([*license_text.splitlines(keepends=True), *SAMPLES], trainer)
    content = json.loads(tokenizer.to_str())
    # The trainer reserves ids only for special tokens, but the pieces of bytes are ordinary tokens.
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in BYTES]
    (folder / "tokenizer.json").write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    names = {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False, **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
    (folder / "chat_template.jinja").write_text(TEMPLATE)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    write_demo(parser.parse_args().folder)
