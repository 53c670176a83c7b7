"""FP8 and NVFP4 checkpoints of other tools: the converter computes their values, and the runtime names the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
import pytest
from convert_helpers import MIXED_4, edit_json, equal, options, run, tensors, tiny_source
from mlx_diffgemma_convert import chunks
from mlx_diffgemma_convert.recipe import Recipe

from mlx_diffgemma.checkpoint.names import BARE_EXPERTS
from mlx_diffgemma.checkpoint.weights import load_model
from mlx_diffgemma.errors import DiffGemmaError, QuantizationError, WeightsError

Held: TypeAlias = dict[str, tuple[str, Any]]
"""name -> dtype as safetensors spells it, and the values"""
Pack: TypeAlias = Callable[[str, mx.array], tuple[Held, mx.array]]
"""name and values of a matrix -> its tensors, and the values that they mean"""
FP4 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
"""The magnitudes that NVFP4 has."""


def fp8(
    name: str, values: mx.array, scale: mx.array, dtype: str = "F32", suffix: str = "_scale"
) -> tuple[Held, mx.array]:
    """values / scale in FP8; scale is broadcast, and saved as it is."""
    stored = mx.to_fp8(values / scale)
    return {name: ("F8_E4M3", stored), name + suffix: (dtype, scale)}, mx.from_fp8(stored, mx.float32) * scale


def per_tensor(name: str, values: mx.array) -> tuple[Held, mx.array]:
    held, meant = fp8(name, values, mx.array([[mx.abs(values).max().item() / 448]]))
    held[name + "_scale"] = ("F32", held[name + "_scale"][1].reshape(()))
    held[name.replace(".weight", ".input_scale")] = ("F32", mx.array(0.5))
    return held, meant


def per_row(name: str, values: mx.array) -> tuple[Held, mx.array]:
    scale = (mx.abs(values).max(axis=1, keepdims=True) / 448).astype(mx.bfloat16).astype(mx.float32)
    held, meant = fp8(name, values, scale)
    held[name + "_scale"] = ("BF16", scale)
    return held, meant


def per_block(name: str, values: mx.array) -> tuple[Held, mx.array]:
    """Blocks of 128 x 128, the last ones of each side cut off."""
    rows, columns = values.shape
    grid = (-(-rows // 128), -(-columns // 128))
    scale = 0.001 + 0.001 * mx.arange(grid[0] * grid[1]).astype(mx.float32).reshape(grid)
    wide = mx.repeat(mx.repeat(scale, 128, axis=0), 128, axis=1)[:rows, :columns]
    held, meant = fp8(name, values, wide)
    del held[name + "_scale"]
    held[name + "_scale_inv"] = ("F32", scale)
    return held, meant


def nvfp4(name: str, values: mx.array, *, reciprocal: bool) -> tuple[Held, mx.array]:
    """Slow and obvious: the nearest of 16 values, two per byte, the first one in the low half."""
    array = np.array(values.astype(mx.float32))
    factor = np.float32(np.abs(array).max() / (6 * 448))
    groups = array.reshape(len(array), -1, 16)
    bits = mx.to_fp8(mx.array(np.abs(groups).max(axis=-1) / 6 / factor))  # [rows, groups]
    scales = np.array(mx.from_fp8(bits, mx.float32))
    ratios = (groups / np.maximum(scales * factor, 1e-30)[..., None]).reshape(array.shape)
    codes = np.abs(np.abs(ratios)[..., None] - FP4).argmin(axis=-1).astype(np.uint8)
    meant = mx.array(np.sign(ratios) * FP4[codes] * np.repeat(scales, 16, axis=1))
    codes |= (ratios < 0).astype(np.uint8) << 3
    stored = mx.array(codes[:, ::2] | codes[:, 1::2] << 4)
    if reciprocal:
        held = {
            name + "_packed": ("U8", stored),
            name + "_scale": ("F8_E4M3", bits),
            name + "_global_scale": ("F32", divisor := mx.array([1 / float(factor)])),
            name.replace(".weight", ".input_global_scale"): ("F32", mx.array([1.0])),
        }
        return held, meant / divisor
    held = {
        name: ("U8", stored),
        name + "_scale": ("F8_E4M3", bits),
        name + "_scale_2": ("F32", mx.array(float(factor))),
    }
    return held, meant * float(factor)


def of_compressed_tensors(name: str, values: mx.array) -> tuple[Held, mx.array]:
    return nvfp4(name, values, reciprocal=True)


def of_modelopt(name: str, values: mx.array) -> tuple[Held, mx.array]:
    return nvfp4(name, values, reciprocal=False)


def save(folder: Path, held: Mapping[str, tuple[str, Any]]) -> None:
    """Write one file by hand: MLX writes no FP8."""
    header, body = {}, b""
    for name, (dtype, values) in held.items():
        kinds = {"F32": mx.float32, "BF16": mx.bfloat16}
        array = values.astype(kinds[dtype]) if dtype in kinds else values
        data = bytes(np.asarray(array.reshape(-1).view(mx.uint8)).data)
        header[name] = {
            "dtype": dtype, "shape": list(values.shape), "data_offsets": [len(body), len(body) + len(data)],
        }  # fmt: skip
        body += data
    text = json.dumps(header).encode()
    for file in [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]:
        file.unlink()
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + body)


def packed_source(folder: Path, pack: Pack) -> tuple[Path, Path]:
    """Write a checkpoint with all linear maps packed and one tensor per expert; and one of the values that it means."""
    source, meant_folder = tiny_source(folder / "source", layers=2), tiny_source(folder / "meant", layers=2)
    held: Held = {}
    meant: Held = {}
    for name, array in tensors(source).items():
        if name.endswith(BARE_EXPERTS):
            experts, values = name.rpartition(".")[0], []
            for number, expert in enumerate(array.astype(mx.float32)):
                parts = {"gate": expert[: len(expert) // 2], "up": expert[len(expert) // 2 :]}
                parts = parts if "gate_up" in name else {"down": expert}
                for part, matrix in parts.items():
                    found, value = pack(f"{experts}.{number}.{part}_proj.weight", matrix)
                    held |= found
                    values.append(value)
            meant[name] = ("F32", mx.concatenate(values).reshape(array.shape))
        elif name.endswith("_proj.weight"):
            found, value = pack(name, array.astype(mx.float32))
            held |= found
            meant[name] = ("F32", value)
        else:
            held[name] = meant[name] = ("BF16", array)
    save(source, held)
    save(meant_folder, meant)
    edit_json(source / "config.json", {"quantization_config": {"quant_method": "compressed-tensors"}})
    return source, meant_folder


@pytest.mark.parametrize("pack", [per_tensor, per_row, per_block, of_compressed_tensors, of_modelopt])
def test_the_converter_computes_what_the_files_mean(
    tmp_path: Path, pack: Pack, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In chunks of 10 rows of 64 values, which end within experts: as from a checkpoint in float32."""
    monkeypatch.setattr(chunks, "CHUNK_BYTES", 10 * 64 * 4)
    source, meant = packed_source(tmp_path, pack)
    for name, recipe in (("plain", Recipe()), ("packed", MIXED_4)):
        run(options(source, tmp_path / name, recipe))
        run(options(meant, tmp_path / f"{name}-expected", recipe))
        found, expected = tensors(tmp_path / name), tensors(tmp_path / f"{name}-expected")
        assert found.keys() == expected.keys()
        assert all(equal(found[each], expected[each]) for each in expected)
    assert not any("quantization_config" in message for message in caplog.messages)
    assert "quantization_config" not in json.loads((tmp_path / "plain" / "config.json").read_text())


