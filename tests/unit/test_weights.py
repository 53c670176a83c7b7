"""Every layout in circulation loads, means what it says, and what does not fit is named."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten
from tiny import PUBLISHED, denoised, encoded, processed, random_model, tiny_config

from mlx_diffgemma.checkpoint.names import TensorSource
from mlx_diffgemma.checkpoint.quantization import parse_table
from mlx_diffgemma.checkpoint.weights import build_model, load_model
from mlx_diffgemma.errors import ConfigError, ModelNotFoundError, OptionError, QuantizationError, WeightsError
from mlx_diffgemma.model.config import LayerConfig, parse_config
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma

CONFIG = tiny_config(
    hidden_size=64,
    intermediate_size=64,
    moe_intermediate_size=64,
    vocab_size=96,
    layers=(
        LayerConfig(kind="sliding_attention", head_dim=16, num_key_value_heads=2),
        LayerConfig(kind="full_attention", head_dim=32, num_key_value_heads=1),
    ),
)
RAW: dict[str, Any] = {
    "model_type": "diffusion_gemma",
    "canvas_length": 16,
    "vision_config": None,
    "text_config": {
        "hidden_size": 64,
        "intermediate_size": 64,
        "moe_intermediate_size": 64,
        "num_experts": 6,
        "top_k_experts": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_global_key_value_heads": 1,
        "global_head_dim": 32,
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "vocab_size": 96,
        "sliding_window": 8,
        "max_position_embeddings": 512,
    },
}
Arrays = dict[str, mx.array]


@pytest.fixture(scope="module")
def reference() -> DiffusionGemma:
    """bf16 values, computed with in float32."""
    model = random_model(CONFIG)
    for index, layer in enumerate(model.model.encoder.language_model.layers):
        layer.layer_scalar = mx.array([0.5 + 0.1 * index])
    model.update(model.parameters())
    model.set_dtype(mx.bfloat16)
    model.set_dtype(mx.float32)
    return model


@pytest.fixture(scope="module")
def plain(reference: DiffusionGemma) -> Arrays:
    """The reference's parameters under the names of the MLX layouts, in bf16."""
    return {name: array.astype(mx.bfloat16) for name, array in tree_flatten(reference.parameters())}


