"""The saved state of a training: what it needs to go on as if it had never stopped.

    state.safetensors    parameters.<name>, optimizer.<name>, in full precision
    state.json           the step, the settings, fingerprints of model and data

A state is written beside the last one and takes its place in one move.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from mlx_diffgemma.errors import TrainingError
from mlx_diffgemma.training.data import Example
from mlx_diffgemma.training.gradients import Tree

ARRAYS, RECORD = "state.safetensors", "state.json"


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """A training between two steps."""

    step: int
    """steps done"""
    parameters: Tree
    optimizer: Tree


def save_state(folder: Path, state: State, facts: Mapping[str, Any]) -> None:
    """Write `state` into `folder`, in place of what is there. Raises TrainingError where the disk refuses."""
    beside, old = _beside(folder)
    tree = {"parameters": state.parameters, "optimizer": state.optimizer}
    flat = cast("list[tuple[str, mx.array]]", tree_flatten(tree))
    record = {"step": state.step, "facts": facts}
    try:
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        mx.save_safetensors(str(beside / ARRAYS), dict(flat))
        (beside / RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        beside.rename(folder)
    except (OSError, RuntimeError) as error:
        raise TrainingError(f"the state cannot be saved in {folder}: {error}") from error
    shutil.rmtree(old, ignore_errors=True)


def saved_step(folder: Path) -> int | None:
    """The step of the state in `folder`, None where there is none. Raises TrainingError where it is damaged."""
    _, old = _beside(folder)
    if not folder.exists() and old.exists():
        # The last run was cut off between the two moves of save_state.
        old.rename(folder)
    return int(_record(folder)["step"]) if folder.exists() else None


def load_state(folder: Path, facts: Mapping[str, Any]) -> State:
    """The state in `folder`. Raises TrainingError where it is damaged, or of a training with other facts."""
    record = _record(folder)
    try:
        arrays = cast("dict[str, mx.array]", mx.load(str(folder / ARRAYS)))
        mx.eval(arrays)
        tree = cast("Tree", tree_unflatten(list(arrays.items())))
        state = State(step=record["step"], parameters=tree["parameters"], optimizer=tree["optimizer"])
    except (OSError, RuntimeError, KeyError) as error:
        raise TrainingError(f"the saved state in {folder} is damaged ({error}): delete it to start anew") from None
    had, now = _flat(record["facts"]), _flat(facts)
    changed = [
        f"{name} was {had.get(name)} and is {now.get(name)}"
        for name in sorted({*had, *now})
        if had.get(name) != now.get(name)
    ]
    if changed:
        raise TrainingError(f"{folder} holds another training: {'; '.join(changed)}: use the same, or another folder")
    return state


def fingerprint(examples: Iterable[Example]) -> str:
    """What tells one set of examples from another."""
    digest = hashlib.sha256()
    for example in examples:
        for ids in (example.prompt, example.response):
            digest.update(len(ids).to_bytes(4, "little") + ids.tobytes())
    return digest.hexdigest()[:16]


def fingerprint_of_weights(model: nn.Module) -> str:
    """What tells one model from another: names, shapes and dtypes of its parameters, and how each of them begins."""
    flat = cast("list[tuple[str, mx.array]]", tree_flatten(model.parameters()))
    beginnings = {name: array.flatten()[:64].view(mx.uint8) for name, array in flat}
    mx.eval(beginnings)
    digest = hashlib.sha256()
    for name, array in flat:
        beginning = bytes(cast("list[int]", beginnings[name].tolist()))
        digest.update(f"{name} {array.shape} {array.dtype} ".encode() + beginning)
    return digest.hexdigest()[:16]


def _beside(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = cast("dict[str, Any]", json.loads((folder / RECORD).read_text(encoding="utf-8")))
        return {"step": int(record["step"]), "facts": dict(record["facts"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"the saved state in {folder} is damaged ({error}): delete it to start anew") from None


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Facts as they come back from JSON, one level deep."""
    plain = cast("dict[str, Any]", json.loads(json.dumps(facts)))
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        flat.update(
            {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
        )
    return flat
