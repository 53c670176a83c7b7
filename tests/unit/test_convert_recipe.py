"""Recipes: the class of each tensor, and the quantization of each class."""

from __future__ import annotations

import pytest
from mlx_diffgemma_convert.recipe import (
    MODULES,
    PRECISE,
    Recipe,
    make_quantization,
    make_recipe,
    parse_setting,
    tensor_class,
)

from mlx_diffgemma.checkpoint.quantization import Quantization
from mlx_diffgemma.errors import OptionError, QuantizationError

FOUR = Quantization(bits=4, group_size=64)
NAMES = {
    "model.decoder.embed_tokens.weight": "embed",
    "model.decoder.layers.0.self_attn.q_proj.weight": "attention",
    "model.decoder.layers.29.self_attn.o_proj.weight": "attention",
    "model.decoder.layers.0.self_attn.q_norm.weight": "other",
    "model.decoder.layers.3.mlp.down_proj.weight": "mlp",
    "model.decoder.layers.3.router.proj.weight": "router",
    "model.decoder.layers.3.router.scale": "other",
    "model.decoder.layers.3.router.per_expert_scale": "other",
    "model.decoder.layers.3.experts.gate_up_proj.weight": "experts",
    "model.decoder.layers.3.experts.down_proj.weight": "experts",
    "model.decoder.layers.3.layer_scalar": "other",
    "model.encoder.language_model.layers.3.layer_scalar": "other",
    "model.decoder.norm.weight": "other",
    "model.decoder.self_conditioning.gate_proj.weight": "conditioning",
    "model.decoder.self_conditioning.pre_norm.weight": "other",
    "model.encoder.vision_tower.encoder.layers.0.mlp.up_proj.linear.weight": "vision",
    "model.encoder.embed_vision.embedding_projection.weight": "vision",
}
ONE_OF_EACH = {tensor_class(name): name for name in NAMES}


def packings(recipe: Recipe) -> dict[str, Quantization | None]:
    return {name: recipe.at(ONE_OF_EACH[name]) for name in MODULES}


@pytest.mark.parametrize(("name", "expected"), NAMES.items())
def test_every_parameter_has_a_class(name: str, expected: str) -> None:
    assert tensor_class(name) == expected


def test_mixed_keeps_8_bits_where_every_token_passes() -> None:
    assert packings(make_recipe("mixed", FOUR, {})) == {
        **dict.fromkeys(("embed", "attention", "mlp", "router"), PRECISE),
        **dict.fromkeys(("experts", "conditioning"), FOUR),
    }


def test_mixed_stays_affine_and_in_groups_of_64_around_another_format() -> None:
    chosen = make_quantization("nvfp4", None, None)
    found = packings(make_recipe("mixed", chosen, {}))
    assert found["experts"] == chosen == Quantization(bits=4, group_size=16, mode="nvfp4")
    assert found["attention"] == Quantization(bits=8, group_size=64)


def test_uniform_packs_all_classes_alike_and_nothing_else() -> None:
    recipe = make_recipe("uniform", FOUR, {})
    assert set(packings(recipe).values()) == {FOUR}
    assert recipe.at(ONE_OF_EACH["other"]) is None
    assert recipe.at(ONE_OF_EACH["vision"]) is None


def test_small_packs_experts_in_3_bits_and_the_rest_as_chosen() -> None:
    found = packings(make_recipe("small", FOUR, {}))
    assert found.pop("experts") == Quantization(bits=3, group_size=64)
    assert set(found.values()) == {FOUR}
    assert packings(make_recipe("small", FOUR, {"experts": 5}))["experts"] == Quantization(bits=5, group_size=64)
    fixed = packings(make_recipe("small", make_quantization("mxfp4", None, None), {}))
    assert fixed["experts"] == Quantization(bits=3, group_size=64)


def test_a_setting_wins_over_the_recipe() -> None:
    found = packings(make_recipe("mixed", make_quantization("affine", 5, 32), {"attention": None, "embed": 6}))
    assert found["attention"] is None
    assert found["embed"] == Quantization(bits=6, group_size=32)
    assert found["mlp"] == PRECISE


def test_a_setting_in_bits_is_affine_in_groups_of_64_inside_another_format() -> None:
    found = packings(make_recipe("uniform", make_quantization("mxfp4", None, None), {"router": 8}))
    assert found["router"] == Quantization(bits=8, group_size=64)


def test_the_default_recipe_packs_nothing() -> None:
    assert set(packings(Recipe()).values()) == {None}


@pytest.mark.parametrize(
    ("mode", "bits", "group_size"), [("affine", 4, 64), ("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)]
)
def test_what_the_user_leaves_open_is_the_formats_own(mode: str, bits: int, group_size: int) -> None:
    assert make_quantization(mode, None, None) == Quantization(bits=bits, group_size=group_size, mode=mode)


def test_a_format_with_foreign_bits_is_refused() -> None:
    with pytest.raises(QuantizationError, match="mode mxfp4"):
        make_quantization("mxfp4", 8, None)


def test_settings_are_read() -> None:
    assert parse_setting("experts=bf16") == ("experts", None)
    assert parse_setting("embed=6") == ("embed", 6)
    assert parse_setting("experts=3") == ("experts", 3)


@pytest.mark.parametrize(
    ("text", "message"),
    [("norms=8", "no tensor class 'norms'"), ("embed", "set embed to bf16"), ("embed=7", "3, 4, 5, 6, 8 bits")],
)
def test_settings_that_cannot_be_meant_are_refused(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        parse_setting(text)
