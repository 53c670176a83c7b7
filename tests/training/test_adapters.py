"""Adapters as files: written here, read here and by mlx-lm; and what does not fit is named in one line."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from mlx.utils import tree_flatten, tree_map
from mlx_lm.tuner.utils import load_adapters
from tiny import denoised, encoded, processed, random_model, tiny_config

from mlx_diffgemma import load
from mlx_diffgemma.checkpoint.adapters import (
    ATTENTION,
    DENSE,
    EXPERTS,
    ROUTER,
    LoRA,
    adapter_config,
    attach_adapter,
    load_adapter,
)
from mlx_diffgemma.checkpoint.adapters import save_adapter as save
from mlx_diffgemma.checkpoint.weights import Checkpoint
from mlx_diffgemma.errors import AdapterError, OptionError
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.lora import LoRAExpertLinear

EVERYTHING = ATTENTION + DENSE + EXPERTS + ROUTER
TOKENS, PLACES = mx.random.randint(0, 64, (1, 11), key=mx.random.key(1)), mx.random.key(2)


def logits(model: DiffusionGemma) -> mx.array:
    """What the decoder says of a canvas with conditioning, and the encoder of the prompt."""
    vocabulary = model.config.vocab_size
    canvas = mx.random.randint(0, vocabulary, (1, model.config.canvas_length), key=PLACES)
    cache = model.make_cache()
    causal = model.logits(encoded(model, TOKENS, cache))
    first = denoised(model, canvas, cache)
    return mx.concatenate([causal, denoised(model, canvas, cache, model.signal(processed(first)))], axis=1)


def largest(difference: mx.array) -> float:
    return mx.abs(difference).max().item()


def trained(lora: LoRA, model: DiffusionGemma | None = None) -> DiffusionGemma:
    """A model with an adapter that changes it, as if it had been trained."""
    model = model or random_model()
    attach_adapter(model, lora, seed=0)
    keys = iter(mx.random.split(mx.random.key(5), 1000))
    change = tree_map(
        lambda array: array + 0.1 * mx.random.normal(array.shape, key=next(keys)), model.trainable_parameters()
    )
    model.update(change)
    model.freeze()
    return model


def written(folder: Path, lora: LoRA | None = None) -> DiffusionGemma:
    """Write the adapter of a trained model into `folder`; the model."""
    lora = lora or LoRA(rank=3, alpha=6.0)
    model = trained(lora)
    model.unfreeze(keys=["lora_a", "lora_b"])
    save(folder, model, adapter_config(lora, model, {"data": "here"}))
    return model


def names(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every tensor of an adapter."""
    return {name: tuple(array.shape) for name, array in mx.load(str(folder / "adapters.safetensors")).items()}


# files


@pytest.mark.parametrize("keys", [ATTENTION + DENSE, EXPERTS, EVERYTHING])
@pytest.mark.parametrize("reader", [load_adapter, lambda model, folder: load_adapters(model, str(folder))])
def test_a_saved_adapter_says_the_same_when_it_is_loaded(
    tmp_path: Path, keys: tuple[str, ...], reader: Callable[[DiffusionGemma, Path], object]
) -> None:
    """By this package and by mlx-lm; with the same operations the logits are equal, bit for bit."""
    expected = logits(written(tmp_path, LoRA(rank=3, alpha=6.0, keys=keys)))
    model = random_model()
    assert largest(logits(model) - expected) > 0.1
    reader(model, tmp_path)
    assert mx.array_equal(logits(model), expected)


def test_a_model_is_loaded_with_its_adapter(demo: Path, tmp_path: Path) -> None:
    lora = LoRA(rank=2, layers=1)
    first = trained(lora, load(demo).model)
    first.unfreeze(keys=["lora_a", "lora_b"])
    save(tmp_path, first, adapter_config(lora, first, {}))
    second = load(demo, adapter=tmp_path).model
    assert mx.array_equal(logits(second), logits(first))
    assert largest(logits(load(demo).model) - logits(first)) > 0.01


def test_a_loaded_adapter_leaves_nothing_to_train(tmp_path: Path) -> None:
    written(tmp_path)
    model = random_model()
    load_adapter(model, tmp_path)
    assert tree_flatten(model.trainable_parameters()) == []


def test_a_full_training_is_loaded_in_the_dtype_of_the_model(tmp_path: Path) -> None:
    other = random_model(seed=1)
    save(tmp_path, other, adapter_config(None, other, {}))
    model = random_model()
    load_adapter(model, tmp_path)
    assert mx.array_equal(logits(model), logits(other))
    half = random_model()
    half.set_dtype(mx.bfloat16)
    load_adapter(half, tmp_path)
    assert {array.dtype for _, array in tree_flatten(half.parameters())} == {mx.bfloat16}


def test_the_files_are_those_of_mlx_lm_and_nothing_else(tmp_path: Path) -> None:
    """Written a second time they replace the first."""
    for _ in range(2):
        written(tmp_path, LoRA(rank=3, alpha=6.0, layers=2))
    assert {file.name for file in tmp_path.iterdir()} == {"adapters.safetensors", "adapter_config.json"}
    assert json.loads((tmp_path / "adapter_config.json").read_text()) == {
        "fine_tune_type": "lora",
        "num_layers": 2,
        "lora_parameters": {"rank": 3, "scale": 2.0, "dropout": 0.0, "keys": [*ATTENTION, *DENSE]},
        "data": "here",
    }


