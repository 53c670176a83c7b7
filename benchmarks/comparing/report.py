"""Report medians, ratios and their spread: a ratio compares one turn of both programs, the spread is its range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from rich.table import Table

from comparing.turns import EXACT, OURS, PREFILL, Measured, top_k_name

WHOLE = "all of it"
"""The higher one of the peaks of prefill and steps, which a user sees."""
TARGETS = {
    ("seconds", PREFILL): 0.5,
    ("seconds", EXACT): 0.9,
    ("seconds", top_k_name(64)): 0.45,
    ("peak", WHOLE): 0.7,
}
"""Maximum ratio to mlx-vlm on the shape mid, in float32 on a CPU."""
LONG, LONG_TARGET = 32768, 0.45
"""A prefix in tokens, and the maximum ratio of a step with top-64 conditioning after it."""
JUDGED = "mid"
PEER = "mlx-vlm"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One figure of this runtime beside another program's."""

    shape: str
    prefix: int
    what: str
    unit: str
    """seconds, or peak: bytes"""
    peer: str
    ours: float
    theirs: float
    ratio: float
    least: float
    most: float
    target: float | None

    @property
    def missed(self) -> bool:
        """Whether the ratio is above its target."""
        return self.target is not None and self.ratio > self.target


def rows(measured: Measured, *, judged: bool) -> Iterator[Row]:
    """Yield seconds, then peak memory, of what both sides did; both kinds of our steps beside their one kind."""
    ours = measured.series[OURS]
    for peer, theirs in measured.series.items():
        if peer == OURS:
            continue
        highest = (_with_highest(ours.peaks), _with_highest(theirs.peaks))
        for unit, mine, other in (("seconds", ours.seconds, theirs.seconds), ("peak", *highest)):
            for what, values in mine.items():
                beside = other.get(what) or other.get(EXACT, [])
                pairs = [(value, against) for value, against in zip(values, beside, strict=False) if against]
                if not pairs:
                    continue
                ratios = [value / against for value, against in pairs]
                yield Row(
                    shape=measured.shape,
                    prefix=measured.prefix,
                    what=what,
                    unit=unit,
                    peer=peer,
                    ours=median(value for value, _ in pairs),
                    theirs=median(against for _, against in pairs),
                    ratio=median(ratios),
                    least=min(ratios),
                    most=max(ratios),
                    target=_target(measured, unit, what) if judged and peer == PEER else None,
                )


def _with_highest(peaks: Mapping[str, list[int]]) -> Mapping[str, list[int]]:
    """Return the peaks of every turn by what was measured, with the highest of all as WHOLE."""
    return {**peaks, WHOLE: [max(highest for values in peaks.values() for highest in values)]}


def _target(measured: Measured, unit: str, what: str) -> float | None:
    if measured.shape != JUDGED:
        return None
    if (unit, what, measured.prefix) == ("seconds", top_k_name(64), LONG):
        return LONG_TARGET
    return TARGETS.get((unit, what))


def table(found: Sequence[Row]) -> Table:
    """Return a table of all rows, with a line after each shape and prefix."""
    result = Table("shape", "prefix", "what", "ours", "peer", "theirs", "ratio", "spread", "target")
    for column in result.columns:
        column.no_wrap = True
        if column.header not in ("shape", "what", "peer"):
            column.justify = "right"
    for index, row in enumerate(found):
        last = index + 1 == len(found) or (found[index + 1].shape, found[index + 1].prefix) != (row.shape, row.prefix)
        result.add_row(
            row.shape,
            str(row.prefix),
            row.what if row.unit == "seconds" else f"{row.what}: peak",
            _shown(row.ours, row.unit),
            row.peer,
            _shown(row.theirs, row.unit),
            f"{row.ratio:.2f}",
            f"{row.least:.2f} to {row.most:.2f}",
            "" if row.target is None else f"{row.target:.2f}" + (" missed" if row.missed else ""),
            end_section=last,
        )
    return result


def _shown(value: float, unit: str) -> str:
    if unit == "peak":
        return f"{value / 1e9:.3f} GB"
    return f"{value:.2f} s" if value >= 1 else f"{value * 1e3:.1f} ms"


def notes(measured: Measured) -> Iterator[str]:
    """Yield how many of the most likely tokens of one canvas agree, and the peak memory of the processes."""
    ours = measured.series[OURS]
    for peer, theirs in measured.series.items():
        if peer != OURS:
            same = sum(mine == other for mine, other in zip(ours.best, theirs.best, strict=True))
            yield (
                f"{measured.shape}, prefix {measured.prefix}: {same} of {len(ours.best)} tokens as {peer} has them; "
                f"resident {ours.resident / 1e9:.2f} GB, {peer} {theirs.resident / 1e9:.2f} GB, loading included"
            )


def as_json(measured: Sequence[Measured], found: Sequence[Row], machine: dict[str, Any]) -> dict[str, Any]:
    """Return everything as a JSON object, with the values of every turn."""
    return {
        "machine": machine,
        "rows": [{**asdict(row), "missed": row.missed} for row in found],
        "measured": [asdict(each) for each in measured],
    }
