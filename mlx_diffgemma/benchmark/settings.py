"""What a benchmark measures, as options of the command line."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mlx_diffgemma.benchmark import SuiteName
from mlx_diffgemma.option import option

_MEASURED = "What is measured"
_LENGTHS = "128,512,2048,8192"


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """What is asked, and which sizes are timed; `benchmark.run.BenchmarkPlan` checks the values."""

    baseline: str | None = option(
        None, "Autoregressive model for mlx-lm, asked and measured in the same way.", _MEASURED, metavar="NAME"
    )
    suite: SuiteName | None = option(
        None, "Built-in prompts.", _MEASURED, default_text="demo for canvases under 64, otherwise full"
    )
    prompts: Path | None = option(
        None,
        "Prompts of your own: lines of JSON with prompt or template, check, and options of a generation.",
        _MEASURED,
        metavar="FILE",
    )
    only: str | None = option(None, "Ask only the prompts with this text in their name.", _MEASURED)
    speed: bool = option(True, "Measure prefill and steps.", _MEASURED)
    answers: bool = option(True, "Ask the prompts.", _MEASURED)
    lengths: str = option(_LENGTHS, "Tokens of prefills.", _MEASURED, metavar="N,N,..")
    prefixes: str = option(_LENGTHS, "Tokens before the canvas of steps.", _MEASURED, metavar="N,N,..")
    canvases: str | None = option(
        None,
        "Tokens on the canvas of steps.",
        _MEASURED,
        metavar="N,N,..",
        default_text="the model's, a half, a quarter and an eighth of it",
    )
    repeats: int = option(3, "Answers to every prompt.", _MEASURED)
    retries: int = option(3, "Maximum number of attempts at an answer until it passes its check.", _MEASURED)
    max_tokens: int | None = option(
        None, "Maximum number of tokens in every answer.", _MEASURED, flags=("-n",), default_text="the prompt's"
    )
    seed: int = option(0, "Seed of the first attempt at every prompt; each further attempt has the next.", _MEASURED)
