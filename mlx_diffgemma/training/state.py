"""The saved state of a training: all that it needs to go on as if it had never stopped.

    state.safetensors    parameters.<name>, optimizer.<name>, in full precision
    state.json           the step; the settings and fingerprints of model and data ("facts")

A new state is written to a folder of its own, which then takes the name of the old one.
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

_ARRAYS, _RECORD = "state.safetensors", "state.json"
_STEPS = "settings.steps"


@dataclass(frozen=True, kw_only=True, eq=False)
class State:
    """A training between two steps."""

    step: int
    """steps done"""
    parameters: Tree
    optimizer: Tree
    planned: int | None = None
    """steps in all that were planned when a saved state was written"""


def save_state(folder: Path, state: State, facts: Mapping[str, Any]) -> None:
    """Write `state` into `folder` and replace the state there. Raises TrainingError if that fails.

    facts: what has to be equal when the training is resumed.
    """
    partial, old = _partial_and_old(folder)
    tree = {"parameters": state.parameters, "optimizer": state.optimizer}
    flat = cast("list[tuple[str, mx.array]]", tree_flatten(tree))
    record = {"step": state.step, "facts": facts}
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        mx.save_safetensors(str(partial / _ARRAYS), dict(flat))
        (partial / _RECORD).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        partial.rename(folder)
    except (OSError, RuntimeError) as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise TrainingError(
            f"the state cannot be saved in {folder} ({error}): check its permissions and the free space"
        ) from error
    shutil.rmtree(old, ignore_errors=True)


def saved_step(folder: Path) -> int | None:
    """Return the step of the state in `folder`; None without a state. Raises TrainingError if it is damaged."""
    _, old = _partial_and_old(folder)
    if not folder.exists() and old.exists():
        # The last run was killed between the two renames of save_state.
        old.rename(folder)
    return int(_record(folder)["step"]) if folder.exists() else None


def load_state(folder: Path, facts: Mapping[str, Any]) -> State:
    """Read the state in `folder`. Raises TrainingError if it is damaged, or was saved with other facts.

    A training may have more steps than were planned.
    """
    record = _record(folder)
    try:
        arrays = cast("dict[str, mx.array]", mx.load(str(folder / _ARRAYS)))
        mx.eval(arrays)
        tree = cast("Tree", tree_unflatten(list(arrays.items())))
        planned = _flat(record["facts"]).get(_STEPS)
        state = State(step=record["step"], parameters=tree["parameters"], optimizer=tree["optimizer"], planned=planned)
    except (OSError, RuntimeError, KeyError) as error:
        raise TrainingError(f"the saved state in {folder} is damaged ({error}): delete it to start over") from None
    before, now = _flat(record["facts"]), _flat(facts)
    changed = [
        f"{name} was {before.get(name)} and is {now.get(name)}"
        for name in sorted({*before, *now})
        if before.get(name) != now.get(name) and not (name == _STEPS and _is_more(now[name], before.get(name)))
    ]
    if changed:
        raise TrainingError(f"{folder} holds another training: {'; '.join(changed)}: use the same, or another folder")
    return state


def examples_fingerprint(examples: Iterable[Example]) -> str:
    """Return a digest of a set of examples."""
    digest = hashlib.sha256()
    for example in examples:
        for ids in (example.prompt, example.response):
            digest.update(len(ids).to_bytes(4, "little") + ids.tobytes())
        if not example.denoised:
            digest.update(b"text")
    return digest.hexdigest()[:16]


def weights_fingerprint(model: nn.Module) -> str:
    """Return a digest of a model: of names, shapes, dtypes and the first values of its parameters."""
    flat = cast("list[tuple[str, mx.array]]", tree_flatten(model.parameters()))
    first_values = {name: array.flatten()[:64].view(mx.uint8) for name, array in flat}
    mx.eval(first_values)
    digest = hashlib.sha256()
    for name, array in flat:
        values = bytes(cast("list[int]", first_values[name].tolist()))
        digest.update(f"{name} {array.shape} {array.dtype} ".encode() + values)
    return digest.hexdigest()[:16]


def _partial_and_old(folder: Path) -> tuple[Path, Path]:
    return folder.with_name(folder.name + ".partial"), folder.with_name(folder.name + ".old")


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = cast("dict[str, Any]", json.loads((folder / _RECORD).read_text(encoding="utf-8")))
        return {"step": int(record["step"]), "facts": dict(record["facts"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"the saved state in {folder} is damaged ({error}): delete it to start over") from None


def _is_more(now: object, before: object) -> bool:
    return isinstance(now, int) and isinstance(before, int) and now > before


def _flat(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return facts as JSON keeps them, with the names of nested facts joined by a dot."""
    plain = cast("dict[str, Any]", json.loads(json.dumps(facts)))
    flat: dict[str, Any] = {}
    for name, value in plain.items():
        flat.update(
            {f"{name}.{key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
        )
    return flat
