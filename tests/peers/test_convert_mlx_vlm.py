"""mlx-vlm 0.7.10 loads a converted folder, for all options, and its parameters have the bits of the files."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import mlx.core as mx
import pytest
from convert_helpers import edit_json, options, run, tensors, tiny_source
from mlx.utils import tree_flatten
from mlx_diffgemma_convert.recipe import Recipe, make_quantization, make_recipe
from mlx_vlm.utils import load_model

from mlx_diffgemma.files import read_json

FOUR = make_quantization("affine", 4, None)
RECIPES = {
    "4 bits": make_recipe("mixed", FOUR, {}),
    "6 bits, groups of 32": make_recipe("uniform", make_quantization("affine", 6, 32), {}),
    "8 bits": make_recipe("mixed", make_quantization("affine", 8, None), {}),
    "mxfp4": make_recipe("mixed", make_quantization("mxfp4", None, None), {}),
    "mxfp8": make_recipe("uniform", make_quantization("mxfp8", None, None), {}),
    "nvfp4": make_recipe("mixed", make_quantization("nvfp4", None, None), {}),
    "experts in bf16": make_recipe("mixed", FOUR, {"experts": None}),
    "embedding in bf16, attention at 6": make_recipe("mixed", FOUR, {"embed": None, "attention": 6}),
    "nothing packed": Recipe(),
}


def check_loads(folder: Path) -> None:
    """Load a folder strictly with mlx-vlm; compare the name, dtype and bits of every parameter with the files."""
    model = load_model(folder)
    loaded = dict(tree_flatten(model.parameters()))
    held = tensors(folder)
    assert loaded.keys() == held.keys()
    for name, array in held.items():
        assert loaded[name].dtype == array.dtype, name
        assert mx.array_equal(loaded[name].view(mx.uint8), array.view(mx.uint8)), name


def test_this_is_the_release_we_promise() -> None:
    assert version("mlx-vlm") == "0.7.10"


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("vision", [True, False], ids=["vision", "text only"])
def test_mlx_vlm_loads_the_result(tmp_path: Path, name: str, vision: bool) -> None:
    source = tiny_source(tmp_path / "source", vision=vision)
    run(replace(options(source, tmp_path / "result", RECIPES[name]), max_shard_bytes=200_000))
    check_loads(tmp_path / "result")


def test_mlx_vlm_loads_what_transformers_saved_once_it_is_converted(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source", vision=True)
    text = read_json(source / "config.json")["text_config"]
    full = {"head_dim": text.pop("global_head_dim"), "num_key_value_heads": text.pop("num_global_key_value_heads")}
    edit_json(source / "config.json", {"text_config": {**text, "per_layer_config": {"2": full}}})
    run(options(source, tmp_path / "result"))
    check_loads(tmp_path / "result")
