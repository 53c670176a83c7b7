"""Options of one generation as keyword arguments: typed, and put over a GenerationConfig."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, TypedDict, cast

from mlx_diffgemma.constraint.schema_source import SchemaSource
from mlx_diffgemma.constraint.spec import Constraint, constraint_of
from mlx_diffgemma.errors import OptionError
from mlx_diffgemma.generation_config import ComputedRows, ConstraintOptions, GenerationConfig, Mode
from mlx_diffgemma.option import option_fields, shown
from mlx_diffgemma.presets import PRESETS, PresetOptions, with_presets

PERMISSIVE = GenerationConfig(t_min=0.0, t_max=sys.float_info.max)
"""Options with which any option can be combined that some checkpoint's defaults allow: for checks before loading."""


class UnconstrainedOptions(TypedDict, total=False):
    """The fields of GenerationConfig without its constraints and the presets, as keyword arguments: docs/options.md."""

    system: str | None
    thinking: bool
    raw: bool
    max_tokens: int
    stop_tokens: Sequence[int]
    stop: str | Sequence[str]
    seed: int
    canvas_length: int | None
    max_steps: int
    t_min: float
    t_max: float
    entropy_bound: float
    stability_threshold: int
    confidence_threshold: float
    temperature: float
    greedy: bool
    conditioning_top_k: int | None
    until_end: bool
    allow_empty: bool
    mean_entropy: float | None
    min_steps: int
    first_canvas: int | None
    trim: bool
    rows: ComputedRows
    whole_every: int
    prefix_top_k: int | None
    verify: float | None
    mode: Mode
    draft_steps: int
    top_p: float
    exact: bool
    fast: bool
    fastest: bool


class GenerationOptions(UnconstrainedOptions, total=False):
    """All fields of GenerationConfig as keyword arguments, and the three that say its constraint in a word."""

    constraint: Constraint | None
    regex: str | None
    json_schema: SchemaSource | None
    choices: Sequence[str] | None


def configured(base: GenerationConfig, options: Mapping[str, Any]) -> GenerationConfig:
    """Return `base` with these options in place of its own.

    regex, json_schema and choices say the constraint; None leaves that of `base`. A text as `stop` is one stop string.
    A preset, such as fast=True, stands for the options in `presets`, over which the others are put.
    Raises OptionError for an unknown name or a value out of range, ConstraintError for an unreadable schema.
    """
    require_config(base)
    for name in options:
        _require_known(name)
    presets, values = with_presets(options)
    said = option_fields(ConstraintOptions)
    values = {name: value for name, value in values.items() if name not in said}
    constraint = constraint_of(**{name: options[name] for name in (*said, "constraint") if name in options})
    if constraint is not None:
        values["constraint"] = constraint
    if isinstance(values.get("stop"), str):
        values["stop"] = (values["stop"],)
    for name in ("stop_tokens", "stop"):
        if isinstance(values.get(name), Sequence):
            values[name] = tuple(values[name])
    config = dataclasses.replace(base, **values) if values else base
    _require_effect(config, options)
    return config.exact() if presets.exact else config


def _require_effect(config: GenerationConfig, given: Mapping[str, Any]) -> None:
    """Raise OptionError for a given option that changes nothing, because another one decides."""
    fields = option_fields(GenerationConfig)
    for name in given:
        only = fields[name].option.only if name in fields else ()
        if only and config.mode not in only:
            raise OptionError(f"{name}={shown(given[name])} has no effect with mode={config.mode}: leave it out")
    for name in PRESETS:
        if given.get(name) and config.mode != "canvas":
            raise OptionError(f"{name}=True has no effect with mode={config.mode}: leave it out")
    if "min_steps" in given and config.mean_entropy is None:
        raise OptionError(
            f"min_steps={config.min_steps} has no effect without mean_entropy: leave it out, or give both"
        )
    if "whole_every" in given and config.rows == "all":
        raise OptionError(
            f"whole_every={config.whole_every} has no effect without rows='unsettled': leave it out, or give both"
        )


def require_config(config: object) -> None:
    """Raise OptionError for options that are not a GenerationConfig, such as a dict."""
    if isinstance(config, GenerationConfig):
        return
    if isinstance(config, Mapping):
        names = ", ".join(f"{name}=..." for name in cast("Mapping[object, object]", config))
        raise OptionError(f"config must be a GenerationConfig, not a dict: pass its options as keywords ({names})")
    raise OptionError(f"config must be a GenerationConfig, not {config!r:.60}")


def current_names(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return these options with the present names of those that were renamed."""
    renamed = {each.option.former: name for name, each in option_fields(GenerationConfig).items()}
    return {renamed.get(name, name): value for name, value in options.items()}


def unknown_option(name: str) -> str | None:
    """Return what is wrong with an option's name, with the nearest right one; None if it is right."""
    known = {**option_fields(GenerationConfig), **option_fields(PresetOptions), "constraint": None}
    if name in known:
        return None
    near = get_close_matches(name, known, n=1)
    return f"{name!r} is not an option" + (f": did you mean {near[0]!r}?" if near else ": see docs/options.md")


def _require_known(name: str) -> None:
    wrong = unknown_option(name)
    if wrong is not None:
        raise OptionError(wrong)


def require_usable(constraint: Constraint | None) -> None:
    """Raise ConstraintError for a pattern or a schema that cannot be used with any model."""
    if constraint is not None:
        # Imported here: it needs numpy, and most programs have no constraint.
        from mlx_diffgemma.constraint.automata.byte_automaton import compiled
        from mlx_diffgemma.constraint.description import described

        compiled(described(constraint).expression)
