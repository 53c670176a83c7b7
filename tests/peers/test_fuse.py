"""An adapter fused into its base: the files, and the model compared with the base that has the adapter attached."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from conversion import measure
from convert_helpers import (
    EXPERTS,
    MIXED_4,
    SMALL_SHARDS,
    edit_json,
    equal,
    finish,
    options,
    python,
    rewrite,
    run,
    tensors,
    tiny_source,
)
from demo_checkpoint import write_tokenizer
from mlx.utils import tree_map
from mlx_diffgemma_convert import chunks
from mlx_diffgemma_convert.adapter import Adapter
from mlx_diffgemma_convert.fuse_program import app
from mlx_diffgemma_convert.fusion import FusionOptions, fuse, plan_fusion
from mlx_diffgemma_convert.output import WriteStarted
from mlx_diffgemma_convert.parameters import text_shapes
from mlx_diffgemma_convert.recipe import make_quantization, make_recipe
from peer import assert_same_logits
from peft_adapter import factors, write_peft
from random_checkpoint import write_checkpoint
from tiny import PUBLISHED, denoised, encoded

from mlx_diffgemma.checkpoint import adapters
from mlx_diffgemma.checkpoint.adapters import LoRA, adapter_config, attach_adapter, load_adapter, save_adapter
from mlx_diffgemma.checkpoint.names import TensorSource, sort_tensors
from mlx_diffgemma.checkpoint.quantization import parse_table
from mlx_diffgemma.checkpoint.safetensors import TensorInfo
from mlx_diffgemma.checkpoint.weights import load_model
from mlx_diffgemma.errors import AdapterError, ConvertError, DiffGemmaError, ModelNotFoundError, OptionError
from mlx_diffgemma.files import read_json
from mlx_diffgemma.model.config import parse_config

ALL = adapters.ATTENTION + adapters.DENSE + adapters.EXPERTS + adapters.ROUTER
CONDITIONING = "model.decoder.self_conditioning.up_proj"
LORA = LoRA(rank=4, alpha=6, layers=2, keys=(*ALL, CONDITIONING))
LAST = "model.decoder.layers.2"


def train(base: Path, folder: Path, lora: LoRA | None = LORA) -> Path:
    """Write an adapter with random values, large enough to change what the model computes."""
    model = load_model(base, "float32")
    if lora is None:
        model.unfreeze()
    else:
        attach_adapter(model, lora, 0)
    keys = iter(mx.random.split(mx.random.key(7), 500))
    model.update(tree_map(lambda a: a + 0.1 * mx.random.normal(a.shape, key=next(keys)), model.trainable_parameters()))
    save_adapter(folder, model, adapter_config(lora, model, {"model": str(base)}))
    return folder


def fused(base: Path, destination: Path, adapter: Path, **changes: Any) -> Path:
    """Run a fusion to its end; return the destination."""
    wanted = FusionOptions(source=base, destination=destination, adapter=adapter, name=base.name)
    finish(fuse(replace(wanted, **changes)))
    return destination


def logits(folder: Path, adapter: Path | None = None) -> mx.array:
    """Compute one encoding and one denoising step in our runtime, in float32."""
    model = load_model(folder, "float32")
    if adapter is not None:
        load_adapter(model, adapter)
    cache = model.make_cache()
    encoded(model, mx.array([[2, 5, 9, 11, 300]]), cache)
    return denoised(model, mx.array([[7, 8, 9, 10]]), cache)


def distance(found: mx.array, expected: mx.array) -> float:
    """Return the norm of the difference, divided by the norm of `expected`."""
    return (mx.linalg.norm((found - expected).flatten()) / mx.linalg.norm(expected.flatten())).item()


def changes(adapter: Path) -> dict[str, mx.array]:
    """Return parameter -> the change that a low-rank adapter adds to it, by the formulas of mlx-lm's layers."""
    held = mx.load(str(adapter / adapters.WEIGHTS))
    scale = read_json(adapter / adapters.ADAPTER_CONFIG)["lora_parameters"]["scale"]
    found: dict[str, mx.array] = {}
    for name in held:
        module, _, part = name.rpartition(".")
        if part == "lora_a":
            a, b = held[name], held[f"{module}.lora_b"]
            found[f"{module}.weight"] = scale * (b @ a if a.ndim == 3 else (a @ b).T)
    return found


