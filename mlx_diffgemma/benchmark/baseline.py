"""An autoregressive model as a subject: its own chat template, its own sampling options, one token per step."""

from __future__ import annotations

import sys
import time
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager, redirect_stdout
from dataclasses import dataclass

import mlx.core as mx

from mlx_diffgemma.autoregressive import (
    LanguageModel,
    load_language_model,
    prompt_tokens,
    stream_answer,
    without_thought,
)
from mlx_diffgemma.benchmark.results import Loaded, Reply
from mlx_diffgemma.benchmark.subject import TEXT, repeated, steady, weight_bytes
from mlx_diffgemma.benchmark.suite import CONSTRAINTS, Case
from mlx_diffgemma.errors import AutoregressiveError, BenchmarkError


@dataclass(frozen=True, kw_only=True)
class BaselineChoice:
    """Which model to load, and the options of its chat template."""

    model: str
    system: str | None = None
    thinking: bool = False


def check_baseline(choice: BaselineChoice) -> None:
    """Find out whether mlx-lm can load a model, without reading its weights. Raises DiffGemmaError."""
    with _as_baseline():
        load_language_model(choice.model, lazy=True)


def load_baseline(choice: BaselineChoice) -> Autoregressive:
    """Load a model and measure the loading. Raises DiffGemmaError."""
    mx.clear_cache()
    mx.reset_peak_memory()
    begin = time.perf_counter()
    with _as_baseline():
        contents = load_language_model(choice.model)
    mx.synchronize()
    loaded = Loaded(
        model=choice.model,
        kind="autoregressive",
        seconds=time.perf_counter() - begin,
        weights=weight_bytes(contents.model),
        peak_memory=mx.get_peak_memory(),
        options=dict(contents.sampling),
    )
    return Autoregressive(contents=contents, loaded=loaded, text=contents.tokenizer.encode(TEXT), choice=choice)


@contextmanager
def _as_baseline() -> Generator[None]:
    """Say in an error that it concerns the baseline and not the model that is measured."""
    try:
        yield
    except AutoregressiveError as error:
        raise BenchmarkError(f"the baseline {error}") from error


@dataclass(frozen=True, kw_only=True, eq=False)
class Autoregressive:
    """A model from mlx-lm; see Subject. A step computes one token."""

    contents: LanguageModel
    loaded: Loaded
    text: list[int]
    """the ids that prefixes repeat"""
    choice: BaselineChoice
    canvas: int = 1

    @property
    def context(self) -> int:
        """See Subject."""
        return self.contents.context

    @property
    def varies(self) -> bool:
        """See Subject."""
        return not self.contents.greedy

    def prefill(self, length: int) -> float:
        """See Subject. The seconds include the first token, which mlx-lm computes with the prefill."""
        return self._times(length, 1)[1]

    def steps(self, prefix: int, canvas: int, count: int, patience: float) -> list[float]:
        """See Subject. A step is the time from one token to the next, whatever the tokens are."""
        del canvas
        return steady(self._times(prefix, count + 3, patience)[1:])

    def _times(self, prefix: int, tokens: int, patience: float = 0.0) -> list[float]:
        """Return when generation began, which is 0, and when each token was computed."""
        from mlx_lm.generate import generate_step, generation_stream, wired_limit

        prompt = mx.array(repeated(self.text, prefix))
        mx.eval(prompt)
        mx.synchronize()
        with (
            redirect_stdout(sys.stderr),
            wired_limit(
                self.contents.model,
                [generation_stream],  # pyright: ignore[reportArgumentType] - as mlx-lm itself does
            ),
        ):
            times = [time.perf_counter()]
            with closing(generate_step(prompt, self.contents.model, max_tokens=tokens)) as generated:
                for _ in generated:
                    times.append(time.perf_counter())
                    if len(times) > 4 and times[-1] - times[1] > patience:
                        break
            mx.synchronize(generation_stream)
        return [moment - times[0] for moment in times]

    def problem(self, case: Case, max_tokens: int) -> str | None:
        """See Subject. Templates and constraints cannot be asked of an autoregressive model."""
        if case.template:
            return "the baseline fills no gaps"
        if unknown := [name for name in ("raw", *CONSTRAINTS) if case.options.get(name) not in (None, False)]:
            return f"the baseline has no option {unknown[0]}"
        needed = len(self._tokens(case)) + max_tokens
        if needed <= self.context:
            return None
        return f"prompt and max_tokens={max_tokens} need {needed} positions, the baseline has {self.context}"

    def warm_up(self, case: Case) -> None:
        """See Subject."""
        self.reply(case, 2, 0)

    def reply(self, case: Case, max_tokens: int, seed: int) -> Reply:
        """See Subject. The text is without the thinking."""
        mx.reset_peak_memory()
        mx.synchronize()
        text, times, count, reason = "", list[float](), 0, None
        begin = time.perf_counter()
        for chunk in stream_answer(self.contents, self._tokens(case), max_tokens, seed):
            times.append(time.perf_counter() - begin)
            text += chunk.text
            count, reason = chunk.tokens, chunk.finish_reason
        seconds = time.perf_counter() - begin
        return Reply(
            text=without_thought(self.contents, text),
            finish_reason=str(reason),
            tokens=count,
            forwards=count,
            canvases=0,
            first_seconds=times[0],
            seconds=seconds,
            peak_memory=mx.get_peak_memory(),
        )

    def _tokens(self, case: Case) -> list[int]:
        """Return the ids of a prompt, with the system prompt and the thinking of the case or of the command line."""
        system = case.options.get("system") if self.choice.system is None else self.choice.system
        messages: list[Mapping[str, str]] = [] if system is None else [{"role": "system", "content": system}]
        messages += case.conversation
        with _as_baseline():
            return prompt_tokens(
                self.contents, messages, thinking=self.choice.thinking or bool(case.options.get("thinking"))
            )