def write(folder: Path, arrays: Arrays, raw: dict[str, Any] | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    (folder / "config.json").write_text(json.dumps(raw or RAW))
    return folder


def outputs(model: DiffusionGemma) -> tuple[mx.array, mx.array]:
    """Decoder logits with conditioning, and causal logits, of fixed inputs."""
    tokens = mx.random.randint(0, 96, (1, 12), key=mx.random.key(1))
    canvas = mx.random.randint(0, 96, (1, 16), key=mx.random.key(2))
    logits = mx.random.normal((1, 16, 96), key=mx.random.key(3))
    cache = model.make_cache()
    hidden = encoded(model, tokens, cache)
    return denoised(model, canvas, cache, model.signal(processed(logits))), model.logits(hidden)


def assert_same(first: DiffusionGemma, second: DiffusionGemma, tolerance: float = 1e-4) -> None:
    """Logits are of order 10; 1e-4 is what float32 leaves when sums are taken in another order."""
    for found, expected in zip(outputs(first), outputs(second), strict=True):
        assert mx.max(mx.abs(found - expected)).item() < tolerance


def google(plain: Arrays) -> Arrays:
    return {
        name.replace("experts.gate_up_proj.weight", "experts.gate_up_proj").replace(
            "experts.down_proj.weight", "experts.down_proj"
        ): array
        for name, array in plain.items()
    }


def one_tensor_per_expert(plain: Arrays) -> Arrays:
    out = {}
    for name, array in plain.items():
        prefix = name.rpartition(".experts.")[0] + ".experts"
        if ".experts.gate_up_proj" in name:
            for expert in range(6):
                out[f"{prefix}.{expert}.gate_proj.weight"] = array[expert, :64]
                out[f"{prefix}.{expert}.up_proj.weight"] = array[expert, 64:]
        elif ".experts.down_proj" in name:
            out |= {f"{prefix}.{expert}.down_proj.weight": array[expert] for expert in range(6)}
        else:
            out[name] = array
    return out


def with_tied_copies(plain: Arrays) -> Arrays:
    copies = {
        name.replace("model.decoder.", "model.encoder.language_model."): array
        for name, array in google(plain).items()
        if name.startswith("model.decoder.") and "self_conditioning" not in name and not name.endswith("layer_scalar")
    }
    buffers = {"model.decoder.rotary_emb.sliding_attention_inv_freq": mx.ones((8,))}
    return {**google(plain), **copies, **buffers, "lm_head.weight": plain["model.decoder.embed_tokens.weight"]}


def only_the_encoders_copies(plain: Arrays) -> Arrays:
    """What a tool leaves that keeps one of two tied tensors, and keeps the encoder's."""
    every = with_tied_copies(plain)
    return {
        name: array
        for name, array in every.items()
        if name.replace("model.decoder.", "model.encoder.language_model.") == name
        or name.replace("model.decoder.", "model.encoder.language_model.") not in every
        or name.endswith("layer_scalar")
    }


def wrapped(prefix: str) -> Callable[[Arrays], Arrays]:
    """What a tool leaves that saves a wrapper of the model instead of the model."""
    return lambda plain: {prefix + name: array for name, array in with_tied_copies(plain).items()}


def compiled_inside(plain: Arrays) -> Arrays:
    return {name.replace("model.decoder.", "model.decoder._orig_mod."): array for name, array in plain.items()}


def without_a_head(plain: Arrays) -> Arrays:
    """What saving the model without its head leaves."""
    return {name.removeprefix("model."): array for name, array in google(plain).items()}


def in_float32(plain: Arrays) -> Arrays:
    return {name: array.astype(mx.float32) for name, array in google(plain).items()}


WRAPPERS = ["_orig_mod.", "module.", "base_model.model.", "module._orig_mod.", "language_model."]
SPELLINGS = [
    *[dict, google, one_tensor_per_expert, with_tied_copies, only_the_encoders_copies],
    *[*map(wrapped, WRAPPERS), compiled_inside, without_a_head, in_float32],
]


@pytest.mark.parametrize("spell", SPELLINGS)
def test_every_spelling_of_unquantized_weights_is_the_same_model(
    tmp_path: Path, reference: DiffusionGemma, plain: Arrays, spell: Any
) -> None:
    assert_same(load_model(write(tmp_path, spell(plain)), "float32"), reference)


def test_a_head_that_is_packed_on_its_own_is_a_copy(tmp_path: Path, plain: Arrays) -> None:
    """The embedding stays as it is: the head lends it no scales."""
    files, _, entry = packed_as(Packing("v1", 4), plain)
    embedding = "model.decoder.embed_tokens"
    head = {f"lm_head.{part}": files.pop(f"{embedding}.{part}") for part in ("weight", "scales", "biases")}
    files[f"{embedding}.weight"] = plain[f"{embedding}.weight"]
    raw = RAW | {"quantization": entry}
    expected = load_model(write(tmp_path / "without", files, raw), "float32")
    assert_same(load_model(write(tmp_path / "with", {**files, **head}, raw), "float32"), expected)


def test_one_parameter_under_two_names_is_refused(tmp_path: Path, plain: Arrays) -> None:
    arrays = {**plain, f"module.{NORM}": plain[NORM]}
    with pytest.raises(WeightsError, match=rf"{NORM} and module.{NORM} are the same parameter"):
        load_model(write(tmp_path, arrays), "float32")


def test_missing_encoder_scalars_are_the_decoders(tmp_path: Path, plain: Arrays) -> None:
    kept = {name: array for name, array in plain.items() if not name.startswith("model.encoder")}
    model = load_model(write(tmp_path, kept), "float32")
    for own, shared in zip(model.model.encoder.language_model.layers, model.model.decoder.layers, strict=True):
        assert mx.array_equal(own.layer_scalar, shared.layer_scalar)


def test_encoder_scalars_that_differ_are_kept(tmp_path: Path, plain: Arrays) -> None:
    model = load_model(write(tmp_path, plain), "float32")
    scalars = [layer.layer_scalar.item() for layer in model.model.encoder.language_model.layers]
    assert scalars == pytest.approx([0.5, 0.6], rel=0.01)


@dataclass(frozen=True)
class Packing:
    """One published layout: which modules have 8 affine bits, and what all others have."""

    version: str
    bits: int
    mode: str = "affine"
    group: int = 64

    def eight(self, path: str) -> bool:
        always = path.endswith("router.proj") or ".mlp." in path
        return always or (self.version != "v1" and (".self_attn." in path or path.endswith("embed_tokens")))


PACKINGS = [
    *[Packing("v1", bits) for bits in (4, 5, 6, 8)],
    *[Packing("v2", bits) for bits in (4, 5, 6, 8)],
    Packing("v2", 4, "mxfp4", 32),
    Packing("v2", 8, "mxfp8", 32),
    Packing("v2", 4, "nvfp4", 16),
    Packing("v1", 4, "mxfp4", 32),
    Packing("v1", 4, "nvfp4", 16),
]


def packed_as(layout: Packing, plain: Arrays) -> tuple[Arrays, Arrays, dict[str, Any]]:
    """The checkpoint in that layout, the values that its weights stand for, and its "quantization" object."""
    files, meant = {}, {}
    entry: dict[str, Any] = {"group_size": layout.group, "bits": layout.bits, "mode": layout.mode}
    for name, array in plain.items():
        path = name.removesuffix(".weight")
        if array.ndim == 1 or not name.endswith(".weight"):
            files[name] = meant[name] = array
            continue
        options = {"group_size": layout.group, "bits": layout.bits, "mode": layout.mode}
        if layout.eight(path):
            options = {"group_size": 64, "bits": 8, "mode": "affine"}
            entry[path] = {"group_size": 64, "bits": 8}
        weight, scales, *biases = mx.quantize(array, **options)
        files |= {f"{path}.weight": weight, f"{path}.scales": scales}
        if biases:
            files[f"{path}.biases"] = biases[0]
            scales, biases = scales.astype(mx.float32), [biases[0].astype(mx.float32)]
        meant[name] = mx.dequantize(weight, scales, *biases, **options).astype(mx.float32)
    return files, meant, entry


@pytest.mark.parametrize("layout", PACKINGS, ids=lambda layout: f"{layout.version}-{layout.mode}-{layout.bits}")
def test_every_quantized_layout_means_its_unpacked_values(tmp_path: Path, plain: Arrays, layout: Packing) -> None:
    files, meant, entry = packed_as(layout, plain)
    folder = write(tmp_path / "packed", files, RAW | {"quantization": entry, "quantization_config": entry})
    model = load_model(folder, "float32")
    unpacked = load_model(write(tmp_path / "meant", meant), "float32")
    assert_same(model, unpacked)
    path = "model.decoder.layers.0.self_attn.q_proj"
    expected = ("affine", 8) if layout.eight(path) else (layout.mode, layout.bits)
    projection = model.model.decoder.layers[0].self_attn.q_proj
    assert (projection.mode, projection.bits) == expected


@pytest.mark.parametrize("name", [path.name.partition(".")[0] for path in sorted(PUBLISHED.glob("*.shapes.json"))])
def test_a_model_built_from_a_published_config_has_the_published_tensors(name: str) -> None:
    """Names, shapes and dtypes of all text tensors of the real checkpoints, without allocating one of them."""
    raw = json.loads((PUBLISHED / f"{name}.config.json").read_text())
    published = json.loads((PUBLISHED / f"{name}.shapes.json").read_text())
    bare = (".experts.gate_up_proj", ".experts.down_proj")
    expected = {f"{tensor}.weight" if tensor.endswith(bare) else tensor: entry for tensor, entry in published.items()}
    before = mx.get_active_memory()
    model = build_model(
        parse_config(raw), parse_table(raw), {tensor: TensorSource(parts=(), shape=()) for tensor in expected}
    )
    model.set_dtype(mx.bfloat16)
    found = {
        tensor: [list(array.shape), str(array.dtype).rpartition(".")[2]]
        for tensor, array in tree_flatten(model.parameters())
    }
    assert found == expected
    assert mx.get_active_memory() - before < 1_000_000


def test_a_vision_tower_is_skipped_with_one_line(
    tmp_path: Path, plain: Arrays, reference: DiffusionGemma, caplog: pytest.LogCaptureFixture
) -> None:
    vision = {
        "model.encoder.vision_tower.std_bias": mx.zeros((4,)),
        "model.encoder.embed_vision.embedding_projection.weight": mx.zeros((64, 4)),
    }
    with caplog.at_level(logging.INFO):
        model = load_model(write(tmp_path, {**plain, **vision}), "float32")
    assert [record.getMessage() for record in caplog.records] == [
        "skipping the vision tower (2 tensors): this version reads text only"
    ]
    assert_same(model, reference)


@pytest.mark.parametrize(("dtype", "expected"), [("bfloat16", mx.bfloat16), ("float32", mx.float32)])
def test_the_compute_dtype_can_be_chosen(tmp_path: Path, plain: Arrays, dtype: str, expected: mx.Dtype) -> None:
    files, _, entry = packed_as(Packing("v2", 4), plain)
    model = load_model(write(tmp_path, files, RAW | {"quantization": entry}), dtype)
    assert {array.dtype for _, array in tree_flatten(model.parameters())} == {expected, mx.uint32}
    assert model.embed(mx.array([[1, 2]])).dtype == expected
    logits, causal = outputs(model)
    assert logits.dtype == causal.dtype == mx.float32
    assert mx.all(mx.isfinite(logits)).item()


@pytest.mark.skipif(mx.default_device() != mx.Device(mx.cpu), reason="a GPU has kernels for it")
def test_unpacked_experts_in_bfloat16_are_refused_on_the_cpu(tmp_path: Path, plain: Arrays) -> None:
    with pytest.raises(OptionError, match="unquantized experts need dtype=float32 on the CPU"):
        load_model(write(tmp_path, plain), "bfloat16")


def test_the_compute_dtype_of_the_cpu_is_float32(tmp_path: Path, plain: Arrays) -> None:
    model = load_model(write(tmp_path, plain))
    assert model.dtype == (mx.float32 if mx.default_device() == mx.Device(mx.cpu) else mx.bfloat16)


def test_an_unknown_compute_dtype_is_named(tmp_path: Path, plain: Arrays) -> None:
    with pytest.raises(OptionError, match="dtype='int4' must be one of bfloat16, float32"):
        load_model(write(tmp_path, plain), "int4")


NORM = "model.decoder.norm.weight"
QUERY = "model.decoder.layers.1.self_attn.q_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({NORM: None}, rf"{NORM} is missing, expected \[64\]"),
        ({QUERY: mx.zeros((64, 64))}, rf"{QUERY} has shape \[64, 64\], expected \[128, 64\]"),
        (
            {"model.decoder.layers.9.extra": mx.zeros((3,))},
            r"model\.decoder\.layers\.9\.extra is unknown \(F32 \[3\]\)",
        ),
        ({QUERY: mx.zeros((128, 64), dtype=mx.int32)}, rf"{QUERY} is I32, expected BF16 or F16 or F32"),
    ],
)
def test_tensors_that_do_not_fit_are_named(tmp_path: Path, plain: Arrays, change: Any, message: str) -> None:
    arrays = {name: array for name, array in {**plain, **change}.items() if array is not None}
    with pytest.raises(WeightsError, match=message):
        load_model(write(tmp_path, arrays), "float32")


