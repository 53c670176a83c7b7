"""How to train: one frozen object, checked once, written beside what it made."""

from __future__ import annotations

import math
from dataclasses import dataclass

from mlx_diffgemma.option import Range, above, at_least, check_options, option

RECIPE = "Recipe"
"""The panel of these options."""
_BELOW_ONE = Range("at least 0 and below 1", lambda value: 0 <= value < 1)


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Everything that decides the result of a training, except for model and data. Raises OptionError."""

    steps: int = option(1000, "Steps in all.", RECIPE, flags=("--steps", "--iters"), allowed=at_least(1))
    batch_size: int = option(4, "Examples per batch.", RECIPE, allowed=at_least(1))
    accumulate: int = option(
        1,
        "Batches per step.",
        RECIPE,
        flags=("--accumulate", "--grad-accumulation-steps"),
        allowed=at_least(1),
    )
    learning_rate: float = option(1.5e-4, "The highest learning rate.", RECIPE, allowed=above(0))
    warmup: int = option(0, "Steps until the highest learning rate is reached.", RECIPE, allowed=at_least(0))
    final_rate: float = option(
        0.1,
        "Fraction of the learning rate that is left at the end of the decay.",
        RECIPE,
        allowed=Range("between 0 and 1", lambda value: 0 <= value <= 1),
    )
    decay_steps: int | None = option(
        None, "Step at which the decay, half a cosine, ends.", RECIPE, allowed=at_least(1), default_text="the last"
    )
    beta1: float = option(0.95, "AdamW's decay of the mean gradient.", RECIPE, allowed=_BELOW_ONE)
    beta2: float = option(0.99, "AdamW's decay of the mean squared gradient.", RECIPE, allowed=_BELOW_ONE)
    weight_decay: float = option(0.0, "AdamW's weight decay.", RECIPE, allowed=at_least(0))
    clip: float = option(1.0, "Largest norm of a step's gradient.", RECIPE, allowed=above(0), infinite=True)
    causal_weight: float = option(1.0, "Weight of the encoder's causal loss.", RECIPE, allowed=at_least(0))
    mask_prompt: bool = option(False, "Count the causal loss on answers only.", RECIPE)
    noise_power: float = option(
        1.0,
        "Above 1, canvases are noisier than in the published recipe, as they are in the first steps of a generation.",
        RECIPE,
        allowed=above(0),
    )
    max_seq_length: int = option(2048, "Maximum number of tokens in an example.", RECIPE, allowed=at_least(1))
    seed: int = option(0, "Decides data order, noise and the start of an adapter.", RECIPE, allowed=at_least(0))

    def __post_init__(self) -> None:
        check_options(self)

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 0: linear warm-up, then half a cosine down to final_rate."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        progress = (step - self.warmup) / max((self.decay_steps or self.steps) - self.warmup, 1)
        lowest = self.learning_rate * self.final_rate
        return lowest + (self.learning_rate - lowest) * (1 + math.cos(math.pi * min(progress, 1.0))) / 2
