"""The recipe of the best quality whose result fits a Mac, chosen from the headers of the source alone."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from mlx_diffgemma.checkpoint.folder import read_config, read_folder
from mlx_diffgemma.checkpoint.names import CheckpointTensors, sort_tensors
from mlx_diffgemma.checkpoint.safetensors import held_bytes
from mlx_diffgemma.device.memory import GIGABYTE, higher_limit, recommended_bytes, smallest_mac
from mlx_diffgemma.errors import ConvertError
from mlx_diffgemma.model.config import ModelConfig, parse_config
from mlx_diffgemma.model.memory import MemoryNeed, memory_need
from mlx_diffgemma_convert.plan import ConversionPlan, make_plan
from mlx_diffgemma_convert.recipe import VISION_TOWER, Recipe, make_quantization, make_recipe
from mlx_diffgemma_convert.summary import readable_size

_logger = logging.getLogger("mlx_diffgemma")

_ITEM_BYTES = 2
"""Bytes per value of bfloat16, in which a Mac computes."""
_MAX_SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A recipe that can be chosen, as messages call it."""

    name: str
    recipe: Recipe


CANDIDATES = (
    Candidate(name="uniform in 8 bits", recipe=make_recipe("uniform", make_quantization("affine", 8, None), {})),
    Candidate(name="mixed", recipe=make_recipe("mixed", make_quantization("affine", 4, None), {})),
    Candidate(name="small", recipe=make_recipe("small", make_quantization("affine", 4, None), {})),
)
"""In the order of their quality, the best first."""


def choose_for_folder(source: Path, memory: int, dtype: str) -> Recipe:
    """Choose for the checkpoint in `source`, and say in one line what and why; see `choose`."""
    config = parse_config(read_config(source))
    chosen, reason = choose(sort_tensors(read_folder(source)), config, memory, dtype)
    _logger.info("%s", reason)
    return chosen.recipe


def choose(contents: CheckpointTensors, config: ModelConfig, memory: int, dtype: str) -> tuple[Candidate, str]:
    """Return the best of CANDIDATES for a Mac with `memory` bytes, and the reason in one line.

    dtype: that of scales in the result, as safetensors spells it. Raises ConvertError if none fits, and the errors of
    `make_plan`.
    """
    limit = recommended_bytes(memory)
    recommended = f"macOS recommends {readable_size(limit)} at most on a Mac with {memory / GIGABYTE:.4g} GB"
    refused: list[str] = []
    plans = [make_plan(contents, config, each.recipe, dtype, _MAX_SHARD_BYTES) for each in CANDIDATES]
    needs = [memory_for(plan, config, usable=limit).total for plan in plans]
    for candidate, plan, need in zip(CANDIDATES, plans, needs, strict=True):
        if need <= limit:
            better = f"; {refused[-1]}" if refused else ""
            return candidate, (
                f"the recipe is {candidate.name}: {readable_size(plan.nbytes)} on disk, {readable_size(need)} in "
                f"memory, and {recommended}{better}"
            )
        refused.append(f"{candidate.name} needs {readable_size(need)}")
    raise ConvertError(f"no recipe fits: {recommended}; {refused[-1]}: {_instead(needs[-1], memory)}")


def _instead(need: int, memory: int) -> str:
    """Say what holds the smallest recipe's result, which needs `need` bytes."""
    if (command := higher_limit(need, memory)) is not None:
        return f"convert with --recipe small, and raise the limit there with `{command}`"
    size = smallest_mac(need)
    return "no Mac holds it" if size is None else f"the smallest Mac that holds it has {size} GB"


def memory_for(plan: ConversionPlan, config: ModelConfig, *, usable: int | None = None) -> MemoryNeed:
    """Return what a Mac will hold of a planned checkpoint, without the vision tower; see `memory_need`."""
    weights = sum(
        held_bytes(entry.dtype, entry.shape, _ITEM_BYTES)
        for parameter in plan.parameters
        if parameter.tensor_class != VISION_TOWER
        for entry in parameter.entries
    )
    return memory_need(config, weights, itemsize=_ITEM_BYTES, usable=usable)