def nearly_equal(left: mx.array, right: mx.array) -> bool:
    """Return whether dtypes and almost all values are equal; a few are rounded differently, as sums differ in order."""
    return left.dtype == right.dtype and mx.mean(left == right).item() > 0.999


def our_name(name: str) -> str:
    return f"{name}.weight" if EXPERTS.fullmatch(name) else name


def widen(folder: Path) -> None:
    """Turn a checkpoint into float32."""
    rewrite(folder, {name: array.astype(mx.float32) for name, array in tensors(folder).items()})
    text = read_json(folder / "config.json")["text_config"]
    edit_json(folder / "config.json", {"dtype": "float32", "text_config": {**text, "dtype": "float32"}})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in bf16 and Google's layout, with vision tower and tokenizer."""
    folder = tiny_source(tmp_path_factory.mktemp("fuse") / "base", vision=True)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def wide(base: Path) -> Path:
    """The checkpoint `base` in float32."""
    folder = base.with_name("wide")
    shutil.copytree(base, folder)
    widen(folder)
    return folder


@pytest.fixture(scope="module")
def packed(base: Path) -> Path:
    """The checkpoint `base` in 4 bits, with some classes in 8."""
    folder = base.with_name("packed")
    run(options(base, folder))
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path) -> Path:
    return train(base, base.with_name("adapter"))


@pytest.fixture(scope="module")
def full(base: Path) -> Path:
    return train(base, base.with_name("full"), None)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make chunks of 10 rows of 64 float32 values, which end within experts."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 10 * 64 * 4)


def test_the_adapter_of_these_tests_changes_the_model(base: Path, adapter: Path) -> None:
    assert distance(logits(base), logits(base, adapter)) > 0.1
    assert len(changes(adapter)) == 2 * len(
        ALL
    )  # Layers of full attention have no v_proj; one map is outside the layers.


@pytest.mark.usefixtures("small_chunks")
def test_a_float32_base_fused_computes_what_base_and_adapter_do(wide: Path, adapter: Path, tmp_path: Path) -> None:
    result = fused(wide, tmp_path / "result", adapter)
    assert distance(logits(result), logits(wide, adapter)) < 1e-5
    assert {array.dtype for array in tensors(result).values()} == {mx.float32}
    assert read_json(result / "config.json")["dtype"] == "float32"


@pytest.mark.parametrize("dtype", [None, "BF16"])
@pytest.mark.usefixtures("small_chunks")
def test_a_bf16_result_is_rounded_once(
    base: Path, wide: Path, adapter: Path, tmp_path: Path, dtype: str | None
) -> None:
    result = fused(base if dtype is None else wide, tmp_path / "result", adapter, dtype=dtype)
    found, before, added = tensors(result), tensors(base), changes(adapter)
    for name, array in before.items():
        assert found[name].dtype == mx.bfloat16
        if (change := added.pop(our_name(name), None)) is not None:
            assert nearly_equal(found[name], (array.astype(mx.float32) + change).astype(mx.bfloat16)), name
        else:
            assert equal(found[name], array), name
    assert added == {}
    assert distance(logits(result), logits(base, adapter)) < 0.02


def test_what_is_not_adapted_and_what_is_beside_the_weights_stays_as_it_is(
    base: Path, adapter: Path, tmp_path: Path
) -> None:
    result = fused(base, tmp_path / "result", adapter, max_shard_bytes=SMALL_SHARDS)
    assert tensors(result).keys() == tensors(base).keys()
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        assert (result / name).read_bytes() == (base / name).read_bytes()
    config = read_json(result / "config.json")
    before = read_json(base / "config.json")
    assert config == {**before, "text_config": {**config["text_config"], **before["text_config"]}}
    card = (result / "README.md").read_text()
    assert "Made of the local folder `base` and the adapter `adapter`, fused with mlx-diffgemma" in card
    assert "changed 20 of 105 parameters" in card
    assert len(list(result.glob("*.safetensors"))) > 3
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["result"]


