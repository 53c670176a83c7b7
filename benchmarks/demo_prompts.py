"""The prompts of the suite demo-accuracy, for benchmarks that need real questions."""

from __future__ import annotations

from mlx_diffgemma.benchmark.prompts import built_in_suite


def demo_prompts(count: int) -> dict[str, list[str]]:
    """Return the first `count` prompts of every kind; the suite has 100."""
    prompts: dict[str, list[str]] = {}
    for case in built_in_suite("demo-accuracy").cases:
        prompts.setdefault(case.row, []).append(case.prompt or "")
    return {kind: each[:count] for kind, each in prompts.items()}
