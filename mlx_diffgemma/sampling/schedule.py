"""The temperature of each denoising step: high while the canvas is noise, low when it converges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """Gives the temperature by which a step's logits are divided."""

    def temperature(self, step: int) -> float:
        """Return the temperature of a step; steps count from 1."""
        ...


@dataclass(frozen=True, kw_only=True)
class LinearTemperature:
    """Falls evenly from t_max at step 1; after the last of `steps` steps it would be t_min."""

    t_min: float
    t_max: float
    steps: int

    def temperature(self, step: int) -> float:
        """Return the temperature of a step in 1 .. steps."""
        remaining = self.steps - step + 1
        return self.t_min + (self.t_max - self.t_min) * (remaining / self.steps)