@pytest.mark.parametrize("mode", ["affine", "mxfp4", "nvfp4"])
@pytest.mark.usefixtures("small_chunks")
def test_a_packed_base_is_packed_again(base: Path, adapter: Path, tmp_path: Path, mode: str) -> None:
    recipe = make_recipe("mixed", make_quantization(mode, None, None), {})
    run(options(base, tmp_path / "packed", recipe))
    result = fused(tmp_path / "packed", tmp_path / "result", adapter)
    found, before, added = tensors(result), tensors(tmp_path / "packed"), changes(adapter)
    assert found.keys() == before.keys()
    for name, change in added.items():
        path, quantization = name.removesuffix(".weight"), recipe.at(name)
        assert quantization is not None
        settings = {"group_size": quantization.group_size, "bits": quantization.bits, "mode": quantization.mode}
        parts = [f"{path}.{part}" for part in ("weight", "scales", "biases") if f"{path}.{part}" in before]
        held = [before.pop(part) for part in parts]
        floats = [a.astype(mx.float32) if a.dtype == mx.bfloat16 else a for a in held]
        expected = mx.quantize(mx.dequantize(*floats, **settings).astype(mx.float32) + change, **settings)
        for part, array, old in zip(parts, expected, held, strict=True):
            assert nearly_equal(found[part], array.astype(old.dtype)), part
    assert all(equal(found[name], array) for name, array in before.items())
    assert distance(logits(result), logits(tmp_path / "packed", adapter)) < 0.3
    config, old_config = (read_json(folder / "config.json") for folder in (result, tmp_path / "packed"))
    assert config == old_config


def test_dequantized_it_is_in_googles_layout(base: Path, packed: Path, adapter: Path, tmp_path: Path) -> None:
    result = fused(packed, tmp_path / "result", adapter, dequantize=True)
    found, original = tensors(result), tensors(base)
    assert {name: (a.shape, a.dtype) for name, a in found.items()} == {
        name: (a.shape, a.dtype) for name, a in original.items()
    }
    assert all(equal(found[name], array) for name, array in original.items() if "vision" in name or "norm" in name)
    assert distance(logits(result), logits(packed, adapter)) < 0.04
    assert not {"quantization", "quantization_config", "generation_config"} & read_json(result / "config.json").keys()
    wider = fused(packed, tmp_path / "wider", adapter, dequantize=True, dtype="F32")
    assert distance(logits(wider), logits(packed, adapter)) < 1e-5


def test_generation_defaults_that_only_the_configuration_holds_get_a_file(
    packed: Path, adapter: Path, tmp_path: Path
) -> None:
    shutil.copytree(packed, tmp_path / "packed")
    (tmp_path / "packed" / "generation_config.json").unlink()
    result = fused(tmp_path / "packed", tmp_path / "result", adapter, dequantize=True)
    assert read_json(result / "generation_config.json") == read_json(packed / "generation_config.json")


