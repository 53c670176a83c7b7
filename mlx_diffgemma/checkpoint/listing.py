"""The DiffusionGemma models on this disk: the one in the package, those in a folder, those in the Hub's cache.

Only config.json is read. A folder whose config.json is damaged, or is another model's, is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mlx_diffgemma.checkpoint.folder import read_config
from mlx_diffgemma.checkpoint.hub import DEMO, cached_folders, model_folder
from mlx_diffgemma.checkpoint.quantization import ENTRIES
from mlx_diffgemma.errors import DiffGemmaError
from mlx_diffgemma.model.config import ModelConfig, parse_config


@dataclass(frozen=True, kw_only=True)
class LocalModel:
    """A model that can be loaded without a download."""

    name: str
    """what `load` and --model take"""
    folder: Path
    config: ModelConfig
    nbytes: int
    """of the weights' files"""
    bits: int | None
    """bits per value of a packed model, as config.json says; None for one that is not packed"""


def local_models(folder: Path) -> Iterator[LocalModel]:
    """Yield the model in the package, those in `folder` and in the folders in it, and those in the Hub's cache."""
    places = [(DEMO, model_folder(DEMO))]
    if folder.is_dir():
        inner = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
        places += [(str(each), each) for each in (folder, *inner)]
    places += cached_folders()
    for name, place in places:
        found = _model(name, place)
        if found is not None:
            yield found


def _model(name: str, folder: Path) -> LocalModel | None:
    try:
        raw = read_config(folder)
        config = parse_config(raw)
        files = [file for file in folder.glob("*.safetensors") if not file.name.startswith(".")]
        nbytes = sum(file.stat().st_size for file in files)
    except (DiffGemmaError, OSError):
        return None
    entries = (raw.get(key) for key in ENTRIES)
    bits = next((entry["bits"] for entry in entries if isinstance(entry, dict) and "bits" in entry), None)
    if not nbytes:
        return None
    return LocalModel(
        name=name, folder=folder, config=config, nbytes=nbytes, bits=bits if isinstance(bits, int) else None
    )
