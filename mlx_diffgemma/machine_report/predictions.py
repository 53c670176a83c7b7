"""What was estimated before anybody measured: seconds per step by chip, and what fewer steps bring."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_FILE = Path(__file__).parent / "predictions.json"
_CHIP = re.compile(r"Apple (M\d+(?: (?:Pro|Max|Ultra))?)")
_SHORT = 16
"""A prefix of so few tokens counts as none."""


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """The estimates for one chip and one model. source, date, notes: where they come from."""

    chip: str | None
    """None: there are none for this machine or this model"""
    source: str
    date: str
    notes: Sequence[str]
    ratios: Mapping[str, float]
    """step of the report -> how many times as fast as `answers`"""
    steps: Sequence[Mapping[str, Any]] = ()

    def seconds(self, canvas: int, prefix: int) -> float | None:
        """Return the seconds of a step after a prefix, None if nothing was estimated."""
        prefix = 0 if prefix <= _SHORT else prefix
        found = (each for each in self.steps if (each["canvas"], each["prefix"]) == (canvas, prefix))
        return next((each["expected_ms"][self.chip] / 1000 for each in found), None) if self.chip else None


def predictions(device: str, weights: int | None) -> Predictions:
    """Return the estimates for a machine by its name, "Apple M3 Pro"; weights: bytes of the model's, None if unknown.

    They are for the released model in 4 bits, so for other sizes there are none.
    """
    values = json.loads(_FILE.read_text(encoding="utf-8"))
    least, most = values["weights_gb"]
    known = {chip for step in values["steps"] for chip in step["expected_ms"]}
    named = _CHIP.search(device)
    is_release = weights is not None and least <= weights / 1e9 <= most
    return Predictions(
        chip=named[1] if named and named[1] in known and is_release else None,
        source=values["source"],
        date=values["date"],
        notes=values["notes"],
        ratios=values["ratios"] if is_release else {},
        steps=values["steps"],
    )
