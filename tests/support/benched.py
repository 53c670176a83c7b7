"""A benchmark without a model: a subject with scripted answers, and results that were made up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from mlx_diffgemma.benchmark.results import Attempt, Benchmark, Loaded, Measured, Point, Reply
from mlx_diffgemma.benchmark.suite import Case
from mlx_diffgemma.device.machine import Machine
from mlx_diffgemma.errors import OutOfMemoryError
from mlx_diffgemma.generation_config import GenerationConfig

MACHINE = Machine(
    accelerators="",
    device="Apple M9",
    backend="gpu",
    memory=32 * 2**30,
    system="Darwin arm64",
    mlx="0.32.4",
    mlx_lm="0.32.2",
    mlx_diffgemma="0.1.0",
)


def reply(text: str = "yes", *, seconds: float = 2.0, **changes: object) -> Reply:
    """Return a reply of 40 tokens in two canvases of 8 and 6 steps."""
    values = {
        "text": text,
        "finish_reason": "stop",
        "tokens": 40,
        "forwards": 14,
        "canvases": 2,
        "first_seconds": seconds / 2,
        "seconds": seconds,
        "peak_memory": 17_000_000_000,
    }
    return Reply(**{**values, **changes})


def attempt(prompt: str = "chat", answer: int = 0, *, refusal: str | None = None, said: Reply | None = None) -> Attempt:
    """Return an attempt that is accepted unless it has a refusal."""
    return Attempt(prompt=prompt, answer=answer, seed=0, reply=said or reply(), refusal=refusal, last=refusal is None)


def point(prefix: int, canvas: int, *seconds: float, peak_memory: int = 17_500_000_000) -> Point:
    """Return a measurement."""
    return Point(prefix=prefix, canvas=canvas, seconds=seconds, peak_memory=peak_memory)


DIFFUSION = Measured(
    loaded=Loaded(
        model="models/diffusiongemma-4bit",
        kind="diffusion",
        seconds=11.52,
        weights=16_980_000_000,
        peak_memory=17_030_000_000,
        options={"max_steps": 48},
    ),
    prefill=(point(512, 0, 1.3, 1.28, 1.31), point(8192, 0, 22.1)),
    steps=(
        point(512, 64, 0.26, 0.25),
        point(512, 256, 0.97, 0.96, 0.99),
        point(8192, 256, 1.2, 1.21, peak_memory=19_000_000_000),
    ),
    attempts=(
        attempt("chat", said=reply(seconds=4.0)),
        attempt("chat", 1, said=reply(seconds=6.0)),
        attempt("count", refusal="no match for 1 2 3", said=reply("1 2 2", seconds=10.0)),
        attempt("count", said=reply(seconds=12.0)),
        attempt("count", 1, refusal="no match for 1 2 3", said=reply("1 2 4", seconds=11.0)),
    ),
)
AUTOREGRESSIVE = Measured(
    loaded=Loaded(
        model="hub/gemma-4",
        kind="autoregressive",
        seconds=9.8,
        weights=16_000_000_000,
        peak_memory=16_100_000_000,
        options={"temperature": 0.0},
    ),
    prefill=(point(512, 0, 1.25),),
    steps=(point(512, 1, 0.016, 0.015, 0.017),),
    attempts=(attempt("chat", said=reply(seconds=1.0, forwards=40, canvases=0, first_seconds=0.12)),),
)


def found(*models: Measured, **changes: object) -> Benchmark:
    """What a run found, DIFFUSION alone unless models are given."""
    benchmark = Benchmark(
        suite="full",
        prompts=("chat", "count"),
        models=models or (DIFFUSION,),
        asking={"max_tokens": 256, "repeats": 2, "retries": 2, "seed": 0},
    )
    return replace(benchmark, **changes)


@dataclass(kw_only=True)
class ScriptedSubject:
    """Says one text after the other, in one second more each time; is out of memory after `full` tokens."""

    script: Sequence[str] = ("yes",)
    context: int = 1000
    canvas: int = 64
    varies: bool = True
    full: int = 10**9
    loaded: Loaded = field(default=DIFFUSION.loaded)
    config: GenerationConfig = field(default=GenerationConfig(max_tokens=77))
    asked: list[tuple[str, int, int]] = field(default_factory=list)
    prefilled: list[int] = field(default_factory=list)

    def prefill(self, length: int) -> float:
        """Read a hundred tokens a second."""
        self.prefilled.append(length)
        if length > self.full:
            raise MemoryError
        return length / 100

    def steps(self, prefix: int, canvas: int, count: int, patience: float) -> list[float]:
        """Take a millisecond per position."""
        if prefix > self.full:
            raise OutOfMemoryError("out of memory while thinking")
        return [canvas / 1000] * count

    def problem(self, case: Case, max_tokens: int) -> str | None:
        """Prompts of one word do not fit."""
        prompt = case.prompt or ""
        return None if " " in prompt else f"{prompt!r} and {max_tokens} tokens do not fit"

    def warm_up(self, case: Case) -> None:
        """Remembers it."""
        self.asked.append((case.prompt or "", 0, -1))

    def reply(self, case: Case, max_tokens: int, seed: int) -> Reply:
        """The next of the script."""
        said = sum(seed >= 0 for _, _, seed in self.asked)
        self.asked.append((case.prompt or "", max_tokens, seed))
        return reply(self.script[said % len(self.script)], seconds=1.0 + said)
