"""Damaged and incomplete files are named before a tensor is read."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_diffgemma.checkpoint.safetensors import INDEX, read_folder, read_header
from mlx_diffgemma.errors import ConfigError, ModelNotFoundError, WeightsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two shards and their index."""
    mx.save_safetensors(str(tmp_path / "one.safetensors"), {"a": mx.zeros((2, 3)), "b": mx.zeros((4,), mx.bfloat16)})
    mx.save_safetensors(str(tmp_path / "two.safetensors"), {"c": mx.zeros((5,), mx.uint32)})
    weight_map = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    return tmp_path


def test_headers_hold_names_shapes_dtypes_and_positions(folder: Path) -> None:
    tensors = read_folder(folder)
    assert {name: (info.dtype, info.shape, info.nbytes) for name, info in tensors.items()} == {
        "a": ("F32", (2, 3), 24),
        "b": ("BF16", (4,), 8),
        "c": ("U32", (5,), 20),
    }
    info = tensors["a"]
    assert info.file.read_bytes()[info.offset : info.offset + info.nbytes] == bytes(24)


def test_a_folder_without_an_index_is_read_whole(folder: Path) -> None:
    (folder / INDEX).unlink()
    assert set(read_folder(folder)) == {"a", "b", "c"}


def test_a_shard_that_the_index_does_not_name_is_not_read(folder: Path) -> None:
    mx.save_safetensors(str(folder / "left-over.safetensors"), {"a": mx.ones((9,))})
    assert read_folder(folder)["a"].shape == (2, 3)


def test_an_index_that_names_a_missing_file(folder: Path) -> None:
    (folder / "two.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"names two\.safetensors, which is not in"):
        read_folder(folder)


def test_an_index_that_names_the_wrong_shard_for_a_tensor(folder: Path) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": "two.safetensors"}}))
    with pytest.raises(WeightsError, match=r"says that a is in two\.safetensors, but it is not"):
        read_folder(folder)


@pytest.mark.parametrize("keep", [0, 4, 50, -1])
def test_a_truncated_shard_is_named(folder: Path, keep: int) -> None:
    file = folder / "one.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(WeightsError, match=r"one\.safetensors is truncated"):
        read_folder(folder)


@pytest.mark.parametrize(
    "header",
    [
        b"{",
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": {"shape": [1], "data_offsets": [0, 4]}}',
        b'{"a": 3}',
        b'{"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]}}',
        b'{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "b": {"dtype": "F32", "shape": [1], '
        b'"data_offsets": [0, 4]}}',
        b"[" * 100_000,
        b"[1, 2]",
    ],
)
def test_a_damaged_header_is_named(tmp_path: Path, header: bytes) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes(len(header).to_bytes(8, "little") + header + bytes(64))
    with pytest.raises(WeightsError, match=r"bad\.safetensors has a damaged header"):
        read_header(file)


def test_a_broken_index_is_named(folder: Path) -> None:
    (folder / INDEX).write_text("{")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        read_folder(folder)
    (folder / INDEX).write_text('{"weight_map": {"a": 1}}')
    with pytest.raises(WeightsError, match="has names of files that are not text"):
        read_folder(folder)
    (folder / INDEX).write_text("{}")
    with pytest.raises(WeightsError, match="has no weight_map"):
        read_folder(folder)


def test_a_folder_without_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"has no \*\.safetensors file"):
        read_folder(tmp_path)
