"""An autoregressive model, run through mlx-lm, as a subject: its own chat template, its own sampling options."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from contextlib import closing, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import mlx.core as mx
import mlx.nn as nn

from mlx_diffgemma.benchmark.results import Loaded, Reply
from mlx_diffgemma.benchmark.subject import TEXT, repeated, steady, weight
from mlx_diffgemma.checkpoint.hub import model_folder
from mlx_diffgemma.errors import BenchmarkError, loading_errors, out_of_memory
from mlx_diffgemma.files import read_json
from mlx_diffgemma.model.config import MODEL_TYPE

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
"""What generation_config.json may say where it has do_sample, and what it means where it does not."""


@dataclass(frozen=True, kw_only=True)
class BaselineChoice:
    """Which model to load, and what its prompts are put into."""

    model: str
    system: str | None = None
    thinking: bool = False


class LanguageModel(NamedTuple):
    """What mlx-lm makes of a folder, and the sampling options in it."""

    model: nn.Module
    tokenizer: Any
    config: Mapping[str, Any]
    sampling: Mapping[str, float]


def check_baseline(wanted: BaselineChoice) -> None:
    """Find out whether mlx-lm can load a model, without reading its weights. Raises DiffGemmaError."""
    _load(wanted.model, lazy=True)


def load_baseline(wanted: BaselineChoice) -> Autoregressive:
    """Load a model, timed. Raises DiffGemmaError."""
    mx.clear_cache()
    mx.reset_peak_memory()
    begin = time.perf_counter()
    contents = _load(wanted.model, lazy=False)
    mx.synchronize()
    loaded = Loaded(
        model=wanted.model,
        kind="autoregressive",
        seconds=time.perf_counter() - begin,
        weights=weight(contents.model),
        peak_memory=mx.get_peak_memory(),
        options=dict(contents.sampling),
    )
    return Autoregressive(contents=contents, loaded=loaded, text=contents.tokenizer.encode(TEXT), wanted=wanted)


def _load(name: str, *, lazy: bool) -> LanguageModel:
    from mlx_lm.utils import load

    folder = model_folder(name)
    if read_json(folder / "config.json").get("model_type") == MODEL_TYPE:
        raise BenchmarkError(f"the baseline {name} is a DiffusionGemma: name a model that mlx-lm runs")
    options = sampling(folder)
    try:
        with redirect_stdout(sys.stderr), out_of_memory("loading the baseline", "choose a smaller one"):
            loaded: tuple[Any, ...] = load(str(folder), lazy=lazy, return_config=True)
    except loading_errors() as error:
        raise BenchmarkError(f"mlx-lm cannot load the baseline {name}: {error}") from error
    return LanguageModel(loaded[0], loaded[1], loaded[2], options)


def sampling(folder: Path) -> dict[str, float]:
    """The checkpoint's own sampling options; temperature 0, the most likely token, where it says nothing of sampling.

    Raises BenchmarkError.
    """
    path = folder / "generation_config.json"
    raw = read_json(path) if path.exists() else {}
    if not raw.get("do_sample"):
        return {**SAMPLING, "temperature": 0.0}
    found = {name: raw.get(name) for name in SAMPLING}
    options: dict[str, float] = {}
    for name, value in found.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise BenchmarkError(f"{path}: {name} must be a number, not {value!r}")
        options[name] = SAMPLING[name] if value is None else value
    return options


@dataclass(frozen=True, kw_only=True, eq=False)
class Autoregressive:
    """A model from mlx-lm; see Subject. A step is a token here. `text` are the ids that prefixes are made of."""

    contents: LanguageModel
    loaded: Loaded
    text: list[int]
    wanted: BaselineChoice
    canvas: int = 1

    @property
    def context(self) -> int:
        """The longest sequence that config.json allows; any, where it does not say."""
        config = self.contents.config
        text = config.get("text_config")
        for entries in (config, cast("Mapping[str, Any]", text) if isinstance(text, Mapping) else {}):
            longest = entries.get("max_position_embeddings")
            if isinstance(longest, int):
                return longest
        return sys.maxsize

    @property
    def varies(self) -> bool:
        """See Subject."""
        return self.contents.sampling["temperature"] != 0

    def prefill(self, length: int) -> float:
        """See Subject: up to the first token, as a token cannot be had without."""
        return self._times(length, 1)[1]

    def steps(self, prefix: int, canvas: int, count: int, patience: float) -> list[float]:
        """See Subject: from one token to the next, whatever they are."""
        del canvas
        return steady(self._times(prefix, count + 3, patience)[1:])

    def _times(self, prefix: int, tokens: int, patience: float = 0.0) -> list[float]:
        """When generation began, which is 0, and when each token was there."""
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

    def problem(self, prompt: str, max_tokens: int) -> str | None:
        """See Subject."""
        needed = len(self._tokens(prompt)) + max_tokens
        if needed <= self.context:
            return None
        return f"prompt and max_tokens={max_tokens} need {needed} positions, the baseline has {self.context}"

    def warm_up(self, prompt: str) -> None:
        """See Subject."""
        self.reply(prompt, 2, 0)

    def reply(self, prompt: str, max_tokens: int, seed: int) -> Reply:
        """See Subject. The text is without the thinking."""
        from mlx_lm.generate import stream_generate
        from mlx_lm.sample_utils import make_sampler

        options = self.contents.sampling
        sampler = make_sampler(options["temperature"], options["top_p"], options["min_p"], top_k=int(options["top_k"]))
        mx.random.seed(seed)
        mx.reset_peak_memory()
        mx.synchronize()
        text, times, count, reason = "", list[float](), 0, None
        begin = time.perf_counter()
        with redirect_stdout(sys.stderr), out_of_memory("running the baseline", "choose a smaller one"):
            tokens = self._tokens(prompt)
            for part in stream_generate(
                self.contents.model, self.contents.tokenizer, tokens, max_tokens, sampler=sampler
            ):
                times.append(time.perf_counter() - begin)
                text += part.text
                count, reason = part.generation_tokens, part.finish_reason
        seconds = time.perf_counter() - begin
        return Reply(
            text=without_thought(text, self.contents.tokenizer.think_start, self.contents.tokenizer.think_end),
            finish_reason=str(reason),
            tokens=count,
            forwards=count,
            canvases=0,
            first_seconds=times[0],
            seconds=seconds,
            peak_memory=mx.get_peak_memory(),
        )

    def _tokens(self, prompt: str) -> list[int]:
        """Ids of a prompt in the model's own chat template, or as it is where the model has none."""
        from jinja2 import TemplateError

        if not self.contents.tokenizer.has_chat_template:
            if self.wanted.system is not None:
                raise BenchmarkError(f"the baseline {self.wanted.model} has no chat template: leave out the system")
            return list(self.contents.tokenizer.encode(prompt))
        system = [] if self.wanted.system is None else [{"role": "system", "content": self.wanted.system}]
        messages = [*system, {"role": "user", "content": prompt}]
        try:
            return list(
                self.contents.tokenizer.apply_chat_template(
                    messages, add_generation_prompt=True, enable_thinking=self.wanted.thinking
                )
            )
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise BenchmarkError(f"the baseline's chat template refused a prompt: {error}") from error


def without_thought(text: str, opening: str | None, closing: str | None) -> str:
    """What a model said after its thinking; the template may have opened that, and it may have no end."""
    if closing is not None and closing in text:
        return text.rpartition(closing)[2].lstrip()
    return text.partition(opening)[0] if opening is not None else text
