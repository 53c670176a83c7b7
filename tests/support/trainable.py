"""A model small enough to learn in seconds on a CPU, sixteen questions to teach it, and trainings run to an end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from demo_model import architecture
from demo_model.words import CITIES, NAMES
from mlx.utils import tree_flatten

from mlx_diffgemma.display.bar import no_progress
from mlx_diffgemma.training.loop import Pace, Stepped, TrainingEvent
from mlx_diffgemma.training.run import PreparedTraining, TrainingPlan, prepare_training, run_training
from mlx_diffgemma.training.settings import TrainingSettings

CANVAS = 8
TEXT = {
    **architecture.TEXT,
    "hidden_size": 48,
    "intermediate_size": 48,
    "moe_intermediate_size": 24,
    "num_experts": 4,
    "num_hidden_layers": 2,
    "layer_types": [architecture.SLIDING, architecture.FULL],
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "global_head_dim": 32,
    "sliding_window": 12,
}
Row = Mapping[str, Any]
TAUGHT: list[Row] = [
    {"prompt": name, "completion": f"{city}, {at}" if at % 4 else f"{city}, {at}, {city}, {at}, {name}"}
    for at, (name, city) in enumerate(zip(NAMES[:16], CITIES, strict=False), 20)
]
"""Questions of one word; every fourth answer is longer than a canvas."""


def write_model(folder: Path) -> Path:
    """Write a smaller model of the demo's architecture: random weights, the demo's tokenizer."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(architecture, "CONFIG", {**architecture.CONFIG, "canvas_length": CANVAS, "text_config": TEXT})
        architecture.write_untrained(folder)
    return folder


def write_data(folder: Path, train: Iterable[Row] = TAUGHT, valid: Iterable[Row] = ()) -> Path:
    """Write a data folder; without held-out rows it has no valid.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("valid", valid)):
        lines = [json.dumps(row) + "\n" for row in rows]
        if lines:
            (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder


def plan(model: Path, data: Path, out: Path, **changes: Any) -> TrainingPlan:
    """Return a plan to train the whole model in four steps. `changes` are fields of the plan or of its settings."""
    settings = TrainingSettings(steps=4, batch_size=2, learning_rate=1e-3, max_seq_length=64)
    inner = {name: changes.pop(name) for name in tuple(changes) if hasattr(settings, name)}
    made = TrainingPlan(
        model=str(model),
        data=str(data),
        out=out,
        settings=replace(settings, **inner),
        pace=Pace(evaluate=0, save=0),
        lora=None,
        answers=0,
    )
    return replace(made, **changes)


@dataclass(frozen=True, kw_only=True, eq=False)
class Followed:
    """A training that was drained, or closed after a step as Ctrl-C does."""

    ready: PreparedTraining
    events: Sequence[TrainingEvent]

    @property
    def steps(self) -> list[Stepped]:
        """The steps of the training."""
        return [event for event in self.events if isinstance(event, Stepped)]

    @property
    def losses(self) -> list[float]:
        """The total loss of every step."""
        return [step.loss for step in self.steps]

    @property
    def parameters(self) -> dict[str, mx.array]:
        """The trained parameters as they are now, by name."""
        return flat(self.ready.session.model.trainable_parameters())


def prepared(wanted: TrainingPlan) -> PreparedTraining:
    """`prepare_training` without a bar."""
    return prepare_training(wanted, no_progress)


def follow(wanted: TrainingPlan, until: int | None = None) -> Followed:
    """Train to the end, or up to the step `until`."""
    ready = prepared(wanted)
    events: list[TrainingEvent] = []
    running = run_training(ready)
    for event in running:
        events.append(event)
        if isinstance(event, Stepped) and event.step == until:
            running.close()
    return Followed(ready=ready, events=events)


def flat(tree: Any) -> dict[str, mx.array]:
    """Return nested parameters as name -> array."""
    return dict(tree_flatten(tree))
