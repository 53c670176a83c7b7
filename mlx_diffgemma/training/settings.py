"""How to train: one frozen object, checked once, written beside what it made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlx_diffgemma.errors import OptionError


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Everything that decides the result of a training, but for model and data. Raises OptionError."""

    steps: int = 1000
    batch_size: int = 4
    """sequences per batch"""
    accumulate: int = 1
    """batches per step"""
    learning_rate: float = 1.5e-4
    warmup: int = 0
    """steps until the learning rate is reached"""
    final_rate: float = 0.1
    """what is left of the learning rate at the end of the decay"""
    decay_steps: int | None = None
    """the step at which the decay ends, None: the last"""
    beta1: float = 0.95
    beta2: float = 0.99
    weight_decay: float = 0.0
    clip: float = 1.0
    """the largest norm of a step's gradient"""
    causal_weight: float = 1.0
    mask_prompt: bool = False
    """the causal loss counts the response only"""
    noise_power: float = 1.0
    """above 1 canvases are noisier than in the published recipe, as they are in the first steps of a generation"""
    max_seq_length: int = 2048
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulate", "max_seq_length"):
            self._require(name, getattr(self, name) >= 1, "at least 1")
        self._require("decay_steps", self.decay_steps is None or self.decay_steps >= 1, "at least 1")
        self._require("learning_rate", 0 < self.learning_rate < math.inf, "above 0")
        self._require("clip", self.clip > 0, "above 0")
        self._require("noise_power", 0 < self.noise_power < math.inf, "above 0")
        for name in ("warmup", "seed"):
            self._require(name, getattr(self, name) >= 0, "0 or more")
        for name in ("causal_weight", "weight_decay"):
            self._require(name, 0 <= getattr(self, name) < math.inf, "0 or more")
        for name in ("beta1", "beta2"):
            self._require(name, 0 <= getattr(self, name) < 1, "at least 0 and below 1")
        self._require("final_rate", 0 <= self.final_rate <= 1, "between 0 and 1")

    def _require(self, name: str, held: bool, wanted: str) -> None:
        if not held:
            raise OptionError(f"{name}={getattr(self, name)} must be {wanted}")

    def rate(self, step: int) -> float:
        """The learning rate of a step, counted from 0: a linear warm-up, then half a cosine down to final_rate."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max((self.decay_steps or self.steps) - self.warmup, 1)
        lowest = self.learning_rate * self.final_rate
        return lowest + (self.learning_rate - lowest) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
