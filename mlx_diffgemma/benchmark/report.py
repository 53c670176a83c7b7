"""Report the results of a benchmark: tables for a terminal, one object for --json."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mlx_diffgemma.benchmark.results import Attempt, Benchmark, Figures, Measured, Point, figures, short_names
from mlx_diffgemma.device.machine import Machine
from mlx_diffgemma.display.cells import printable

_NONE = "–"
_STEP_LABELS = (("diffusion", "step of {canvas} after {prefix:,}"), ("autoregressive", "token after {prefix:,}"))
_QUOTED = 40
"""Maximum characters of a refused answer that are shown."""
_HEADINGS = (
    "\naccepted", "\ntries", "\np50", "\np95", "\nfirst", "steps/\ncanvas", "tokens/\nforward", "\ntok/s", "\ncost",
)  # fmt: skip
_LEGEND = (
    "tries: attempts per answer. p50, p95: seconds from prompt to whole answer. first: to the first block, of an "
    "autoregressive model to the first token. cost: all seconds spent, per accepted answer."
)


def show(benchmark: Benchmark, machine: Machine, console: Console) -> None:
    """Print a table of speeds with a column per model, a table of answers with a row per prompt, and notes."""
    # A terminal breaks long lines between words; a file keeps them.
    whole = not console.is_terminal
    console.print(Text(machine.line()), soft_wrap=whole)
    console.print(speed_table(benchmark.models))
    if any(model.attempts for model in benchmark.models):
        console.print(answers_table(benchmark))
        console.print(Text(_LEGEND, style="dim"), soft_wrap=whole)
    for line in notes(benchmark):
        # The line may quote the output of a command, which may hold control characters.
        console.print(Text(printable(line)), soft_wrap=whole)


def speed_table(models: Sequence[Measured]) -> Table:
    """Return the table of loading, memory, prefills and steps."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("speed", no_wrap=True)
    for name in short_names(models):
        table.add_column(Text(name), justify="right")
    for label, cells in _speed_rows(models):
        table.add_row(label, *cells)
    return table


def _speed_rows(models: Sequence[Measured]) -> Iterator[tuple[str, list[str]]]:
    yield "loading", [_time(model.loaded.seconds) for model in models]
    yield "weights in memory", [_memory(model.loaded.weights) for model in models]
    yield "most memory", [_memory(model.peak_memory) for model in models]
    for length in sorted({point.prefix for model in models for point in model.prefill}):
        points = [_at(model.prefill, length, 0) for model in models]
        cells = [f"{_number(point.tokens_per_second)} tok/s" if point else _NONE for point in points]
        yield f"prefill of {length:,}", cells
    for kind, label in _STEP_LABELS:
        steps = [model.steps if model.loaded.kind == kind else () for model in models]
        for canvas, prefix in sorted({(point.canvas, point.prefix) for found in steps for point in found}):
            points = [_at(found, prefix, canvas) for found in steps]
            cells = [_time(point.median) if point else _NONE for point in points]
            yield label.format(canvas=canvas, prefix=prefix), cells


def _at(points: Sequence[Point], prefix: int, canvas: int) -> Point | None:
    return next((point for point in points if (point.prefix, point.canvas) == (prefix, canvas)), None)


def answers_table(benchmark: Benchmark) -> Table:
    """Return the table of answers: a row per group or prompt and a row for all, with two models a row for each."""
    table = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column(Text(f"suite\n{benchmark.suite}"), overflow="fold")
    for heading in _HEADINGS:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, prompts in benchmark.rows.items():
        attempts = [model.attempts_at(*prompts) for model in benchmark.models]
        if any(attempts):
            _add(table, name, short_names(benchmark.models), attempts)
    _add(table, "all", short_names(benchmark.models), [model.attempts for model in benchmark.models], style="bold")
    return table


def _add(
    table: Table, name: str, models: Sequence[str], attempts: Sequence[Sequence[Attempt]], style: str | None = None
) -> None:
    """Add a row for the attempts of one model, or the name and below it a row per model."""
    rows = [_cells(figures(each)) if each else [_NONE] * len(_HEADINGS) for each in attempts]
    if len(models) == 1:
        table.add_row(Text(name), *rows[0], style=style)
        return
    table.add_row(Text(name), style=style)
    for model, cells in zip(models, rows, strict=True):
        table.add_row(Padding(Text(model), (0, 0, 0, 2)), *cells, style=style)


