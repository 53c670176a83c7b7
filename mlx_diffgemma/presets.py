"""Presets: options that go by one name, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from mlx_diffgemma.errors import OptionError
from mlx_diffgemma.generation_config import SPEED, GenerationConfig
from mlx_diffgemma.option import check_options, option, option_fields

FAST: Mapping[str, Any] = {"max_steps": 24, "mean_entropy": 0.05, "min_steps": 8, "first_canvas": 64}
FASTEST: Mapping[str, Any] = {**FAST, "max_steps": 16, "min_steps": 5}
PRESETS: Mapping[str, Mapping[str, Any]] = {"fast": FAST, "fastest": FASTEST}
"""The options that each preset stands for."""


def on_command_line(preset: str) -> str:
    """Return the options that a preset stands for, as a command line has them."""
    known = option_fields(GenerationConfig)
    return " ".join(f"{known[name].flags[0]} {value}" for name, value in PRESETS[preset].items())


def _help(preset: str) -> str:
    return f"The same as {on_command_line(preset)}; an option that is given too wins."


@dataclass(frozen=True, kw_only=True)
class PresetOptions:
    """The presets, of which one may be chosen. Raises OptionError."""

    exact: bool = option(
        False, "Give the reference's answers, to the token: no option under 'Speed and quality' applies.", SPEED
    )
    fast: bool = option(False, _help("fast"), SPEED)
    fastest: bool = option(False, _help("fastest"), SPEED)

    def __post_init__(self) -> None:
        check_options(self)
        if len(self.chosen) > 1:
            raise OptionError(f"{' and '.join(f'{name}=True' for name in self.chosen)} exclude each other: choose one")

    @property
    def chosen(self) -> dict[str, bool]:
        """The preset that is chosen, as a keyword."""
        return {each.name: True for each in fields(self) if getattr(self, each.name)}


def with_presets(options: Mapping[str, Any]) -> tuple[PresetOptions, dict[str, Any]]:
    """Return the presets among some options, and the others, put over those that the preset stands for.

    `exact` stands for none: GenerationConfig.exact comes after all others. Raises OptionError.
    """
    names = option_fields(PresetOptions)
    presets = PresetOptions(**{name: options[name] for name in names if name in options})
    values = {name: value for name, value in options.items() if name not in names}
    for name in presets.chosen:
        values = {**PRESETS.get(name, {}), **values}
    return presets, values