@pytest.mark.parametrize("kind", ["base", "wide"])
def test_a_full_training_replaces_the_values(
    kind: str, full: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(kind)
    result = fused(source, tmp_path / "result", full)
    trained, found = mx.load(str(full / adapters.WEIGHTS)), tensors(result)
    for name, array in tensors(source).items():
        assert equal(found[name], array if "vision" in name else trained[our_name(name)].astype(array.dtype)), name
    if kind == "wide":
        assert mx.array_equal(logits(result), logits(source, full))


def test_a_full_training_is_packed_as_the_base_was(packed: Path, full: Path, tmp_path: Path) -> None:
    result = fused(packed, tmp_path / "result", full)
    trained, found = mx.load(str(full / adapters.WEIGHTS)), tensors(result)
    for name, array in trained.items():
        if (quantization := MIXED_4.at(name)) is None:
            assert equal(found[name], array.astype(mx.bfloat16)), name
            continue
        weight, scales, biases = mx.quantize(array, group_size=quantization.group_size, bits=quantization.bits)
        path = name.removesuffix(".weight")
        assert equal(found[name], weight), name
        assert equal(found[f"{path}.scales"], scales.astype(mx.bfloat16))
        assert equal(found[f"{path}.biases"], biases.astype(mx.bfloat16))


def test_some_parameters_trained_in_full_leave_the_others(wide: Path, full: Path, tmp_path: Path) -> None:
    trained = mx.load(str(full / adapters.WEIGHTS))
    scalar = f"{LAST}.layer_scalar"
    shutil.copytree(full, tmp_path / "adapter")
    mx.save_safetensors(str(tmp_path / "adapter" / adapters.WEIGHTS), {scalar: trained[scalar]})
    result = fused(wide, tmp_path / "result", tmp_path / "adapter")
    before = tensors(wide)
    assert {name for name, array in tensors(result).items() if not equal(array, before[name])} == {scalar}


def test_a_source_in_other_spellings_gives_the_same_result(base: Path, adapter: Path, tmp_path: Path) -> None:
    """One tensor per expert, a tied copy, and the expert tensors under the names of the MLX layout."""
    expected = tensors(fused(base, tmp_path / "expected", adapter))
    held = tensors(base)
    split = {"lm_head.weight": held["model.decoder.embed_tokens.weight"]}
    for name, value in held.items():
        match = EXPERTS.fullmatch(name)
        if match is None or f"{LAST}." in name:
            split[our_name(name)] = value
            continue
        for expert in range(value.shape[0]):
            if match[2] == "down":
                split[f"{match[1]}.{expert}.down_proj.weight"] = value[expert]
            else:
                split[f"{match[1]}.{expert}.gate_proj.weight"] = value[expert, :64]
                split[f"{match[1]}.{expert}.up_proj.weight"] = value[expert, 64:]
    shutil.copytree(base, tmp_path / "split")
    rewrite(tmp_path / "split", split)
    found = tensors(fused(tmp_path / "split", tmp_path / "found", adapter))
    assert found.keys() == expected.keys()
    assert all(equal(found[name], array) for name, array in expected.items())


@pytest.mark.parametrize("kind", ["base", "packed", "dequantized"])
def test_mlx_vlm_computes_the_same_from_the_result(
    kind: str, adapter: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(kind.replace("dequantized", "packed"))
    assert_same_logits(fused(source, tmp_path / "result", adapter, dequantize=kind == "dequantized"))


@pytest.mark.parametrize(
    "layout", ["google", "mlx-0710_4bit", "mlx-f044_4bit", "mlx-f044_mxfp4", "mlx-f044_nvfp4", "mlx-063_8bit"]
)
@pytest.mark.parametrize("dequantize", [False, True])
def test_the_published_layouts_keep_names_shapes_and_dtypes(layout: str, dequantize: bool) -> None:
    raw = json.loads((PUBLISHED / f"{layout}.config.json").read_text())

    def held(name: str) -> dict[str, tuple[tuple[int, ...], str]]:
        listed = json.loads((PUBLISHED / f"{name}.shapes.json").read_text())
        return {key: (tuple(shape), DTYPES[dtype]) for key, (shape, dtype) in listed.items()}

    infos = {name: info(name, shape, dtype) for name, (shape, dtype) in held(layout).items()}
    path = f"{LAST}.self_attn.q_proj"
    low_rank = {f"{path}.lora_a": (2816, 8), f"{path}.lora_b": (8, 4096)}
    sources = {name: TensorSource(parts=(info(name, shape, "F32"),), shape=shape) for name, shape in low_rank.items()}
    wanted = FusionOptions(source=Path(), destination=Path(), adapter=Path(), name="", dequantize=dequantize)
    plan, count = plan_fusion(
        wanted,
        parse_config(raw),
        parse_table(raw),
        sort_tensors(infos),
        Adapter(folder=Path(), tensors=sources, scale=1.0),
    )
    found = {entry.name: (entry.shape, entry.dtype) for parameter in plan.parameters for entry in parameter.entries}
    assert found == held("google" if dequantize else layout)
    assert count == 1


DTYPES = {"uint32": "U32", "uint8": "U8", "bfloat16": "BF16", "BF16": "BF16"}


def info(name: str, shape: tuple[int, ...], dtype: str) -> TensorInfo:
    """Return a tensor without a file."""
    return TensorInfo(name=name, file=Path("nowhere"), dtype=dtype, shape=shape, offset=0)


def test_another_adapter_starts_over_and_the_same_one_goes_on(
    base: Path, adapter: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    wanted = FusionOptions(
        source=base,
        destination=tmp_path / "result",
        adapter=tmp_path / "adapter",
        name="base",
        max_shard_bytes=SMALL_SHARDS,
    )

    def interrupt() -> WriteStarted:
        events = fuse(wanted)
        started = next(events)
        assert isinstance(started, WriteStarted)
        for _ in events:
            if len(list((tmp_path / "result.partial").glob("model-*.safetensors"))) == 5:
                break
        events.close()
        return started

    assert interrupt().done_bytes == 0
    assert interrupt().done_bytes > 0
    edit_json(tmp_path / "adapter" / adapters.ADAPTER_CONFIG, {"lora_parameters": {"rank": 4, "scale": 3.0}})
    assert interrupt().done_bytes == 0
    assert "starting over" in caplog.text
    finish(fuse(wanted))
    expected = fused(base, tmp_path / "expected", tmp_path / "adapter", max_shard_bytes=SMALL_SHARDS)
    for file in expected.glob("*.safetensors"):
        assert (tmp_path / "result" / file.name).read_bytes() == file.read_bytes()


def edited(name: str, value: Any) -> Callable[[Path], None]:
    """Change a key of an adapter's configuration."""
    return lambda folder: edit_json(folder / adapters.ADAPTER_CONFIG, {name: value})


def with_tensor(name: str, array: mx.array | None) -> Callable[[Path], None]:
    """Add, replace or remove a tensor of an adapter."""

    def change(folder: Path) -> None:
        held = mx.load(str(folder / adapters.WEIGHTS))
        held.pop(name, None)
        mx.eval(held)
        mx.save_safetensors(str(folder / adapters.WEIGHTS), held if array is None else {**held, name: array})

    return change


def with_text(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text)


QUERY = f"{LAST}.self_attn.q_proj"
BAD_ADAPTERS: list[tuple[Callable[[Path], object], str]] = [
    (shutil.rmtree, "no adapter at .*: it is a folder with adapters.safetensors and adapter_config.json"),
    (lambda folder: (folder / adapters.ADAPTER_CONFIG).unlink(), "cannot be used: .* has no adapter_config.json"),
    (with_text(adapters.ADAPTER_CONFIG, "{"), "cannot be used: .*adapter_config.json"),
    (with_text(adapters.ADAPTER_CONFIG, "[]"), "cannot be used: .*adapter_config.json"),
    (lambda folder: (folder / adapters.WEIGHTS).unlink(), "has no adapters.safetensors"),
    (with_text(adapters.WEIGHTS, "x" * 100), "adapters.safetensors is truncated or not a safetensors file"),
    (lambda folder: os.truncate(folder / adapters.WEIGHTS, 5000), "adapters.safetensors is truncated"),
    (lambda folder: mx.save_safetensors(str(folder / adapters.WEIGHTS), {}), "holds no tensors"),
    (edited("fine_tune_type", "dora"), "is of the type 'dora': only lora and full can be fused"),
    (edited("fine_tune_type", ["lora"]), r"is of the type \['lora'\]"),
    (edited("fine_tune_type", "full"), r"was made for another model: the model has no .*lora_a"),
    (edited("lora_parameters", {"rank": 4, "alpha": 8}), "has no number lora_parameters.scale"),
    (edited("lora_parameters", None), "has no number lora_parameters.scale"),
    (edited("lora_parameters", {"scale": math.nan}), "has no number lora_parameters.scale"),
    (
        with_tensor("model.layers.0.mlp.up_proj.lora_a", mx.zeros((4, 4))),
        "another model: model.layers.0",
    ),
    (
        with_tensor("model.decoder.embed_tokens.lora_a", mx.zeros((4, 4))),
        "embed_tokens.lora_a belongs to no",
    ),
    (with_tensor(f"{QUERY}.m", mx.zeros((128,))), "q_proj.m belongs to no linear map"),
    (with_tensor(f"{QUERY}.lora_b", None), "it has no .*q_proj.lora_b"),
    (with_tensor(f"{QUERY}.lora_a", mx.zeros((32, 4))), r"q_proj.lora_a is \[32, 4\], but the model needs \[64, 4\]"),
    (with_tensor(f"{QUERY}.lora_b", mx.zeros((5, 256))), r"lora_b is \[5, 256\], but the model needs \[4, 256\]"),
    (with_tensor(f"{QUERY}.lora_a", mx.zeros((64,))), r"lora_a is \[64\], but the model needs \[64, 1\]"),
    (with_tensor(f"{LAST}.experts.down_proj.lora_a", mx.zeros((4, 64))), r"is \[4, 64\], .* needs \[4, 64, 64\]"),
    (
        with_tensor(f"{QUERY}.lora_a", mx.zeros((64, 4), mx.int32)),
        r"lora_a .* is I32 \[64, 4\]: it must hold values in BF16, F16, F32",
    ),
    (
        with_tensor(f"{QUERY}.lora_a", mx.full((64, 4), math.nan)),
        "q_proj.lora_a of the adapter .* NaN or Inf: use an adapter that was saved earlier",
    ),
    (with_tensor(f"{QUERY}.lora_b", mx.full((4, 256), -math.inf)), "q_proj.lora_b of the adapter .* NaN or Inf"),
]


@pytest.mark.parametrize(("damage", "message"), BAD_ADAPTERS, ids=[message for _, message in BAD_ADAPTERS])
def test_an_adapter_that_cannot_be_fused_is_named_and_nothing_is_written(
    base: Path, adapter: Path, tmp_path: Path, damage: Callable[[Path], object], message: str
) -> None:
    shutil.copytree(adapter, tmp_path / "adapter")
    damage(tmp_path / "adapter")
    with pytest.raises(DiffGemmaError, match=message):
        fused(base, tmp_path / "result", tmp_path / "adapter")
    assert {path.name for path in tmp_path.iterdir()} <= {"adapter"}


def test_a_full_training_of_another_model_is_named(base: Path, full: Path, tmp_path: Path) -> None:
    shutil.copytree(full, tmp_path / "adapter")
    with_tensor("model.decoder.norm.weight", mx.zeros((32,)))(tmp_path / "adapter")
    with pytest.raises(AdapterError, match=r"model.decoder.norm.weight is \[32\], but the model needs \[64\]"):
        fused(base, tmp_path / "result", tmp_path / "adapter")


def linear_maps(base: Path) -> dict[str, tuple[int, int]]:
    """Path in the decoder -> (out, in) of every linear map of the layers and of the self-conditioning."""
    shapes = text_shapes(parse_config(read_json(base / "config.json")))
    return {
        name.removeprefix("model.decoder.").removesuffix(".weight"): (shape[0], shape[1])
        for name, shape in shapes.items()
        if name.endswith("_proj.weight") and len(shape) == 2
    }


@pytest.mark.parametrize("kind", ["wide", "packed"])
@pytest.mark.usefixtures("small_chunks")
def test_an_adapter_of_peft_is_fused(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    source: Path = request.getfixturevalue(kind)
    change = factors(linear_maps(source))
    reads = {path: pair for path, pair in change.items() if path.startswith("layers.")}
    adapter = write_peft(tmp_path / "adapter", changes={"encoder": reads, "decoder": change})
    result = fused(source, tmp_path / "result", adapter, dequantize=kind == "packed", dtype="F32")
    assert distance(logits(result), logits(source, adapter)) < 1e-5
    assert distance(logits(result), logits(source)) > 0.1


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            {"decoder": QUERY},
            "the encoder and of the decoder differently.*: use it with --adapter",
        ),
        (
            {"decoder": "layers.9.mlp.up_proj", "encoder": "layers.9.mlp.up_proj"},
            "layers.9.mlp.up_proj is no linear map",
        ),
        ({"decoder": "embed_tokens"}, "embed_tokens is no linear map"),
        ({"decoder": "self_conditioning.up_proj"}, r"up_proj is \[8, 8\], but the model needs \[64, 64\]"),
    ],
)
def test_an_adapter_of_peft_that_cannot_be_fused_is_named_and_nothing_is_written(
    base: Path, tmp_path: Path, paths: dict[str, str], message: str
) -> None:
    changes = {mode: factors({path.removeprefix("model.decoder."): (8, 8)}) for mode, path in paths.items()}
    write_peft(tmp_path / "adapter", changes=changes)
    with pytest.raises(AdapterError, match=message):
        fused(base, tmp_path / "result", tmp_path / "adapter")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


def test_changes_of_the_vision_tower_cannot_be_fused(base: Path, tmp_path: Path) -> None:
    tower = {f"base_model.model.model.encoder.vision_tower.x.lora_{each}.weight": mx.ones((2, 2)) for each in "AB"}
    write_peft(tmp_path / "adapter", changes={}, extra=tower)
    with pytest.raises(AdapterError, match=r"cannot be fused: it changes model\.encoder\.vision_tower\.x"):
        fused(base, tmp_path / "result", tmp_path / "adapter")


def test_places_that_must_not_be_written_are_refused(base: Path, adapter: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(base, source)
    shutil.copytree(base, tmp_path / "model")
    shutil.copytree(adapter, tmp_path / "model" / "adapter")
    for destination, message in [
        (source, "lies in the source"),
        (source / "fused", "lies in the source"),
        (tmp_path, "holds the source"),
        (tmp_path / "model", "holds the source .*adapter"),
    ]:
        with pytest.raises(ConvertError, match=message):
            fused(source, destination, tmp_path / "model" / "adapter", overwrite=True)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "notes.txt").write_text("mine")
    with pytest.raises(ConvertError, match="exists and is not a DiffusionGemma folder"):
        fused(source, tmp_path / "taken", adapter, overwrite=True)
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["notes.txt"]
    result = fused(source, tmp_path / "result", adapter)
    with pytest.raises(ConvertError, match="exists already: add --overwrite"):
        fused(source, result, adapter)
    fused(source, result, adapter, overwrite=True, dtype="F32")
    assert read_json(result / "config.json")["dtype"] == "float32"


def test_a_dtype_of_a_packed_result_is_refused(packed: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="add --dequantize"):
        fused(packed, tmp_path / "result", adapter, dtype="F32")


def test_a_full_disk_is_noticed_before_anything_is_written(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100_000))
    with pytest.raises(ConvertError, match=r"has 100\.00 kB free, and the conversion needs \d+\.\d+ kB"):
        fused(base, tmp_path / "result", adapter)
    assert not (tmp_path / "result").exists()


