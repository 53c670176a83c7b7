"""The files of a checkpoint's folder: config.json, and which of the *.safetensors files hold the weights.

Beside the weights lie, in folders as people have them: adapters, copies under other names, macOS's `._` files, pointers
of git-lfs, and an index that belongs to other files. Each is passed over, or named for what it is.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from mlx_diffgemma.checkpoint.safetensors import TensorInfo, read_header
from mlx_diffgemma.errors import ModelNotFoundError, WeightsError
from mlx_diffgemma.files import read_json

_logger = logging.getLogger("mlx_diffgemma")

_CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTERS = ("adapters.safetensors", "adapter_model.safetensors")
"""The names of an adapter's weights: mlx-lm's and PEFT's."""
ADAPTER_CONFIG = "adapter_config.json"
OTHER_FORMATS = {
    "*.gguf": "GGUF files, which are llama.cpp's: name a folder with *.safetensors files",
    "*.bin": "*.bin files: load it with transformers and save it with save_pretrained, which writes *.safetensors",
    "*.pt": "*.pt files: load it with transformers and save it with save_pretrained, which writes *.safetensors",
    "*.npz": "*.npz files, which old versions of mlx-lm wrote: name a folder with *.safetensors files",
}
"""Files of weights that are not read -> what to do about them."""
_NUMBERED = re.compile(r"(?P<name>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.safetensors")


def read_config(folder: Path) -> dict[str, Any]:
    """Parse config.json. Raises ModelNotFoundError for a folder without one, ConfigError for a damaged one."""
    if not (folder / _CONFIG).exists() and (folder / ADAPTER_CONFIG).exists():
        raise ModelNotFoundError(f"{folder} holds an adapter: name its model, and this folder with --adapter")
    return read_json(folder / _CONFIG)


def read_folder(folder: Path) -> dict[str, TensorInfo]:
    """Return name -> tensor of the checkpoint in `folder`.

    With an index, of each file only the tensors that the index places there; else all tensors of all files that hold
    weights. Raises ModelNotFoundError for a folder without weights, and WeightsError for a missing, truncated or
    damaged file, for a tensor that is not in the file that the index names, and for one that is in two files.
    """
    files = {file.name for file in folder.glob("*.safetensors") if not file.name.startswith(".")}
    placed = _read_index(folder / INDEX) if (folder / INDEX).exists() else None
    if placed is None:
        return _merged(folder / name for name in _weights_files(folder, files))
    named = set(placed.values())
    if SINGLE in files and SINGLE not in named:
        if not named & files:
            _logger.warning("%s names files that are not in %s: reading %s instead", INDEX, folder, SINGLE)
            return _merged([folder / SINGLE])
        _logger.warning("%s is not read, because %s names other files: delete the one that is old", SINGLE, INDEX)
    for name in sorted(named):
        if not _exists(folder / name):
            raise WeightsError(f"{INDEX} names {name}, which is not in {folder}: download it again")
    found = {name: {info.name: info for info in read_header(folder / name)} for name in sorted(named)}
    for name, file_name in placed.items():
        if name not in found[file_name]:
            raise WeightsError(f"{INDEX} says that {name} is in {file_name}, but it is not: download both again")
    return {name: found[file_name][name] for name, file_name in placed.items()}


def _exists(file: Path) -> bool:
    try:
        return file.exists()
    except OSError:  # a name that no file can have
        return False


def _read_index(index: Path) -> dict[str, str]:
    """Return tensor -> name of its file."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise WeightsError(f"{index} has no weight_map object: download it again")
    if not all(isinstance(name, str) for name in cast("dict[str, object]", weight_map).values()):
        raise WeightsError(f"{index} has names of files that are not text: download it again")
    return cast("dict[str, str]", weight_map)


def _weights_files(folder: Path, names: set[str]) -> list[str]:
    """Choose the files of a folder without an index: model*.safetensors if there are any, else all but adapters."""
    weights = names.difference(ADAPTERS)
    chosen = sorted({name for name in weights if name.startswith("model")} or weights)
    if not chosen and names:
        raise ModelNotFoundError(
            f"{folder} holds an adapter and no model: name its model, and this folder with --adapter"
        )
    if not chosen:
        raise ModelNotFoundError(f"{folder} has {_instead(folder)}")
    for name in chosen:
        if match := _NUMBERED.fullmatch(name):
            count = int(match["count"])
            wanted = {f"{match['name']}-{number:05}-of-{count:05}.safetensors" for number in range(1, count + 1)}
            if missing := sorted(wanted - names):
                raise WeightsError(f"{folder} has {name}, but not {missing[0]}: download it again")
    return chosen


def _instead(folder: Path) -> str:
    """Say what a folder without *.safetensors files has, and what to do."""
    for pattern, advice in OTHER_FORMATS.items():
        if any(not file.name.startswith(".") for file in folder.glob(pattern)):
            return f"no *.safetensors file, but {advice}"
    return "no *.safetensors file: is the download complete?"


def _merged(files: Iterable[Path]) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for file in files:
        for info in read_header(file):
            if info.name in tensors:
                other = tensors[info.name].file.name
                raise WeightsError(
                    f"{info.name} is in {other} and in {file.name}, and no {INDEX} says which of them counts: "
                    "move the files that are old elsewhere"
                )
            tensors[info.name] = info
    return tensors
