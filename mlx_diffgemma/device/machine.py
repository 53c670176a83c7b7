"""Describe the machine, for figures that depend on it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from importlib.metadata import version

import mlx.core as mx

from mlx_diffgemma.device.accelerators import apple_facts, dotted


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Names and versions; `memory` in bytes, None if MLX does not report it; `accelerators` "" without an Apple GPU."""

    device: str
    backend: str
    memory: int | None
    accelerators: str
    system: str
    mlx: str
    mlx_lm: str
    mlx_diffgemma: str

    def line(self) -> str:
        """Return the description in one line."""
        memory = "" if self.memory is None else f", {self.memory / 2**30:.0f} GiB"
        accelerators = f", {self.accelerators}" if self.accelerators else ""
        versions = f"mlx-diffgemma {self.mlx_diffgemma}, MLX {self.mlx}, mlx-lm {self.mlx_lm}"
        return f"{self.device} ({self.backend}{memory}{accelerators}), {self.system}, {versions}"


def caption(models: Sequence[str], machine: Machine, day: date) -> str:
    """Return what a picture of figures has to say to be worth something later: models, machine, versions, date."""
    return f"{' and '.join(models)}\n{machine.line()}, {day.isoformat()}"


def this_machine() -> Machine:
    """Describe the machine and the default device of this process."""
    device = mx.default_device()
    facts = mx.device_info(device)
    memory = facts.get("memory_size")
    apple = apple_facts(facts.get("architecture"))
    # Without a version it is no macOS.
    system = f"macOS {dotted(apple.system)}" if apple.system else platform.system()
    return Machine(
        device=str(facts.get("device_name", platform.machine())),
        backend=str(device.type).rpartition(".")[2],
        memory=memory if isinstance(memory, int) else None,
        accelerators=apple.words(),
        system=f"{system} {platform.machine()}",
        mlx=version("mlx"),
        mlx_lm=version("mlx-lm"),
        mlx_diffgemma=version("mlx-diffgemma"),
    )
