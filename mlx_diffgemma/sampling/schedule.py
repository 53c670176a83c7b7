"""The temperature of each denoising step: high while the canvas is noise, low when it settles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class Schedule(Protocol):
    """Step -> temperature by which the logits are divided."""

    def temperature(self, step: int) -> float:
        """Steps count from 1."""
        ...


@dataclass(frozen=True, kw_only=True)
class LinearTemperature:
    """t_max at the first of `steps` steps, falling evenly to one step's worth above t_min at the last."""

    t_min: float
    t_max: float
    steps: int

    def temperature(self, step: int) -> float:
        """The temperature of step 1 .. steps."""
        remaining = self.steps - step + 1
        return self.t_min + (self.t_max - self.t_min) * (remaining / self.steps)