def test_a_base_that_is_none_is_named(base: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="holds an adapter: name its model"):
        fused(adapter, tmp_path / "result", adapter)
    shutil.copytree(base, tmp_path / "base")
    held = tensors(base)
    del held[f"{LAST}.router.scale"]
    rewrite(tmp_path / "base", held)
    with pytest.raises(DiffGemmaError, match=r"layers\.2\.router\.scale is missing"):
        fused(tmp_path / "base", tmp_path / "result", adapter)


def program(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program in a process, as a user does."""
    return python("-m", "mlx_diffgemma.fuse", *map(str, arguments))


def call(*arguments: str | Path) -> int:
    """Run the program within this process; return its exit code."""
    with pytest.raises(SystemExit) as stopped:
        app([str(argument) for argument in arguments], prog_name="mlx_diffgemma.fuse")
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_the_program_prints_its_table(base: Path, adapter: Path, tmp_path: Path) -> None:
    done = program(base, tmp_path / "result", "--adapter", adapter)
    assert (done.returncode, done.stderr) == (0, "")
    assert "The adapter changed 20 of 105 parameters." in done.stdout
    assert "attention" in done.stdout
    assert distance(logits(tmp_path / "result"), logits(base, adapter)) < 0.02


def test_every_option_reaches_the_result(packed: Path, adapter: Path, tmp_path: Path) -> None:
    result = tmp_path / "result"
    wanted = [packed, result, "--adapter", adapter]
    assert call(*wanted, "--quiet", "--max-shard-size", "0.1MB") == 0
    assert len(list(result.glob("*.safetensors"))) > 1
    assert read_json(result / "config.json")["quantization"]["bits"] == 4
    assert call(*wanted) == 1
    assert call(*wanted, "--overwrite", "--dequantize", "--dtype", "float32", "--debug") == 0
    assert {array.dtype for name, array in tensors(result).items() if "vision" not in name} == {mx.float32}


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("nowhere {result} --adapter {adapter}", 1, "error: no such folder: nowhere"),
        ("{base} {result} --adapter nowhere", 1, "error: no adapter at"),
        ("{base} {result} --adapter {adapter} --revision main", 1, "error: .* a revision goes with"),
        ("{base} {result}", 2, "error: missing option '--adapter'"),
        ("{base} {result} --adapter {adapter} --dtype float16", 2, "error: .*'float16' is not one of"),
        ("{base} {result} --adapter {adapter} --max-shard-size big", 2, "error: .*'big' is not a size"),
    ],
)
def test_failures_are_one_line_and_write_nothing(
    base: Path, adapter: Path, tmp_path: Path, *, command: str, code: int, message: str
) -> None:
    places = {"base": base, "adapter": adapter, "result": tmp_path / "result"}
    done = program(*command.format(**places).split())
    assert (done.returncode, done.stdout) == (code, "")
    assert re.match(message, done.stderr.splitlines()[-1])
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_the_number_of_layers(tmp_path: Path) -> None:
    peaks: list[int] = []
    for layers in (2, 16):
        write_checkpoint(tmp_path / "source", layers=layers, width="mid")
        low_rank(tmp_path / "source", tmp_path / "adapter")
        arguments = [str(tmp_path / name) for name in ("source", "result")]
        command = [sys.executable, "-m", "mlx_diffgemma.fuse", *arguments, "--adapter", str(tmp_path / "adapter")]
        peaks.append(measure(command, tmp_path / "result").peak)
    assert peaks[1] - peaks[0] < 40e6


def low_rank(source: Path, folder: Path) -> None:
    """Write an adapter to every linear map of every layer, without loading the model."""
    random = np.random.default_rng(0)
    held: dict[str, mx.array] = {}
    for name, shape in text_shapes(parse_config(read_json(source / "config.json"))).items():
        if not re.fullmatch(r".*\.layers\..*_proj\.weight", name):
            continue
        module, (*experts, outputs, inputs) = name.removesuffix(".weight"), shape
        shapes = ((*experts, 8, inputs), (*experts, outputs, 8)) if experts else ((inputs, 8), (8, outputs))
        for part, size in zip(("lora_a", "lora_b"), shapes, strict=True):
            held[f"{module}.{part}"] = mx.array(0.02 * random.standard_normal(size, dtype=np.float32))
    folder.mkdir(exist_ok=True)
    mx.save_safetensors(str(folder / adapters.WEIGHTS), held)
    (folder / adapters.ADAPTER_CONFIG).write_text('{"fine_tune_type": "lora", "lora_parameters": {"scale": 2.0}}')
