"""Compare one sliding and one full layer of the release's width with transformers, in float32 on the CPU.

    pip install -e '.[oracle]' && python benchmarks/run.py parity SCRATCH

The tests' fixtures are narrow; this comparison has the release's heads of 256 and 512, its 128 experts, its window and
the whole vocabulary. It takes minutes, 7 GB in SCRATCH and 15 GB of memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from random_checkpoint import write_checkpoint

PREFIX, CHUNK, CANVAS, VOCABULARY = 1100, 300, 32, 262_144
VISION = {
    "model_type": "gemma4_vision", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 4, "global_head_dim": 4,
    "position_embedding_size": 4,
}  # fmt: skip
"""The smallest vision tower; transformers cannot build the model without one."""


def reference(scratch: Path) -> None:
    """Record what transformers computes; called in its own process, so that its memory is freed afterwards."""
    import torch
    from safetensors.torch import save_file
    from transformers import DiffusionGemmaForBlockDiffusion

    model = DiffusionGemmaForBlockDiffusion.from_pretrained(
        scratch / "model", dtype=torch.float32, attn_implementation="eager"
    )
    torch.manual_seed(0)
    tokens = torch.randint(0, VOCABULARY, (1, PREFIX))
    canvas = torch.randint(0, VOCABULARY, (1, CANVAS))
    processed = 3 * torch.randn(1, CANVAS, VOCABULARY)
    with torch.no_grad():
        plain = model(input_ids=tokens, decoder_input_ids=canvas)
        conditioned = model(
            past_key_values=plain.past_key_values, decoder_input_ids=canvas, self_conditioning_logits=processed
        )
    recorded = {
        "tokens": tokens,
        "canvas": canvas,
        "processed": processed,
        "hidden": plain.encoder_last_hidden_state,
        "logits": plain.logits,
        "conditioned": conditioned.logits,
    }
    save_file(recorded, scratch / "reference.safetensors")


def compare(scratch: Path) -> None:
    """Print the differences relative to the largest value, after a prefill in chunks."""
    import mlx.core as mx

    from mlx_diffgemma.checkpoint.weights import load_model
    from mlx_diffgemma.model.diffusion_gemma import CanvasRow
    from mlx_diffgemma.model.logits import ProcessedLogits

    recorded = mx.load(str(scratch / "reference.safetensors"))
    model = load_model(scratch / "model", "float32")
    cache = model.make_cache()
    chunks = [recorded["tokens"][:, start : start + CHUNK] for start in range(0, PREFIX, CHUNK)]
    hidden = mx.concatenate([model.encode([chunk], [cache])[0] for chunk in chunks], axis=1)
    worst = mx.max(mx.abs(hidden - recorded["hidden"]), axis=-1)[0] / mx.max(mx.abs(recorded["hidden"]))
    ranked = sorted(worst.tolist())
    print(f"hidden states of {PREFIX} positions: largest differences {ranked[-3:]}, median {ranked[PREFIX // 2]}")
    signal = model.signal(ProcessedLogits.of(recorded["processed"], model.kernels))
    for name, own in {"logits": None, "conditioned": signal}.items():
        (denoised,) = model.denoise([CanvasRow(recorded["canvas"], cache, own)])
        logits = model.logits(denoised)
        largest = mx.max(mx.abs(recorded[name]))
        equal = mx.mean((mx.argmax(logits, -1) == mx.argmax(recorded[name], -1)).astype(mx.float32))
        print(f"{name}: {(mx.max(mx.abs(logits - recorded[name])) / largest).item()}, argmax equal {equal.item():.1%}")


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Make the checkpoint if SCRATCH has none, record, compare."""
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--record", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    model = arguments.scratch / "model"
    if arguments.record:
        reference(arguments.scratch)
        return
    if not (model / "config.json").exists():
        write_checkpoint(model, layers=2, width="full")
        config = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | {"vision_config": VISION}))
    subprocess.run(
        [sys.executable, str(Path(__file__).with_name("run.py")), "parity", str(arguments.scratch), "--record"],
        check=True,
    )
    compare(arguments.scratch)