def test_many_problems_are_counted(tmp_path: Path, plain: Arrays) -> None:
    kept = {name: array for name, array in plain.items() if ".layers.0." not in name}
    with pytest.raises(WeightsError, match=r"\(and \d+ more\)"):
        load_model(write(tmp_path, kept), "float32")


def test_an_expert_that_is_missing_is_named(tmp_path: Path, plain: Arrays) -> None:
    arrays = one_tensor_per_expert(plain)
    del arrays["model.decoder.layers.0.experts.3.up_proj.weight"]
    with pytest.raises(WeightsError, match=r"layers\.0\.experts\.3\.up_proj is missing"):
        load_model(write(tmp_path, arrays), "float32")


def test_packed_weights_without_a_quantization_entry_are_refused(tmp_path: Path, plain: Arrays) -> None:
    files, _, _ = packed_as(Packing("v1", 4), plain)
    with pytest.raises(QuantizationError, match=r"config\.json has no quantization entry of MLX"):
        load_model(write(tmp_path, files), "float32")


def test_a_wrong_bit_width_is_found_by_shape(tmp_path: Path, plain: Arrays) -> None:
    files, _, entry = packed_as(Packing("v1", 4), plain)
    with pytest.raises(WeightsError, match="has shape"):
        load_model(write(tmp_path, files, RAW | {"quantization": entry | {"bits": 8}}), "float32")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"quantization": {"group_size": 64, "bits": 7}}, "bits=7"),
        ({"quantization": {"group_size": 64}}, "no 'bits'"),
        ({"quantization": {"group_size": 64, "bits": 4, "mode": "iq4"}}, "unsupported quantization mode 'iq4'"),
        ({"quantization": {"group_size": 64, "bits": 4, "mode": "mxfp4"}}, "mode mxfp4 is 4 bits in groups of 32"),
        ({"quantization": [4]}, "quantization must be an object"),
        (
            {"quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 64}},
            "no quantization entry of MLX",
        ),
    ],
)
def test_unsupported_quantization_is_named(tmp_path: Path, plain: Arrays, entry: Any, message: str) -> None:
    files, _, _ = packed_as(Packing("v1", 4), plain)
    with pytest.raises(QuantizationError, match=message):
        load_model(write(tmp_path, files, RAW | entry), "float32")


