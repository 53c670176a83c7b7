"""What MLX reads from the environment, set before it does; what a user has set stays.

MLX keeps each value from its first use on: TF32 from the first product of float32 matrices, the limits of command
buffers from the moment that it opens the GPU. The programs set them before they import MLX.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from functools import cache

_TF32 = "MLX_ENABLE_TF32"
_LIMITS = {"MLX_MAX_OPS_PER_BUFFER": "1000", "MLX_MAX_MB_PER_BUFFER": "400"}
"""Kernels, and megabytes of their inputs, that a command buffer holds; MLX's own limits are 40 or 50 of either."""
_CHIP = re.compile(r"Apple M(\d+)\b")
_HELPED = range(1, 5)
"""Generations of chips on which long command buffers were measured to help; on an M5 Max they changed nothing."""


def keep_float32() -> None:
    """Let products of float32 matrices be computed in float32; M5 and CUDA compute them in TF32 otherwise."""
    os.environ.setdefault(_TF32, "0")


def prepare_float32(dtype: str | None) -> str | None:
    """Call `keep_float32` if `dtype` is "float32"; return `dtype`."""
    if dtype == "float32":
        keep_float32()
    return dtype


def lengthen_command_buffers() -> None:
    """Let a command buffer of Metal hold more kernels, on the chips on which this helps."""
    for name, value in buffer_limits(platform.system(), processor()).items():
        os.environ.setdefault(name, value)


def buffer_limits(system: str, chip: str) -> Mapping[str, str]:
    """Return the variables for a machine, by name: those of M1 to M4, none for any other.

    system: "Darwin" is macOS. chip: "Apple M3 Pro".
    """
    found = _CHIP.match(chip) if system == "Darwin" else None
    return _LIMITS if found is not None and int(found[1]) in _HELPED else {}


@cache
def processor() -> str:
    """Return the name of this Mac's chip, "" on other systems. MLX knows it too, but has not been imported yet."""
    if platform.system() != "Darwin":
        return ""
    # Imported here: no other system needs it, and --help has no time for it.
    import subprocess

    command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()
