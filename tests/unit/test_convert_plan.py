"""Plans made from headers: compared with the published layouts, and every check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from convert_helpers import MIXED_4
from mlx_diffgemma_convert.plan import ConversionPlan, make_plan
from mlx_diffgemma_convert.recipe import Recipe, make_quantization, make_recipe
from mlx_diffgemma_convert.shards import Entry, group_into_shards, index_contents, lay_out
from mlx_diffgemma_convert.sidecar import output_config
from tiny import PUBLISHED

from mlx_diffgemma.checkpoint.names import CheckpointTensors, sort_tensors
from mlx_diffgemma.checkpoint.safetensors import ITEM_BYTES, TensorInfo
from mlx_diffgemma.errors import ConvertError, QuantizationError, WeightsError
from mlx_diffgemma.model.config import parse_config

RELEASE: dict[str, Any] = json.loads((PUBLISHED / "google.config.json").read_text())
RELEASE_SHAPES: dict[str, list[int]] = {
    name: shape for name, (shape, _) in json.loads((PUBLISHED / "google.shapes.json").read_text()).items()
}
DTYPES = {"U32": "uint32", "U8": "uint8", "BF16": "bfloat16"}
NEWEST = "mlx-0710_4bit"
VISION_PROJECTION = "model.encoder.embed_vision.embedding_projection"
"""Quantized in all published layouts but the newest; our converter keeps it in bf16."""


def contents(shapes: dict[str, list[int]], dtype: str = "BF16") -> CheckpointTensors:
    """Return a source that has these tensors, without files."""
    return sort_tensors(
        {
            name: TensorInfo(name=name, file=Path("nowhere"), dtype=dtype, shape=tuple(shape), offset=0)
            for name, shape in shapes.items()
        }
    )


def release_plan(recipe: Recipe, max_bytes: int = 5_000_000_000) -> ConversionPlan:
    return make_plan(contents(RELEASE_SHAPES), parse_config(RELEASE), recipe, "BF16", max_bytes)


def published(name: str, what: str) -> dict[str, Any]:
    return json.loads((PUBLISHED / f"{name}.{what}.json").read_text())


@pytest.mark.parametrize(
    ("name", "mode", "bits"),
    [
        (NEWEST, "affine", 4),
        ("mlx-f044_4bit", "affine", 4),
        ("mlx-f044_mxfp4", "mxfp4", None),
        ("mlx-f044_nvfp4", "nvfp4", None),
        ("mlx-063_8bit", "affine", 8),
    ],
)
def test_mixed_gives_the_published_names_shapes_and_dtypes(name: str, mode: str, bits: int | None) -> None:
    plan = release_plan(make_recipe("mixed", make_quantization(mode, bits, None), {}))
    ours = {entry.name: [list(entry.shape), DTYPES[entry.dtype]] for shard, _ in plan.shards for entry in shard.entries}
    theirs = published(name, "shapes")
    different = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
    allowed = {f"{VISION_PROJECTION}.{part}" for part in ("weight", "scales", "biases")} if name != NEWEST else set()
    assert different <= allowed


def test_mixed_gives_the_published_config() -> None:
    generation = json.loads((PUBLISHED / "generation_config.json").read_text())
    found = output_config(RELEASE, parse_config(RELEASE), release_plan(MIXED_4), "BF16", generation)
    expected = published(NEWEST, "config")
    assert found == {**expected, "quantization_config": expected["quantization"]}


def test_shards_hold_at_most_what_was_asked_and_keep_a_parameter_together() -> None:
    plan = release_plan(MIXED_4)
    assert [shard.name for shard, _ in plan.shards] == [f"model-{i:05}-of-00004.safetensors" for i in range(1, 5)]
    for shard, parameters in plan.shards:
        assert sum(entry.nbytes for entry in shard.entries) <= 5_000_000_000
        assert {entry.name for entry in shard.entries} == {e.name for p in parameters for e in p.entries}


def test_a_parameter_larger_than_a_shard_gets_one_of_its_own() -> None:
    large, small = Entry(name="a", dtype="U8", shape=(100,)), Entry(name="b", dtype="U8", shape=(4,))
    assert group_into_shards([[small], [large], [small], [small]], 8) == [[[small]], [[large]], [[small], [small]]]


def test_every_tensor_starts_at_a_multiple_of_its_width_and_none_overlap() -> None:
    entries = [
        Entry(name="scalar", dtype="BF16", shape=(1,)),
        Entry(name="packed", dtype="U32", shape=(3, 2)),
        Entry(name="scales", dtype="U8", shape=(5,)),
    ]
    (shard,) = lay_out([[entries]])
    position = len(shard.header)
    for entry in shard.entries:
        assert shard.offsets[entry.name] == position
        assert position % ITEM_BYTES[entry.dtype] == 0
        position += entry.nbytes
    assert shard.size == position
    assert index_contents([shard])["metadata"]["total_size"] == 2 + 24 + 5


def test_a_missing_tensor_is_named() -> None:
    shapes = {name: shape for name, shape in RELEASE_SHAPES.items() if "layers.7.mlp.up" not in name}
    with pytest.raises(WeightsError, match=r"no model\.decoder\.layers\.7\.mlp\.up_proj\.weight"):
        make_plan(contents(shapes), parse_config(RELEASE), MIXED_4, "BF16", 10**9)


def test_an_unknown_tensor_is_named() -> None:
    with pytest.raises(WeightsError, match=r"unknown tensor model\.extra\.weight"):
        make_plan(
            contents({**RELEASE_SHAPES, "model.extra.weight": [1]}), parse_config(RELEASE), MIXED_4, "BF16", 10**9
        )


def test_a_tensor_of_another_shape_is_named() -> None:
    name = "model.decoder.norm.weight"
    with pytest.raises(
        WeightsError, match=r"model\.decoder\.norm\.weight is \[2815\], but config\.json implies \[2816\]"
    ):
        make_plan(contents({**RELEASE_SHAPES, name: [2815]}), parse_config(RELEASE), MIXED_4, "BF16", 10**9)


def test_a_packed_source_is_refused() -> None:
    shapes = {**RELEASE_SHAPES, "model.decoder.embed_tokens.scales": [262144, 44]}
    with pytest.raises(ConvertError, match="already quantized"):
        make_plan(contents(shapes), parse_config(RELEASE), MIXED_4, "BF16", 10**9)


def test_a_source_in_float8_is_refused() -> None:
    with pytest.raises(ConvertError, match="is F8_E4M3: convert a checkpoint in BF16, F16, F32"):
        make_plan(contents(RELEASE_SHAPES, "F8_E4M3"), parse_config(RELEASE), MIXED_4, "BF16", 10**9)


def test_rows_that_the_groups_do_not_divide_are_named() -> None:
    with pytest.raises(
        QuantizationError, match=r"down_proj\.weight has rows of 2112 values, which groups of 128 do not divide"
    ):
        release_plan(make_recipe("uniform", make_quantization("affine", 4, 128), {}))
