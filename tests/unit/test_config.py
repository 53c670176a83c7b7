"""config.json in its spellings, and what is said about one that does not fit."""

from __future__ import annotations

import json
import logging
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from tiny import PARITY, PUBLISHED

from mlx_diffgemma.checkpoint.defaults import load_generation_config
from mlx_diffgemma.errors import ConfigError, ModelNotFoundError
from mlx_diffgemma.files import read_json
from mlx_diffgemma.model.config import parse_config

RELEASE: dict[str, Any] = json.loads((PUBLISHED / "google.config.json").read_text())


def changed(**text: Any) -> dict[str, Any]:
    raw = deepcopy(RELEASE)
    raw["text_config"].update(text)
    return raw


def test_the_release_is_read_as_published() -> None:
    config = parse_config(RELEASE)
    assert (config.hidden_size, config.vocab_size, config.canvas_length) == (2816, 262_144, 256)
    assert (config.num_experts, config.top_k_experts, config.sliding_window) == (128, 8, 1024)
    assert [index for index, layer in enumerate(config.layers) if not layer.sliding] == [5, 11, 17, 23, 29]
    assert (config.layers[0].head_dim, config.layers[0].num_key_value_heads) == (256, 8)
    assert (config.layers[5].head_dim, config.layers[5].num_key_value_heads) == (512, 2)
    assert (config.sliding_rope_theta, config.full_rope_theta, config.full_rotary_factor) == (1e4, 1e6, 0.25)


def test_the_spelling_of_transformers_gives_the_same_configuration() -> None:
    raw = deepcopy(RELEASE)
    text = raw["text_config"]
    for key in ("global_head_dim", "num_global_key_value_heads", "final_logit_softcapping"):
        del text[key]
    text["per_layer_config"] = {str(i): {"head_dim": 512, "num_key_value_heads": 2} for i in (5, 11, 17, 23, 29)}
    assert parse_config(raw) == parse_config(RELEASE)


def test_a_checkpoint_saved_by_transformers_is_read() -> None:
    config = parse_config(read_json(PARITY / "seed-0" / "config.json"))
    assert [layer.head_dim for layer in config.layers] == [8, 8, 16, 8, 16]
    assert config.final_logit_softcapping == 30.0


@pytest.mark.parametrize(
    "key", ["vision_config", "audio_config", "video_token_id", "pad_token_id", "canvas_length", "eos_token_id"]
)
def test_absent_keys_that_have_a_meaning_of_their_own_are_not_required(key: str) -> None:
    raw = {name: value for name, value in RELEASE.items() if name != key}
    assert parse_config(raw) == parse_config(RELEASE)


def test_layer_types_default_to_five_sliding_and_one_full() -> None:
    raw = changed()
    del raw["text_config"]["layer_types"]
    assert parse_config(raw) == parse_config(RELEASE)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"hidden_size": "big"}, "hidden_size must be a positive whole number, not 'big'"),
        ({"hidden_size": 10**30}, "hidden_size must be a positive whole number"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps must be a positive number, not nan"),
        ({"num_hidden_layers": 10**6, "layer_types": None}, "is more than any model has"),
        ({"num_experts": 4}, "top_k_experts=8 is above num_experts=4"),
        ({"num_attention_heads": 12}, "layer 0 shares 8 key-value heads among 12 query heads"),
        ({"attention_bias": True}, "attention_bias=True is not supported"),
        ({"hidden_activation": "silu"}, "hidden_activation='silu' is not supported"),
        ({"use_bidirectional_attention": "all"}, "use_bidirectional_attention='all' is not supported"),
        ({"layer_types": ["full_attention"]}, "layer_types must list 30 layers"),
        ({"layer_types": ["linear_attention"] * 30}, "unknown layer type 'linear_attention'"),
        ({"layer_types": [{}] * 30}, "unknown layer type {}"),
        ({"per_layer_config": {"5": 3}}, "5 must be an object, not 3"),
        ({"per_layer_config": [5]}, "per_layer_config must be an object"),
        ({"rope_parameters": [1]}, "rope_parameters must be an object"),
        ({"rope_parameters": {"full_attention": 1}}, "full_attention must be an object"),
        (
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "proportional", "rope_theta": 1e6, "partial_rotary_factor": 4.0}
                }
            },
            "partial_rotary_factor=4.0 is above 1",
        ),
        ({"rope_parameters": {"full_attention": {"rope_type": "yarn"}}}, "rope_type 'yarn' of full_attention"),
    ],
)
def test_what_does_not_fit_is_named(text: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(changed(**text))


def test_another_kind_of_model_is_named() -> None:
    with pytest.raises(ConfigError, match=r"not a DiffusionGemma: config\.json has model_type 'llama'"):
        parse_config({"model_type": "llama"})


def test_untied_embeddings_are_refused() -> None:
    with pytest.raises(ConfigError, match="tie_word_embeddings=False is not supported"):
        parse_config(RELEASE | {"tie_word_embeddings": False})


def test_unknown_keys_are_ignored_with_a_warning_that_names_them(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        parse_config(changed(novel_attention=3) | {"novel_head": 1})
    assert "novel_attention" in caplog.text
    assert "novel_head" in caplog.text


def test_known_configs_give_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    for path in [*PUBLISHED.glob("*.config.json"), PARITY / "seed-0" / "config.json"]:
        parse_config(read_json(path))
    assert caplog.text == ""


@pytest.mark.parametrize("content", ["{", "[1]", '"text"', "\xff\xfe", "[" * 100_000, '{"a": ' + "1" * 5000 + "}"])
def test_broken_json_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"config\.json"):
        read_json(tmp_path / "config.json")


def test_a_folder_without_a_config_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json"):
        read_json(tmp_path / "config.json")


def test_generation_options_come_from_their_file_before_the_config(tmp_path: Path) -> None:
    raw = {"eos_token_id": [1, 106], "generation_config": {"max_new_tokens": 7}}
    assert load_generation_config(tmp_path, raw).max_tokens == 7
    assert load_generation_config(tmp_path, raw).stop_tokens == (1, 106)
    (tmp_path / "generation_config.json").write_text('{"max_new_tokens": 9, "eos_token_id": 50}')
    assert load_generation_config(tmp_path, raw).max_tokens == 9
    assert load_generation_config(tmp_path, raw).stop_tokens == (50,)
