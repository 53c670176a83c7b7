"""The peer: mlx-vlm 0.7.10 and this runtime read each other's conversions and compute the same logits from them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from demo_checkpoint import write_demo
from mlx_vlm.utils import load_model as load_with_mlx_vlm
from peer import assert_same_logits
from random_checkpoint import write_checkpoint
from tiny import denoised, encoded

from mlx_diffgemma.checkpoint.weights import load_model

# The tokenizer and the processor have no part in this; mlx-vlm's converter insists on one.
CONVERT = """
import importlib, sys
class NoProcessor:
    def save_pretrained(self, *_, **__): pass
importlib.import_module("mlx_vlm.utils").load_processor = lambda *_, **__: NoProcessor()
options = dict(option.split("=") for option in sys.argv[3:])
whole = {name: int(value) if value.isdigit() else value for name, value in options.items()}
importlib.import_module("mlx_vlm.convert").convert(sys.argv[1], sys.argv[2], quantize=True, **whole)
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlx-vlm") / "source"
    write_checkpoint(folder, layers=4, width="tiny", vision=True)
    return folder


@pytest.mark.parametrize("options", [["--bits", "4"], ["--bits", "6", "--recipe", "uniform"], ["--no-quantize"]])
def test_both_compute_the_same_from_our_conversion(source: Path, tmp_path: Path, options: list[str]) -> None:
    folder = tmp_path / "ours"
    command = [sys.executable, "-m", "mlx_diffgemma.convert", str(source), str(folder), "--quiet", *options]
    subprocess.run(command, check=True, timeout=120)
    assert_same_logits(folder)


@pytest.mark.parametrize(
    "options",
    [["q_bits=4"], ["q_bits=8"], ["q_bits=4", "q_mode=mxfp4", "q_group_size=32"], ["q_mode=nvfp4", "q_group_size=16"]],
)
def test_both_compute_the_same_from_mlx_vlms_conversion(source: Path, tmp_path: Path, options: list[str]) -> None:
    folder = tmp_path / "theirs"
    command = [sys.executable, "-c", CONVERT, str(source), str(folder), *options]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    assert_same_logits(folder)


def test_bfloat16_is_as_near_to_float32_as_mlx_vlms(tmp_path: Path) -> None:
    """Rounding to 8 bits can send a token to another expert, so near is relative: to what the peer's rounding does."""
    write_demo(tmp_path / "source")
    folder = tmp_path / "4bit"
    command = [sys.executable, "-m", "mlx_diffgemma.convert", str(tmp_path / "source"), str(folder), "--quiet"]
    subprocess.run(command, check=True, timeout=120)
    tokens = mx.random.randint(0, 1000, (1, 40), key=mx.random.key(0))
    canvas = mx.random.randint(0, 1000, (1, 64), key=mx.random.key(1))

    def ours(dtype: str) -> mx.array:
        model = load_model(folder, dtype)
        cache = model.make_cache()
        encoded(model, tokens, cache)
        return denoised(model, canvas, cache)

    def theirs(dtype: mx.Dtype) -> mx.array:
        model = load_with_mlx_vlm(folder)
        model.set_dtype(dtype)
        return model(input_ids=tokens, canvas_ids=canvas).logits.astype(mx.float32)

    exact = ours("float32")
    assert distance(theirs(mx.float32), exact) < 1e-4
    assert distance(ours("bfloat16"), exact) < 1.5 * distance(theirs(mx.bfloat16), exact)


def distance(found: mx.array, expected: mx.array) -> float:
    """Norm of the difference over the norm of what is expected."""
    return (mx.linalg.norm((found - expected).flatten()) / mx.linalg.norm(expected.flatten())).item()
