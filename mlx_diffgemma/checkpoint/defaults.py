"""The options that a checkpoint names as its own: generation_config.json -> GenerationConfig."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlx_diffgemma.errors import ConfigError, OptionError
from mlx_diffgemma.files import read_json
from mlx_diffgemma.generation_config import STOP_TOKENS, GenerationConfig
from mlx_diffgemma.model.config import object_at
from mlx_diffgemma.option import option_fields

_SAMPLER_CLASS = "EntropyBoundSamplerConfig"


def load_generation_config(folder: Path, raw: Mapping[str, Any]) -> GenerationConfig:
    """Read the defaults of a checkpoint whose config.json is `raw`. Raises ConfigError.

    They are in generation_config.json, or in an object of config.json; else they are those of the reference.
    """
    stop_tokens = token_ids("config.json: eos_token_id", raw.get("eos_token_id"))
    path = folder / "generation_config.json"
    if path.exists():
        return parse_generation_config(read_json(path), stop_tokens)
    return parse_generation_config(object_at(raw, "generation_config") or {}, stop_tokens)


def parse_generation_config(raw: Mapping[str, Any], stop_tokens: tuple[int, ...] = ()) -> GenerationConfig:
    """Read generation_config.json (or the object of that name inside config.json); absent keys keep the defaults.

    `stop_tokens` are used where the file names none. Raises ConfigError that names the key and its value.
    """
    values: dict[str, Any] = {}
    for name, each in option_fields(GenerationConfig).items():
        theirs = each.option.reference
        value = None if theirs is None else raw.get(theirs)
        if value is None or theirs == STOP_TOKENS:
            continue
        if not isinstance(value, int if each.type is int else (int, float)) or isinstance(value, bool):
            raise ConfigError(f"generation_config.json: {theirs} must be a number, not {value!r}")
        values[name] = value
    sampler = raw.get("sampler_config")
    if sampler is not None:
        values["entropy_bound"] = _entropy_bound(sampler)
    tokens = token_ids("generation_config.json: eos_token_id", raw.get(STOP_TOKENS)) or stop_tokens
    if tokens:
        values["stop_tokens"] = tokens
    try:
        return GenerationConfig(**values)
    except OptionError as error:
        raise ConfigError(f"generation_config.json: {error}") from None


def _entropy_bound(sampler: Any) -> float:
    if not isinstance(sampler, Mapping):
        raise ConfigError(f"generation_config.json: sampler_config must be an object, not {sampler!r}")
    entries: Mapping[str, Any] = sampler
    name = entries.get("_cls_name", _SAMPLER_CLASS)
    bound = entries.get("entropy_bound")
    if name != _SAMPLER_CLASS or not isinstance(bound, (int, float)):
        raise ConfigError(
            f"generation_config.json: sampler_config {dict(entries)} is not an {_SAMPLER_CLASS} with an entropy_bound"
        )
    return float(bound)


def token_ids(where: str, value: Any) -> tuple[int, ...]:
    """Return one id, a list of ids or null as a tuple. Raises ConfigError that begins with `where`."""
    if value is None:
        return ()
    ids: list[Any] = value if isinstance(value, list) else [value]
    if not all(isinstance(token, int) and not isinstance(token, bool) for token in ids):
        raise ConfigError(f"{where} must be a token id or a list of them, not {value!r}")
    return tuple(ids)