@pytest.fixture
def small_disk() -> Iterator[None]:
    """Let no file grow beyond 100 bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_disk")
def test_a_disk_that_is_full_is_one_line_and_leaves_no_partial_file(tmp_path: Path) -> None:
    (tmp_path / "adapters.safetensors").write_text("old")
    with pytest.raises(
        AdapterError, match=r"cannot be saved in .*: check its permissions and the free space"
    ) as caught:
        written(tmp_path)
    assert "\n" not in str(caught.value)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("adapters.safetensors", "old")]


# rank, keys, layers


def test_rank_and_sizes_are_those_of_the_adapted_maps(tmp_path: Path) -> None:
    written(tmp_path, LoRA(rank=5, keys=EVERYTHING))
    found, at = names(tmp_path), "model.decoder.layers.0."
    assert found[f"{at}self_attn.q_proj.lora_a"] == (32, 5)
    assert found[f"{at}self_attn.q_proj.lora_b"] == (5, 32)
    assert found[f"{at}mlp.down_proj.lora_a"] == (48, 5)
    assert found[f"{at}router.proj.lora_b"] == (5, 6)
    assert found[f"{at}experts.gate_up_proj.lora_a"] == (6, 5, 32)
    assert found[f"{at}experts.gate_up_proj.lora_b"] == (6, 32, 5)
    assert found[f"{at}experts.down_proj.lora_a"] == (6, 5, 16)
    assert found[f"{at}experts.down_proj.lora_b"] == (6, 32, 5)


@pytest.mark.parametrize("keys", [("self_attn.q_proj",), ATTENTION, DENSE, EXPERTS])
def test_only_the_modules_named_are_adapted(tmp_path: Path, keys: tuple[str, ...]) -> None:
    """Full layers have no v_proj: nothing is there to adapt."""
    written(tmp_path, LoRA(rank=2, keys=keys))
    found = {name.partition(".layers.")[2].rpartition(".")[0] for name in names(tmp_path)}
    expected = {f"{layer}.{key}" for layer in range(4) for key in keys}
    assert found == expected - {"1.self_attn.v_proj", "3.self_attn.v_proj"}


@pytest.mark.parametrize(("layers", "adapted"), [(None, "0123"), (1, "3"), (2, "23"), (4, "0123"), (99, "0123")])
def test_the_last_layers_are_adapted(tmp_path: Path, layers: int | None, adapted: str) -> None:
    written(tmp_path, LoRA(rank=2, layers=layers))
    assert {name.partition(".layers.")[2][0] for name in names(tmp_path)} == set(adapted)
    assert json.loads((tmp_path / "adapter_config.json").read_text())["num_layers"] == len(adapted)
    load_adapter(random_model(), tmp_path)


def test_an_adapter_changes_nothing_before_it_is_trained() -> None:
    model = random_model()
    before = logits(model)
    attach_adapter(model, LoRA(rank=4, keys=EVERYTHING), seed=0)
    assert mx.array_equal(logits(model), before)
    assert {name.rpartition(".")[2] for name, _ in tree_flatten(model.trainable_parameters())} == {"lora_a", "lora_b"}


def test_the_seed_decides_what_an_adapter_begins_as() -> None:
    def beginning(seed: int) -> dict[str, mx.array]:
        model = random_model()
        attach_adapter(model, LoRA(rank=2), seed)
        return dict(tree_flatten(model.trainable_parameters()))

    first, again, other = beginning(1), beginning(1), beginning(2)
    assert all(mx.array_equal(first[name], again[name]) for name in first)
    assert not any(mx.array_equal(first[name], other[name]) for name in first if name.endswith("lora_a"))


@pytest.mark.parametrize(
    ("name", "value"),
    [("rank", 0), ("rank", -2), ("layers", 0), ("alpha", 0.0), ("alpha", float("nan")), ("alpha", float("inf"))],
)
def test_an_adapter_that_makes_no_sense_is_named(name: str, value: float) -> None:
    with pytest.raises(OptionError, match=rf"^{name}={value} must be "):
        LoRA(**{name: value})


# experts


def with_changes(model: DiffusionGemma, base: DiffusionGemma) -> DiffusionGemma:
    """`base` with the change of every adapted module of `model` added to its weights."""
    for place, layer in enumerate(model.layers):
        for path, module in layer.named_modules():
            if not hasattr(module, "lora_a"):
                continue
            expert = isinstance(module, LoRAExpertLinear)
            change = module.change() if expert else module.scale * (module.lora_a @ module.lora_b).T
            target: nn.Module = dict(base.layers[place].named_modules())[path]
            target.weight = target.weight + change
    return base


@pytest.mark.parametrize("keys", [EXPERTS, EVERYTHING])
def test_an_adapter_is_the_base_plus_its_change(keys: tuple[str, ...]) -> None:
    """W x + s B (A x) against (W + s B A) x: float32 sums in another order, through four layers; logits to 30."""
    model = trained(LoRA(rank=3, alpha=6.0, keys=keys))
    assert largest(logits(with_changes(model, random_model())) - logits(model)) < 1e-3
    assert largest(logits(random_model()) - logits(model)) > 0.1


@pytest.mark.parametrize("tokens", [1, 300])
def test_adapted_packed_experts_are_the_unpacked_ones_plus_the_change(tokens: int) -> None:
    """One token and a batch of tall tiles; 4-bit weights of order 0.2, sums of 64 products."""
    config = tiny_config(hidden_size=64, moe_intermediate_size=64, num_experts=2)
    model = random_model(replace(config, layers=config.layers[:1]))
    experts = model.layers[0].experts
    nn.quantize(experts, group_size=64, bits=4)
    unpacked = {
        name: mx.dequantize(experts[name].weight, experts[name].scales, experts[name].biases, group_size=64, bits=4)
        for name in ("gate_up_proj", "down_proj")
    }
    hidden = mx.random.normal((tokens, 64), key=mx.random.key(3))
    weights, indices = model.layers[0].router(hidden)
    adapted = trained(LoRA(rank=3, keys=EXPERTS), model).layers[0].experts
    found = adapted(hidden, weights, indices)
    plain = random_model(replace(config, layers=config.layers[:1])).layers[0].experts
    for name, weight in unpacked.items():
        plain[name].weight = weight + adapted[name].change()
    expected = plain(hidden, weights, indices)
    assert largest(found - expected) < 1e-4 * largest(expected)


# what does not fit


def refusal(folder: Path, model: DiffusionGemma | None = None) -> str:
    """What is said against an adapter: one line of reasonable length that names its folder."""
    with pytest.raises(AdapterError) as caught:
        load_adapter(model or random_model(), folder)
    complaint = str(caught.value)
    assert "\n" not in complaint
    assert str(folder) in complaint
    assert len(complaint) < 1000
    return complaint


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    expected = "it is a folder with adapters.safetensors and adapter_config.json"
    assert refusal(tmp_path / "absent") == f"no adapter at {tmp_path}/absent: {expected}"
    (tmp_path / "file").write_text("")
    assert refusal(tmp_path / "file") == f"no adapter at {tmp_path}/file: {expected}"


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def config(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "adapter_config.json").write_text(text)


def edited(**changes: Any) -> Callable[[Path], object]:
    """Keys of adapter_config.json replaced; None removes one."""

    def edit(folder: Path) -> None:
        path = folder / "adapter_config.json"
        merged = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({name: value for name, value in merged.items() if value is not None}))

    return edit


def cut_off(folder: Path) -> None:
    path = folder / "adapters.safetensors"
    path.write_bytes(path.read_bytes()[:-500])


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no weights": (without("adapters.safetensors"), "has no adapters.safetensors"),
    "no configuration": (without("adapter_config.json"), "cannot be used: "),
    "configuration cut off": (config('{"fine_tune'), "cannot be used: "),
    "configuration of another kind": (config("[]"), "cannot be used: "),
    "no parameters": (edited(lora_parameters=None), "does not fit the model: "),
    "no scale": (edited(lora_parameters={"rank": 3}), "does not fit the model: "),
    "a scale that is a text": (
        edited(lora_parameters={"rank": 3, "scale": "2", "dropout": 0.0, "keys": [*ATTENTION, *DENSE]}),
        "cannot be used: adapter_config.json has no number lora_parameters.scale",
    ),
    "parameters of another kind": (edited(lora_parameters=[1]), "does not fit the model: "),
    "layers that are no number": (edited(num_layers="all"), "does not fit the model: "),
    "weights cut off": (cut_off, "does not fit the model: "),
    "weights of another kind": (
        lambda folder: (folder / "adapters.safetensors").write_text("weights"),
        "does not fit the model: ",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_adapter_is_named_with_its_folder(tmp_path: Path, damage: str) -> None:
    written(tmp_path)
    harm, complaint = DAMAGES[damage]
    harm(tmp_path)
    assert refusal(tmp_path).startswith(f"the adapter in {tmp_path} {complaint}")


def test_an_adapter_of_another_model_is_named_with_what_does_not_fit(tmp_path: Path) -> None:
    written(tmp_path, LoRA(rank=3, keys=EVERYTHING))
    wider = refusal(tmp_path, random_model(tiny_config(hidden_size=64)))
    assert wider.startswith(f"the adapter in {tmp_path} does not fit the model: ")
    assert "adapter shape (32, 3) does not match model parameter shape (64, 3)" in wider
    shallower = refusal(tmp_path, random_model(tiny_config(layers=tiny_config().layers[2:])))
    assert "not an adapter parameter in the model" in shallower
    assert shallower.endswith(" more)")


def test_an_adapter_that_is_not_there_is_named_before_the_weights_are_read(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Checkpoint, "load", lambda self: pytest.fail("the weights were read"))
    with pytest.raises(AdapterError, match="no adapter at "):
        load(demo, adapter=tmp_path / "absent")
