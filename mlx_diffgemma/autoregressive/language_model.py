"""Load an autoregressive model with mlx-lm, and read the sampling options of its folder."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple, cast

import mlx.nn as nn

from mlx_diffgemma.checkpoint.hub import model_folder
from mlx_diffgemma.errors import AutoregressiveError, loading_errors, out_of_memory
from mlx_diffgemma.files import read_json
from mlx_diffgemma.model.config import MODEL_TYPE

NEUTRAL_SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
"""The sampling options that are read from generation_config.json, with the values of a plain draw."""


class LanguageModel(NamedTuple):
    """A model and its tokenizer as mlx-lm loads them, its config.json, and the sampling options of its folder."""

    name: str
    """folder or Hub repository, for messages"""
    model: nn.Module
    tokenizer: Any
    config: Mapping[str, Any]
    sampling: Mapping[str, float]

    @property
    def context(self) -> int:
        """The maximum sequence length in config.json; sys.maxsize if config.json names none."""
        text = self.config.get("text_config")
        for entries in (self.config, cast("Mapping[str, Any]", text) if isinstance(text, Mapping) else {}):
            length = entries.get("max_position_embeddings")
            if isinstance(length, int):
                return length
        return sys.maxsize

    @property
    def greedy(self) -> bool:
        """Whether the most likely token is taken each time, so that a seed changes nothing."""
        return self.sampling["temperature"] == 0


def load_language_model(name: str, *, lazy: bool = False) -> LanguageModel:
    """Load a model from a folder or a Hub repository.

    lazy: read the weights when they are first used; this is enough to find out whether mlx-lm can load the model.
    Raises AutoregressiveError, ModelNotFoundError, ConfigError, OutOfMemoryError.
    """
    from mlx_lm.utils import load

    folder = model_folder(name)
    if read_json(folder / "config.json").get("model_type") == MODEL_TYPE:
        raise AutoregressiveError(f"{name} is a DiffusionGemma: name a model that mlx-lm runs")
    sampling = sampling_options(folder)
    try:
        with redirect_stdout(sys.stderr), out_of_memory(f"loading {name}", "choose a smaller model"):
            loaded: tuple[Any, ...] = load(str(folder), lazy=lazy, return_config=True)
    except loading_errors() as error:
        raise AutoregressiveError(f"{name} cannot be loaded by mlx-lm: {error}") from error
    return LanguageModel(name, loaded[0], loaded[1], loaded[2], sampling)


def sampling_options(folder: Path) -> dict[str, float]:
    """Read the sampling options of generation_config.json; temperature is 0 unless the file says do_sample.

    Raises AutoregressiveError for a value that is not a number.
    """
    path = folder / "generation_config.json"
    raw = read_json(path) if path.exists() else {}
    if not raw.get("do_sample"):
        return {**NEUTRAL_SAMPLING, "temperature": 0.0}
    options: dict[str, float] = {}
    for name, neutral in NEUTRAL_SAMPLING.items():
        value = raw.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise AutoregressiveError(f"{path}: {name} must be a number, not {value!r}")
        options[name] = neutral if value is None else value
    return options