@pytest.mark.parametrize(("rows", "columns"), [(128, 128), (300, 200), (5, 130)])
def test_blocks_that_a_matrix_cuts_off(tmp_path: Path, rows: int, columns: int) -> None:
    name = "model.encoder.vision_tower.x.weight"
    source = tiny_source(tmp_path / "source", layers=1)
    held, meant = per_block(name, mx.random.normal((rows, columns), key=mx.random.key(0)))
    save(source, {each: ("BF16", array) for each, array in tensors(source).items()} | held)
    run(options(source, tmp_path / "result", Recipe()))
    assert equal(tensors(tmp_path / "result")[name], meant.astype(mx.bfloat16))


def test_the_runtime_says_which_conversion_reads_it(tmp_path: Path) -> None:
    source, _ = packed_source(tmp_path, per_row)
    with pytest.raises(WeightsError, match=r"in FP8 or NVFP4 \(.*F8_E4M3\).*: run `mlx_diffgemma convert FOLDER NEW`"):
        load_model(source)


ZEROS = mx.zeros((64, 64), mx.uint8)
NAME = "model.decoder.layers.0.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({NAME: ("F8_E4M3", mx.zeros((8, 8), mx.uint8)), f"{NAME}_scale": ("F32", mx.ones((3,)))}, "neither FP8 nor"),
        (
            {NAME: ("U8", mx.zeros((8, 8), mx.uint8)), f"{NAME}_scale": ("F8_E4M3", mx.ones((8, 1), mx.uint8))},
            "neither",
        ),
        ({NAME: ("F8_E4M3", mx.zeros((64, 64), mx.uint8))}, "up_proj.weight is F8_E4M3: convert a checkpoint in BF16"),
    ],
)
def test_scales_that_do_not_fit_are_named(tmp_path: Path, held: Held, message: str) -> None:
    source = tiny_source(tmp_path / "source", layers=1)
    rest = {each: ("BF16", array) for each, array in tensors(source).items() if each != NAME}
    save(source, {**rest, **held})
    with pytest.raises(DiffGemmaError, match=message):
        run(options(source, tmp_path / "result"))
    assert not (tmp_path / "result").exists()


def test_whole_numbers_of_compressed_tensors_are_named(tmp_path: Path) -> None:
    source = tiny_source(tmp_path / "source", layers=1)
    held = {each: ("BF16", array) for each, array in tensors(source).items()}
    save(source, {**held, f"{NAME}_shape": ("F32", mx.ones((2,)))})
    with pytest.raises(QuantizationError, match="packed by compressed-tensors in whole numbers"):
        run(options(source, tmp_path / "result"))
