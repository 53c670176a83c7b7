"""Adapters of PEFT and Unsloth: what they change is added where PEFT adds it; what cannot be is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten
from peft_adapter import Factors, factors, write_peft
from tiny import denoised, encoded, processed, random_model, tiny_config

from mlx_diffgemma import load
from mlx_diffgemma.checkpoint.adapters import load_adapter, read_adapter_config, refuse_foreign_adapter
from mlx_diffgemma.checkpoint.weights import Checkpoint, load_model
from mlx_diffgemma.errors import AdapterError, WeightsError
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma

QUERY, UP, GATE = "layers.0.self_attn.q_proj", "layers.3.mlp.up_proj", "self_conditioning.gate_proj"
SHAPES = {QUERY: (32, 32), UP: (48, 32)}
SCALE = 6 / 4
TOKENS = mx.random.randint(0, 64, (1, 11), key=mx.random.key(1))
CANVAS = mx.random.randint(0, 64, (1, 16), key=mx.random.key(2))


def with_changes(changes: Mapping[str, Factors], scale: float = SCALE) -> DiffusionGemma:
    """A model with scale * B @ A added to its weights."""
    model = random_model()
    modules = dict(model.model.decoder.named_modules())
    for path, (a, b) in changes.items():
        modules[path].weight = modules[path].weight + scale * (b @ a)
    return model


def logits(reader: DiffusionGemma, writer: DiffusionGemma) -> tuple[mx.array, mx.array]:
    """The causal logits of one model, and those of another that denoises after what the first has read."""
    cache = reader.make_cache()
    causal = reader.logits(encoded(reader, TOKENS, cache))
    first = denoised(writer, CANVAS, cache)
    return causal, denoised(writer, CANVAS, cache, writer.signal(processed(first)))


def assert_same(found: DiffusionGemma, reader: DiffusionGemma, writer: DiffusionGemma) -> None:
    """Logits up to 30, float32 sums in another order through four layers."""
    for one, other in zip(logits(found, found), logits(reader, writer), strict=True):
        assert mx.abs(one - other).max().item() < 1e-3


def adapted(folder: Path, model: DiffusionGemma | None = None) -> DiffusionGemma:
    model = model or random_model()
    load_adapter(model, folder)
    return model


def differ(first: DiffusionGemma, second: DiffusionGemma) -> bool:
    return mx.abs(logits(first, first)[1] - logits(second, second)[1]).max().item() > 0.1


def test_changes_of_encoder_and_decoder_go_to_each(tmp_path: Path) -> None:
    """As of q_proj and up_proj by Unsloth: transformers has two modules of each name, which share a weight."""
    reads, writes = factors(SHAPES, seed=1), factors({**SHAPES, GATE: (48, 32)}, seed=2)
    found = adapted(write_peft(tmp_path, changes={"encoder": reads, "decoder": writes}))
    assert_same(found, with_changes(reads), with_changes(writes))
    assert differ(found, random_model())
    assert tree_flatten(found.trainable_parameters()) == []


@pytest.mark.parametrize("mode", ["encoder", "decoder"])
def test_a_change_of_one_leaves_the_other_as_it_is(tmp_path: Path, mode: str) -> None:
    change = factors(SHAPES)
    found = adapted(write_peft(tmp_path, changes={mode: change}))
    changed, plain = with_changes(change), random_model()
    assert_same(found, *((changed, plain) if mode == "encoder" else (plain, changed)))


def test_separate_layers_share_their_weights(tmp_path: Path) -> None:
    found = adapted(write_peft(tmp_path, changes={"decoder": factors(SHAPES)}))
    (own, _), (shared, _) = found.encoder_stack[1], found.decoder_stack[1]
    assert own is not shared
    assert own.mlp.up_proj.weight is shared.mlp.up_proj.weight


def test_equal_changes_are_attached_once(tmp_path: Path) -> None:
    change = factors(SHAPES)
    found = adapted(write_peft(tmp_path, changes={"encoder": change, "decoder": change}))
    assert found.encoder_stack[0][0] is found.decoder_stack[0][0]
    assert_same(found, with_changes(change), with_changes(change))


@pytest.mark.parametrize(
    ("settings", "scales"),
    [
        ({"lora_alpha": 16}, (4.0, 4.0)),
        ({"lora_alpha": 16, "use_rslora": True}, (8.0, 8.0)),
        ({"lora_alpha": 16, "alpha_pattern": {"up_proj": 2}}, (4.0, 0.5)),
        ({"lora_alpha": 16, "alpha_pattern": {r"layers\.[0-2]\..*q_proj": 8, "proj": 1}}, (2.0, 4.0)),
    ],
)
def test_the_scale_is_that_of_peft(tmp_path: Path, settings: dict[str, Any], scales: tuple[float, float]) -> None:
    change = factors(SHAPES)
    found = adapted(write_peft(tmp_path, changes={"encoder": change, "decoder": change}, **settings))
    scaled = {path: (a, scale * b) for scale, (path, (a, b)) in zip(scales, change.items(), strict=True)}
    assert_same(found, *[with_changes(scaled, 1.0)] * 2)


def test_ranks_may_differ(tmp_path: Path) -> None:
    change = {**factors({QUERY: (32, 32)}, rank=4), **factors({UP: (48, 32)}, rank=2)}
    changes = {"encoder": change, "decoder": change}
    found = adapted(write_peft(tmp_path, changes=changes, rank_pattern={"up_proj": 2}))
    (a, b), scaled = change[UP], dict(change)
    scaled[UP] = (a, 2 * b)
    assert_same(found, *[with_changes(scaled)] * 2)


@pytest.mark.parametrize("name", ["base_model.model.{}.lora_{}.default.weight", "{}.lora_{}.weight"])
def test_other_spellings_of_the_names(tmp_path: Path, name: str) -> None:
    change = factors(SHAPES)
    found = adapted(write_peft(tmp_path, name=name, changes={"encoder": change, "decoder": change}))
    assert_same(found, *[with_changes(change)] * 2)


def test_a_packed_model_is_changed_as_by_the_same_adapter_of_mlx_lm(tmp_path: Path) -> None:
    config = tiny_config(hidden_size=64, intermediate_size=64, moe_intermediate_size=64)

    def packed() -> DiffusionGemma:
        model = random_model(config)
        nn.quantize(model, group_size=64, bits=4, class_predicate=lambda path, _: path.endswith(("q_proj", "up_proj")))
        return model

    change = factors({f"layers.{layer}.mlp.up_proj": (64, 64) for layer in range(4)})
    theirs = write_peft(tmp_path / "peft", changes={"encoder": change, "decoder": change})
    ours = tmp_path / "mlx"
    ours.mkdir()
    arrays = {f"model.decoder.{path}.lora_a": a.T for path, (a, _) in change.items()}
    arrays |= {f"model.decoder.{path}.lora_b": b.T for path, (_, b) in change.items()}
    mx.save_safetensors(str(ours / "adapters.safetensors"), arrays)
    parameters = {"rank": 4, "scale": SCALE, "dropout": 0.0, "keys": ["mlp.up_proj"]}
    settings = {"fine_tune_type": "lora", "num_layers": 4, "lora_parameters": parameters}
    (ours / "adapter_config.json").write_text(json.dumps(settings))
    first, second = adapted(theirs, packed()), adapted(ours, packed())
    assert all(mx.array_equal(*pair) for pair in zip(logits(first, first), logits(second, second), strict=True))
    # Unsloth writes mlx-lm's files with PEFT's key beside mlx-lm's.
    (ours / "adapter_config.json").write_text(json.dumps({**settings, "peft_type": "LORA"}))
    third = adapted(ours, packed())
    assert mx.array_equal(logits(third, third)[1], logits(second, second)[1])


def test_changes_of_the_vision_tower_are_skipped(tmp_path: Path) -> None:
    change = factors(SHAPES)
    tower = {f"base_model.model.model.encoder.vision_tower.x.lora_{each}.weight": mx.ones((2, 2)) for each in "AB"}
    found = adapted(write_peft(tmp_path, changes={"encoder": change, "decoder": change}, extra=tower))
    assert_same(found, *[with_changes(change)] * 2)


def test_a_session_is_loaded_with_it(demo: Path, tmp_path: Path) -> None:
    model = load_model(demo)
    rows, columns = model.layers[0].self_attn.q_proj.weight.shape
    folder = write_peft(tmp_path / "adapter", changes={"decoder": factors({QUERY: (rows, columns)})})
    changed = load(demo, adapter=folder).model
    cache = changed.make_cache()
    tokens = mx.array([[2, 5, 9]])
    assert mx.array_equal(encoded(changed, tokens, cache), encoded(model, tokens, model.make_cache()))
    canvas = mx.array([[7, 8, 9, 10]])
    assert mx.abs(denoised(changed, canvas, cache) - denoised(model, canvas, cache)).max().item() > 0.01


# what cannot be applied


def no_tensors(name: str, array: mx.array) -> dict[str, mx.array]:
    return {f"base_model.model.model.decoder.{name}": array}


@pytest.mark.parametrize(
    ("settings", "extra", "expected"),
    [
        ({"use_dora": True}, {}, "cannot be applied: it has DoRA (use_dora=True)"),
        ({"modules_to_save": ["norm"]}, {}, "it has modules trained in full (modules_to_save=['norm'])"),
        ({"bias": "all"}, {}, "it has trained biases (bias='all')"),
        ({"target_parameters": ["experts.down_proj"]}, {}, "it has changes of experts (target_parameters="),
        ({"peft_type": "IA3"}, {}, "its peft_type is 'IA3', only 'LORA' can be"),
        ({"init_lora_weights": "pissa_niter_4"}, {}, "fits a changed model (init_lora_weights='pissa_niter_4')"),
        ({"lora_alpha": None}, {}, "adapter_config.json has no number lora_alpha"),
        ({"lora_alpha": 10**400}, {}, "adapter_config.json has no number lora_alpha"),
        ({"alpha_pattern": {"(": 2}}, {}, "alpha_pattern: "),
        (
            {},
            no_tensors("layers.0.self_attn.q_proj.lora_magnitude_vector", mx.ones((32,))),
            "q_proj.lora_magnitude_vector, F32 [32], is no factor of a low-rank change",
        ),
        ({}, no_tensors("embed_tokens.lora_embedding_A", mx.ones((4, 4))), "embed_tokens.lora_embedding_A"),
        ({}, no_tensors("layers.1.mlp.up_proj.lora_A.weight", mx.ones((4, 32))), "layers.1.mlp.up_proj has no lora_B"),
        (
            {},
            {f"base_model.model.model.layers.0.q_proj.lora_{each}.weight": mx.ones((4, 4)) for each in "AB"},
            "was made for another model: there is no base_model.model.model.layers.0.q_proj",
        ),
    ],
)
def test_what_cannot_be_applied_is_named_before_the_weights_are_read(
    tmp_path: Path, settings: dict[str, Any], extra: dict[str, mx.array], expected: str
) -> None:
    folder = write_peft(tmp_path, changes={"decoder": factors(SHAPES)}, extra=extra, **settings)
    with pytest.raises(AdapterError) as caught:
        read_adapter_config(folder)
    message = str(caught.value)
    assert expected in message
    assert str(folder) in message
    assert "\n" not in message


def test_a_session_refuses_before_it_reads_weights(demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Checkpoint, "load", lambda _: pytest.fail("the weights were read"))
    folder = write_peft(tmp_path, changes={"decoder": factors(SHAPES)}, use_dora=True)
    with pytest.raises(AdapterError, match="it has DoRA"):
        load(demo, adapter=folder)


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("layers.9.mlp.up_proj", (48, 32), "layers.9.mlp.up_proj is no linear map"),
        ("layers.1.self_attn.v_proj", (16, 32), "layers.1.self_attn.v_proj is no linear map"),
        ("layers.0.experts.down_proj", (16, 32), "layers.0.experts.down_proj is no linear map"),
        ("embed_tokens", (64, 32), "embed_tokens is no linear map"),
        ("layers.0.mlp.up_proj", (48, 64), r"layers.0.mlp.up_proj is \[48, 32\], and its change \[48, 64\]"),
    ],
)
def test_modules_that_the_model_does_not_have_are_named(
    tmp_path: Path, path: str, shape: tuple[int, int], expected: str
) -> None:
    folder = write_peft(tmp_path, changes={"decoder": factors({path: shape})})
    with pytest.raises(AdapterError, match=expected):
        adapted(folder)


def test_files_that_are_missing_or_damaged_are_named(tmp_path: Path) -> None:
    folder = write_peft(tmp_path, changes={"decoder": factors(SHAPES)})
    weights = folder / "adapter_model.safetensors"
    shutil.copy(weights, tmp_path / "kept")
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(WeightsError, match=r"adapter_model\.safetensors is truncated"):
        read_adapter_config(folder)
    weights.rename(folder / "adapter_model.bin")
    with pytest.raises(AdapterError, match=r"has no adapter_model\.safetensors"):
        read_adapter_config(folder)


def test_a_training_does_not_replace_it(tmp_path: Path) -> None:
    folder = write_peft(tmp_path / "adapter", changes={"decoder": factors(SHAPES)})
    with pytest.raises(
        AdapterError,
        match=r"holds an adapter of PEFT, which is not replaced: to begin with it, name it as --start-from",
    ):
        refuse_foreign_adapter(folder)
    refuse_foreign_adapter(tmp_path)