def _cells(found: Figures) -> list[str]:
    return [
        f"{found.accepted}/{found.answers}",
        f"{found.attempts / found.answers:.1f}",
        _number(found.p50_seconds),
        _number(found.p95_seconds),
        _number(found.first_seconds),
        _NONE if found.steps_per_canvas is None else f"{found.steps_per_canvas:.1f}",
        f"{found.tokens_per_forward:.1f}",
        _number(found.tokens_per_second),
        _NONE if found.cost_seconds is None else _number(found.cost_seconds),
    ]


def notes(benchmark: Benchmark) -> list[str]:
    """Return lines on what was refused with the last reason, what was left out, and whether the run ended early."""
    lines: list[str] = []
    for model, short in zip(benchmark.models, short_names(benchmark.models), strict=True):
        for name, prompts in benchmark.rows.items():
            attempts = model.attempts_at(*prompts)
            refused = [attempt for attempt in attempts if not attempt.accepted]
            if refused:
                where = f"{name}, {short}, {len(refused)} of {len(attempts)}"
                lines.append(f"refused: {where}: {refused[-1].refusal}{_quote(refused[-1])}")
    lines += [f"left out: {reason}" for reason in benchmark.dropped]
    return lines if benchmark.whole else [*lines, "ended before everything was measured"]


def _quote(attempt: Attempt) -> str:
    """Quote the end of an answer, which shows most of what is wrong with it."""
    text = repr(attempt.reply.text)
    return f", in {text}" if len(text) <= _QUOTED else f", in ...{text[-_QUOTED:]}"


def _time(seconds: float) -> str:
    return f"{_number(seconds * 1000)} ms" if seconds < 0.9995 else f"{_number(seconds)} s"


def _number(value: float) -> str:
    """Format a number with three digits, or with more before the point."""
    return f"{value:,.{2 if value < 9.995 else 1 if value < 99.95 else 0}f}"


def _memory(nbytes: int) -> str:
    return f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.1f} MB"


def as_object(benchmark: Benchmark, machine: Machine) -> dict[str, Any]:
    """Return all results as one JSON object, with every reply and its seconds.

    A prompt of a group has a key "group", and a model that was asked such prompts has a key "groups".
    """
    return {
        "machine": asdict(machine),
        "suite": benchmark.suite,
        "prompts": list(benchmark.prompts),
        "asking": dict(benchmark.asking),
        "models": [_model(model, benchmark) for model in benchmark.models],
        "left_out": list(benchmark.dropped),
        "whole": benchmark.whole,
    }


def _model(model: Measured, benchmark: Benchmark) -> dict[str, Any]:
    loaded = model.loaded
    groups = _groups(model, benchmark)
    return {
        "model": loaded.model,
        "kind": loaded.kind,
        "options": dict(loaded.options),
        "load_seconds": loaded.seconds,
        "weights_bytes": loaded.weights,
        "peak_memory": model.peak_memory,
        "prefill": [
            {
                "tokens": point.prefix,
                "tokens_per_second": point.tokens_per_second,
                "seconds": list(point.seconds),
                "peak_memory": point.peak_memory,
            }
            for point in model.prefill
        ],
        "steps": [
            {
                "prefix": point.prefix,
                "canvas": point.canvas,
                "seconds_per_step": point.median,
                "seconds": list(point.seconds),
                "peak_memory": point.peak_memory,
            }
            for point in model.steps
        ],
        "answers": [
            _answers(name, benchmark.groups.get(name), attempts)
            for name in benchmark.prompts
            if (attempts := model.attempts_at(name))
        ],
        **({"groups": groups} if groups else {}),
        "all": asdict(figures(model.attempts)) if model.attempts else None,
    }


def _groups(model: Measured, benchmark: Benchmark) -> list[dict[str, Any]]:
    names = set(benchmark.groups.values())
    return [
        {"group": row, **asdict(figures(attempts))}
        for row, prompts in benchmark.rows.items()
        if row in names and (attempts := model.attempts_at(*prompts))
    ]


def _answers(name: str, group: str | None, attempts: Sequence[Attempt]) -> dict[str, Any]:
    return {
        "prompt": name,
        **({} if group is None else {"group": group}),
        **asdict(figures(attempts)),
        "replies": [
            {
                "answer": attempt.answer,
                "seed": attempt.seed,
                "accepted": attempt.accepted,
                "refusal": attempt.refusal,
                **asdict(attempt.reply),
            }
            for attempt in attempts
        ],
    }