STALE: dict[str, dict[str, Any]] = {
    "bitsandbytes": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    "MLX": {"quantization": {"group_size": 64, "bits": 4}, "quantization_config": {"group_size": 64, "bits": 4}},
    "impossible": {"quantization": {"group_size": 7, "bits": 3.5}},
}


@pytest.mark.parametrize("entry", STALE)
def test_an_entry_over_plain_weights_is_ignored_with_one_line(
    tmp_path: Path, reference: DiffusionGemma, plain: Arrays, entry: str, caplog: pytest.LogCaptureFixture
) -> None:
    """What merging an adapter leaves in config.json."""
    model = load_model(write(tmp_path, plain, RAW | STALE[entry]), "float32")
    keys = " and ".join(STALE[entry])
    assert caplog.messages == [f"ignoring {keys} in config.json: the files hold no packed weights"]
    assert_same(model, reference)


def test_packed_weights_with_their_entry_under_the_second_name_alone(tmp_path: Path, plain: Arrays) -> None:
    files, meant, entry = packed_as(Packing("v2", 4), plain)
    model = load_model(write(tmp_path / "packed", files, RAW | {"quantization_config": entry}), "float32")
    assert_same(model, load_model(write(tmp_path / "meant", meant), "float32"))


@pytest.mark.parametrize(
    ("added", "tool"),
    [("qweight", "GPTQ or AWQ"), ("weight.absmax", "bitsandbytes"), ("SCB", "bitsandbytes")],
)
def test_weights_that_another_tool_packed_are_named_with_the_tool(
    tmp_path: Path, plain: Arrays, added: str, tool: str
) -> None:
    arrays = {**plain, f"model.decoder.layers.0.mlp.up_proj.{added}": mx.zeros((4,), mx.uint8)}
    with pytest.raises(QuantizationError, match=rf"packed by {tool} \(.*{added}\).*: convert the 16-bit checkpoint"):
        load_model(write(tmp_path, arrays), "float32")


def test_weights_are_not_held_twice(tmp_path: Path, plain: Arrays) -> None:
    folder = write(tmp_path, plain)
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    model = load_model(folder, "float32")
    size = sum(array.nbytes for _, array in tree_flatten(model.parameters()))
    layer = max(
        sum(array.nbytes for _, array in tree_flatten(part.parameters()))
        for part in (*model.model.decoder.layers, model.model.decoder.embed_tokens)
    )
    assert mx.get_active_memory() - before < 1.1 * size + 100_000
    assert mx.get_peak_memory() - before < size + layer + 200_000


def test_a_folder_that_is_no_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"has no config\.json"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(RAW))
    with pytest.raises(ModelNotFoundError, match=r"has no \*\.safetensors"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gemma3"}')
    with pytest.raises(ConfigError, match="'gemma3'"):
        load_model(tmp_path)
