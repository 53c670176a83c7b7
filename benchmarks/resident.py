"""The most memory that a process ever held."""

import resource
import sys

UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes per unit of ru_maxrss."""


def most() -> int:
    """Bytes that this process had in memory at most, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * UNIT
