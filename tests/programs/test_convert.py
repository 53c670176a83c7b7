"""Whole conversions of tiny checkpoints in every spelling: the contents of the result."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import pytest
from convert_helpers import (
    EXPERTS,
    MIXED_4,
    SMALL_SHARDS,
    edit_json,
    equal,
    files,
    options,
    rewrite,
    run,
    tensors,
    tiny_source,
)
from mlx.utils import tree_flatten
from mlx_diffgemma_convert.best_recipe import CANDIDATES, Candidate, memory_for
from mlx_diffgemma_convert.plan import make_plan
from mlx_diffgemma_convert.recipe import Recipe, RecipeName, make_quantization, make_recipe
from tiny import denoised, encoded

from mlx_diffgemma import load
from mlx_diffgemma.checkpoint.folder import read_folder
from mlx_diffgemma.checkpoint.names import sort_tensors
from mlx_diffgemma.checkpoint.quantization import parse_table
from mlx_diffgemma.checkpoint.weights import load_model, open_checkpoint
from mlx_diffgemma.files import read_json
from mlx_diffgemma.model.config import parse_config

SMALL = make_recipe("small", make_quantization("affine", 4, None), {})


def our_name(name: str) -> str:
    return f"{name}.weight" if EXPERTS.fullmatch(name) else name


@pytest.mark.parametrize(
    ("mode", "bits", "group_size", "kind"),
    [
        ("affine", 4, 64, "mixed"),
        ("affine", 5, 64, "mixed"),
        ("affine", 6, 32, "mixed"),
        ("affine", 8, 64, "uniform"),
        ("mxfp4", None, None, "mixed"),
        ("mxfp8", None, None, "uniform"),
        ("nvfp4", None, None, "mixed"),
        ("affine", 4, 64, "small"),
    ],
)
def test_every_tensor_is_what_mlx_makes_of_the_whole(
    tmp_path: Path, mode: str, bits: int | None, group_size: int | None, kind: RecipeName
) -> None:
    source = tiny_source(tmp_path / "source", vision=True, layers=2)
    recipe = make_recipe(kind, make_quantization(mode, bits, group_size), {})
    run(options(source, tmp_path / "result", recipe))
    found = tensors(tmp_path / "result")
    expected: dict[str, mx.array] = {}
    for original, value in tensors(source).items():
        name = our_name(original)
        quantization = recipe.at(name)
        if quantization is None:
            expected[name] = value
            continue
        packed = mx.quantize(value, group_size=quantization.group_size, bits=quantization.bits, mode=quantization.mode)
        for part, array in zip(("weight", "scales", "biases"), packed, strict=False):
            expected[f"{name.removesuffix('.weight')}.{part}"] = array
    assert found.keys() == expected.keys()
    assert [name for name in found if not equal(found[name], expected[name])] == []


def test_nothing_is_packed_where_nothing_is_asked(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source", vision=True)
    lines = run(options(source, tmp_path / "result", Recipe()))
    found = tensors(tmp_path / "result")
    assert all(equal(found[our_name(name)], value) for name, value in tensors(source).items())
    assert "quantization" not in read_json(tmp_path / "result" / "config.json")
    assert {line.error for line in lines.values()} == {0.0, None}


def test_one_class_can_stay_in_bf16(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source")
    recipe = make_recipe("mixed", make_quantization("affine", 4, None), {"experts": None, "embed": 4})
    run(options(source, tmp_path / "result", recipe))
    found = tensors(tmp_path / "result")
    assert "model.decoder.layers.0.experts.down_proj.scales" not in found
    assert found["model.decoder.layers.0.experts.down_proj.weight"].dtype == mx.bfloat16
    assert found["model.decoder.embed_tokens.weight"].shape == (512, 64 * 4 // 32)


@pytest.mark.parametrize(("dtype", "array_dtype"), [("F16", mx.float16), ("F32", mx.float32)])
def test_dtype_is_that_of_scales_and_norms_but_not_of_the_vision_tower(
    tmp_path: Path, dtype: str, array_dtype: mx.Dtype
) -> None:
    source = tiny_source(tmp_path / "source", vision=True)
    run(replace(options(source, tmp_path / "result"), dtype=dtype))
    found, before = tensors(tmp_path / "result"), tensors(source)
    vision = {name for name in before if "vision" in name}
    assert len(vision) == 31
    assert all(equal(found[name], before[name]) for name in vision)
    assert {found[name].dtype for name in found.keys() - vision} == {array_dtype, mx.uint32}
    config = read_json(tmp_path / "result" / "config.json")
    assert config["dtype"] == config["text_config"]["dtype"] == str(array_dtype).rpartition(".")[2]


def test_the_shards_agree_with_the_index(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source")
    run(replace(options(source, tmp_path / "result"), max_shard_bytes=SMALL_SHARDS))
    index = read_json(tmp_path / "result" / "model.safetensors.index.json")
    held = read_folder(tmp_path / "result")
    assert index["weight_map"] == {name: info.file.name for name, info in sorted(held.items())}
    assert index["metadata"]["total_size"] == sum(info.nbytes for info in held.values())
    names = sorted(path.name for path in (tmp_path / "result").glob("*.safetensors"))
    assert names == [f"model-{i:05}-of-{len(names):05}.safetensors" for i in range(1, len(names) + 1)]
    assert len(names) > 3
    for file in (tmp_path / "result").glob("*.safetensors"):
        assert mx.load(str(file), return_metadata=True)[1] == {"format": "mlx"}


def test_config_carries_packing_and_generation_defaults(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source")
    edit_json(source / "generation_config.json", {"max_denoising_steps": 12, "eos_token_id": [1, 106, 50, 7]})
    run(options(source, tmp_path / "result"))
    config = read_json(tmp_path / "result" / "config.json")
    assert config["quantization"] == config["quantization_config"]
    table = parse_table(config)
    assert table is not None
    for name, array in tensors(tmp_path / "result").items():
        path, _, part = name.rpartition(".")
        if part == "scales":
            assert table.at(path) == MIXED_4.at(f"{path}.weight"), array.shape
    assert config["generation_config"]["max_denoising_steps"] == 12
    assert config["eos_token_id"] == [1, 106, 50, 7]
    assert config["vision_config"] is None
    assert (tmp_path / "result" / "generation_config.json").read_bytes() == (
        source / "generation_config.json"
    ).read_bytes()


def test_tokenizer_and_template_are_copied_and_strange_files_are_not(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source")
    wanted = {
        "tokenizer.json": "{}",
        "tokenizer.model": "sp",
        "chat_template.jinja": "{{ x }}",
        "processor_config.json": "{}",
    }
    for name, text in {**wanted, "README.md": "theirs", "optimizer.pt": "x", "trainer_state.json": "{}"}.items():
        (source / name).write_text(text)
    run(options(source, tmp_path / "result"))
    found = files(tmp_path / "result")
    assert {name: found[name].decode() for name in wanted} == wanted
    assert "optimizer.pt" not in found and "trainer_state.json" not in found and "progress.json" not in found
    assert not found["README.md"].startswith(b"theirs")


def test_the_card_names_base_model_license_command_and_classes(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source")
    (source / "README.md").write_text("---\nlicense: gemma\nlicense_link: https://example.org/terms\ntags: []\n---\n")
    run(replace(options(source, tmp_path / "result"), name="someone/fine-tune", repository=True, target="me/four-bit"))
    card = (tmp_path / "result" / "README.md").read_text()
    front, body = card.split("---\n")[1:3]
    for line in (
        "license: gemma",
        "license_link: https://example.org/terms",
        "library_name: mlx",
        "pipeline_tag: text-generation",
    ):
        assert f"{line}\n" in front
    assert "base_model: someone/fine-tune\nbase_model_relation: quantized\n" in front
    assert 'mlx_diffgemma.generate --model me/four-bit "' in body
    assert "| experts | 4 bits, group 64 |" in body
    assert "| embed | 8 bits, group 64 |" in body


def test_the_card_of_a_local_folder_claims_neither_a_base_model_nor_a_license(tmp_path: Path) -> None:
    run(options(tiny_source(tmp_path / "source"), tmp_path / "result"))
    card = (tmp_path / "result" / "README.md").read_text()
    front, body = card.split("---\n")[1:3]
    assert "license" not in front
    assert "base_model" not in front
    assert "Converted from the local folder `source` with" in body
    assert "google" not in card


def test_the_closing_lines_add_up(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source", vision=True)
    lines = run(replace(options(source, tmp_path / "result"), max_shard_bytes=SMALL_SHARDS))
    total = lines.pop("total")
    held = read_folder(tmp_path / "result")
    assert total.nbytes == sum(line.nbytes for line in lines.values()) == sum(i.nbytes for i in held.values())
    assert total.values == sum(line.values for line in lines.values()) == sum(a.size for a in tensors(source).values())
    assert lines["experts"].bits_per_weight == 4.5
    assert lines["attention"].bits_per_weight == 8.5
    assert 0.05 < (lines["experts"].error or 0) < 0.15
    assert 0.002 < (lines["attention"].error or 0) < 0.02
    assert lines["other"].error == lines["vision"].error == 0


def test_small_says_what_its_experts_lose(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source")
    lines = run(options(source, tmp_path / "result", SMALL))
    assert [lines[name].packing for name in ("experts", "attention")] == ["3 bits, group 64", "4 bits, group 64"]
    assert [lines[name].bits_per_weight for name in ("experts", "attention")] == [3.5, 4.5]
    assert (lines["experts"].error or 0) > 1.5 * (lines["attention"].error or 0) > 0.05


@pytest.mark.parametrize("candidate", CANDIDATES, ids=lambda candidate: candidate.name)
def test_sizes_are_foretold_from_headers(tmp_path: Path, candidate: Candidate) -> None:
    source, result = tiny_source(tmp_path / "source", vision=True), tmp_path / "result"
    config = parse_config(read_json(source / "config.json"))
    plan = make_plan(sort_tensors(read_folder(source)), config, candidate.recipe, "BF16", SMALL_SHARDS)
    run(replace(options(source, result, candidate.recipe), max_shard_bytes=SMALL_SHARDS))
    assert plan.nbytes == sum(file.stat().st_size for file in result.glob("*.safetensors"))
    text = sum(array.nbytes for name, array in tensors(result).items() if "vision" not in name)
    assert memory_for(plan, config).weights == text
    held = sum(array.nbytes for _, array in tree_flatten(load_model(result).parameters()))
    assert open_checkpoint(result).weight_bytes == held > text, "a CPU holds scales in float32"


def test_an_entry_that_merging_left_over_plain_weights_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tiny_source(tmp_path / "source")
    run(options(source, tmp_path / "expected"))
    edit_json(source / "config.json", {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}})
    run(options(source, tmp_path / "result"))
    assert "ignoring quantization_config in config.json: the files hold no packed weights" in caplog.messages
    for name in ("config.json", "model.safetensors.index.json"):
        assert (tmp_path / "result" / name).read_bytes() == (tmp_path / "expected" / name).read_bytes()


def test_what_transformers_saves_gives_the_same_result(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source")
    run(options(source, tmp_path / "expected"))
    text = read_json(source / "config.json")["text_config"]
    full = {"head_dim": text.pop("global_head_dim"), "num_key_value_heads": text.pop("num_global_key_value_heads")}
    del text["final_logit_softcapping"]
    text["per_layer_config"] = {"2": full}
    edit_json(source / "config.json", {"text_config": text})
    saved = tensors(source)
    copies = {
        name.replace("model.decoder.", "model.encoder.language_model."): value
        for name, value in saved.items()
        if name.startswith("model.decoder.layers.") and "layer_scalar" not in name
    }
    rewrite(source, {**saved, **copies, "lm_head.weight": saved["model.decoder.embed_tokens.weight"]})
    run(options(source, tmp_path / "found"))
    expected, found = files(tmp_path / "expected"), files(tmp_path / "found")
    assert json.loads(found.pop("config.json")) == json.loads(expected.pop("config.json"))
    assert found.pop("README.md") != expected.pop("README.md")
    assert found == expected


def test_one_tensor_per_expert_gives_the_same_result(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source")
    run(options(source, tmp_path / "expected"))
    split: dict[str, mx.array] = {}
    for name, value in tensors(source).items():
        if not (match := EXPERTS.fullmatch(name)):
            split[name] = value
            continue
        for expert in range(value.shape[0]):
            if match[2] == "down":
                split[f"{match[1]}.{expert}.down_proj.weight"] = value[expert]
            else:
                split[f"{match[1]}.{expert}.gate_proj.weight"] = value[expert, :64]
                split[f"{match[1]}.{expert}.up_proj.weight"] = value[expert, 64:]
    rewrite(source, split)
    run(options(source, tmp_path / "found"))
    weights = "model-00001-of-00001.safetensors"
    assert (tmp_path / "found" / weights).read_bytes() == (tmp_path / "expected" / weights).read_bytes()


def test_encoder_scalars_are_kept_and_completed_from_the_decoder(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source")
    held = tensors(source)
    encoder, decoder = "model.encoder.language_model.layers.", "model.decoder.layers."
    del held[f"{encoder}1.layer_scalar"]
    rewrite(source, held)
    run(options(source, tmp_path / "result"))
    found = tensors(tmp_path / "result")
    assert equal(found[f"{encoder}0.layer_scalar"], held[f"{encoder}0.layer_scalar"])
    assert not equal(found[f"{encoder}0.layer_scalar"], found[f"{decoder}0.layer_scalar"])
    assert equal(found[f"{encoder}1.layer_scalar"], held[f"{decoder}1.layer_scalar"])


def test_float32_sources_are_cast_before_they_are_packed(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source", vision=True)
    run(options(source, tmp_path / "expected"))
    rewrite(source, {name: value.astype(mx.float32) for name, value in tensors(source).items()})
    run(options(source, tmp_path / "found"))
    expected, found = tensors(tmp_path / "expected"), tensors(tmp_path / "found")
    assert found.keys() == expected.keys()
    assert all(equal(found[name], expected[name]) for name in expected)


def logits(folder: Path) -> mx.array:
    """Compute one encoding and one denoising step in our runtime, in float32."""
    model = load_model(folder, "float32")
    cache = model.make_cache()
    encoded(model, mx.array([[2, 5, 9]]), cache)
    return denoised(model, mx.array([[7, 8, 9, 10]]), cache)


def test_our_runtime_computes_the_same_from_unpacked_results(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source", vision=True)
    run(options(source, tmp_path / "result", Recipe()))
    assert mx.array_equal(logits(tmp_path / "result"), logits(source))


@pytest.mark.parametrize("recipe", [MIXED_4, SMALL], ids=["mixed", "small"])
def test_our_runtime_computes_with_the_values_that_were_packed(tmp_path: Path, recipe: Recipe) -> None:
    source = tiny_source(tmp_path / "source")
    run(options(source, tmp_path / "result", recipe))
    unpacked: dict[str, mx.array] = {}
    held = {
        name: a.astype(mx.float32) if a.dtype == mx.bfloat16 else a for name, a in tensors(tmp_path / "result").items()
    }
    for name, array in held.items():
        path, _, part = name.rpartition(".")
        quantization = recipe.at(name)
        if part == "weight" and quantization is not None:
            scales, biases = held[f"{path}.scales"], held[f"{path}.biases"]
            unpacked[name] = mx.dequantize(array, scales, biases, group_size=64, bits=quantization.bits)
        elif part not in ("scales", "biases"):
            unpacked[name] = array
    rewrite(source, unpacked)
    found, expected = logits(tmp_path / "result"), logits(source)
    assert mx.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert mx.max(mx.abs(expected)).item() > 0.1


def test_a_small_conversion_answers(demo: Path, tmp_path: Path) -> None:
    run(options(demo, tmp_path / "result", SMALL))
    answer = load(tmp_path / "result").generate("What is 2 + 2?", max_tokens=16, max_steps=2, allow_empty=True)
    assert 0 < answer.stats.tokens <= 16


def test_config_in_googles_spelling_parses_to_the_same_sizes(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source")
    run(options(source, tmp_path / "result"))
    assert parse_config(read_json(tmp_path / "result" / "config.json")) == parse_config(
        read_json(source / "config.json")
    )
