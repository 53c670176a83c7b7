"""Report the figures of one program as numbers for JSON and as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from counting.costs import Counted, total
from counting.layout import VIEWS
from counting.parts import PARTS
from counting.programs import Measured

COLUMNS = ("products", "others", "weights", "read", "written", "primitives", "passes")


def figures(measured: Measured, logits: int) -> dict[str, Any]:
    """Return all sums by part and by kind; logits: elements of one pass over the vocabulary, 0 if there is none."""
    counted = [each for each in measured.counted if each.cost.primitives]
    by_part = {part: [] for part in PARTS}
    for each, part in zip(measured.counted, measured.parts, strict=True):
        by_part[part].append(each)
    kinds = sorted({each.node.kind for each in counted})
    return {
        "total": _numbers(measured.counted, logits),
        "parts": {part: _numbers(each, logits) for part, each in by_part.items() if total(each).primitives},
        "kinds": {kind: _numbers([each for each in counted if each.node.kind == kind], logits) for kind in kinds},
        "repeated": None if measured.runs is None else len(measured.runs) - len(_without_copies(counted)),
    }


def _without_copies(counted: Iterable[Counted]) -> list[Counted]:
    """Leave out reshapes that copy, because MLX's drawing does not tell them from views."""
    return [each for each in counted if each.node.kind not in VIEWS]


def _numbers(counted: Iterable[Counted], logits: int) -> dict[str, Any]:
    cost = total(counted)
    return {**asdict(cost), "passes": cost.vocabulary / logits if logits else 0.0}


def table(title: str, rows: Mapping[str, Mapping[str, Any]], whole: Mapping[str, Any]) -> Table:
    """Return a table with a line per part or kind and a line for all."""
    result = Table("", *COLUMNS, title=title, box=SIMPLE_HEAD)
    for column in result.columns:
        column.no_wrap = True
        column.justify = "right" if column.header else "left"
    for name, numbers in rows.items():
        result.add_row(name, *_cells(numbers), end_section=name == list(rows)[-1])
    result.add_row("all", *_cells(whole))
    return result


def _cells(numbers: Mapping[str, Any]) -> list[str]:
    work = [_short(numbers[name]) for name in ("products", "others")]
    moved = [_short(numbers[name]) + "B" for name in ("weights", "read", "written")]
    return [*work, *moved, f"{numbers['primitives']:,}", f"{numbers['passes']:.2f}"]


def _short(value: int) -> str:
    """Format a number with four digits at most and a letter for the thousands."""
    for letter, unit in (("T", 10**12), ("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if value >= unit:
            return f"{value / unit:.{1 if value >= 100 * unit else 2}f} {letter}"
    return f"{value} "


def notes(found: Mapping[str, Any]) -> list[str]:
    """Return lines that explain the tables."""
    repeated = found["repeated"]
    if not repeated:
        return []
    return [f"a run has {repeated} more primitives: they are equal to others, and a trace keeps one of them"]
