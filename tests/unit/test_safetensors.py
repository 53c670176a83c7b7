"""Which files of a folder hold the weights; damaged and incomplete files are named before a tensor is read."""

from __future__ import annotations

import json
from pathlib import Path

import mlx.core as mx
import pytest

from mlx_diffgemma.checkpoint.folder import INDEX, read_config, read_folder
from mlx_diffgemma.checkpoint.safetensors import read_header
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


def test_of_each_file_only_what_the_index_places_there_is_read(folder: Path) -> None:
    """Tools that write a changed tensor into a new file leave the old one where it was."""
    mx.save_safetensors(str(folder / "two.safetensors"), {"a": mx.ones((7,)), "c": mx.zeros((5,)), "x": mx.ones((1,))})
    weight_map = {"a": "two.safetensors", "b": "one.safetensors", "c": "two.safetensors"}
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    tensors = read_folder(folder)
    assert set(tensors) == {"a", "b", "c"}
    assert (tensors["a"].file.name, tensors["a"].shape) == ("two.safetensors", (7,))


def test_one_tensor_in_two_files_without_an_index_is_refused(folder: Path) -> None:
    (folder / INDEX).unlink()
    mx.save_safetensors(str(folder / "three.safetensors"), {"a": mx.ones((9,))})
    with pytest.raises(WeightsError, match=r"a is in one\.safetensors and in three\.safetensors, and no .* says which"):
        read_folder(folder)


@pytest.mark.parametrize("name", ["._one.safetensors", "adapters.safetensors", "adapter_model.safetensors"])
def test_files_that_hold_no_weights_are_passed_over(folder: Path, name: str) -> None:
    (folder / INDEX).unlink()
    (folder / name).write_bytes(b"Mac OS X")
    assert set(read_folder(folder)) == {"a", "b", "c"}


def test_a_second_copy_of_all_weights_is_passed_over(folder: Path) -> None:
    """As `consolidated.safetensors` is, beside the files that transformers reads."""
    (folder / INDEX).unlink()
    for name in ("one", "two"):
        (folder / f"{name}.safetensors").rename(folder / f"model-{name}.safetensors")
    mx.save_safetensors(str(folder / "consolidated.safetensors"), {"a": mx.ones((9,)), "other": mx.ones((1,))})
    assert set(read_folder(folder)) == {"a", "b", "c"}


def test_an_index_of_files_that_are_all_gone_gives_way_to_the_single_file(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A merged model that was saved as one file beside the index of its base."""
    (folder / "one.safetensors").rename(folder / "model.safetensors")
    (folder / "two.safetensors").unlink()
    assert set(read_folder(folder)) == {"a", "b"}
    (line,) = caplog.messages
    assert line == f"{INDEX} names files that are not in {folder}: reading model.safetensors instead"


def test_a_single_file_beside_a_whole_index_is_not_read_and_that_is_said(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mx.save_safetensors(str(folder / "model.safetensors"), {"a": mx.ones((9,))})
    assert read_folder(folder)["a"].shape == (2, 3)
    (line,) = caplog.messages
    assert line.startswith("model.safetensors is not read, because ")


def test_a_shard_that_is_missing_without_an_index_is_named(tmp_path: Path) -> None:
    mx.save_safetensors(str(tmp_path / "model-00001-of-00003.safetensors"), {"a": mx.zeros((1,))})
    mx.save_safetensors(str(tmp_path / "model-00003-of-00003.safetensors"), {"c": mx.zeros((1,))})
    with pytest.raises(WeightsError, match=r"has model-00001-of-00003.*, but not model-00002-of-00003\.safetensors"):
        read_folder(tmp_path)


def test_a_pointer_of_git_lfs_is_called_one(folder: Path) -> None:
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
    (folder / "one.safetensors").write_text(pointer)
    with pytest.raises(WeightsError, match=r"one\.safetensors is a pointer of git-lfs.*: run `git lfs pull`"):
        read_folder(folder)
    (folder / "config.json").write_text(pointer)
    with pytest.raises(ConfigError, match=r"config\.json is a pointer of git-lfs.*: run `git lfs pull`"):
        read_config(folder)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pytorch_model-00001-of-00002.bin", "but *.bin files: load it with transformers and save it"),
        ("model-Q4_K_M.gguf", "but GGUF files, which are llama.cpp's"),
        ("weights.npz", "but *.npz files"),
        ("adapters.safetensors", "holds an adapter and no model: name its model, and this folder with --adapter"),
    ],
)
def test_a_folder_with_weights_of_another_format_is_named_for_what_it_has(
    tmp_path: Path, name: str, expected: str
) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(ModelNotFoundError) as caught:
        read_folder(tmp_path)
    assert expected in str(caught.value)


def test_the_folder_of_an_adapter_is_not_called_a_model_without_config(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match="holds an adapter: name its model, and this folder with --adapter"):
        read_config(tmp_path)


def test_a_shard_that_the_index_does_not_name_is_not_read(folder: Path) -> None:
    mx.save_safetensors(str(folder / "left-over.safetensors"), {"a": mx.ones((9,))})
    assert read_folder(folder)["a"].shape == (2, 3)


def test_an_index_that_names_a_missing_file(folder: Path) -> None:
    (folder / "two.safetensors").unlink()
    with pytest.raises(WeightsError, match=r"names two\.safetensors, which is not in"):
        read_folder(folder)


@pytest.mark.parametrize("name", ["x" * 300, "\0", "", "../elsewhere.safetensors"])
def test_an_index_that_names_what_no_shard_can_be(folder: Path, name: str) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(WeightsError):
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
        b'{"a": {"dtype": "F32", "shape": [true], "data_offsets": [0, 4]}}',
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
