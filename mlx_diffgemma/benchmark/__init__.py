"""Measure a model: how fast it is, how often its answers are right, and how many seconds a right answer costs."""

from typing import Literal, TypeAlias, get_args

SuiteName: TypeAlias = Literal["full", "demo", "demo-accuracy", "demo-infill", "demo-constrained"]
"""The built-in suites; `prompts` describes them."""
SUITES: tuple[SuiteName, ...] = get_args(SuiteName)

__all__ = ["SUITES", "SuiteName"]
