"""Measurements that the benchmark does not make: each takes a loaded model and returns its figures."""

from __future__ import annotations

import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import Any

import mlx.core as mx

from mlx_diffgemma.benchmark.diffusion import Diffusion
from mlx_diffgemma.benchmark.prompts import PASSAGE
from mlx_diffgemma.constraint.spec import JsonSchema
from mlx_diffgemma.events import Denoised
from mlx_diffgemma.machine_report.steps import NotRunError
from mlx_diffgemma.text.messages import Message

PREFIX = 1024
_TIMED, _SECONDS = 6, 20.0
TOGETHER, MANY = 8, 50
FIELDS = 20
_ENDLESS = 10_000
"""Steps that no canvas takes here."""
_THINGS = ("tides", "rust", "yeast", "glaciers", "magnets", "rainbows", "concrete", "sleep")
Probe = Callable[[Diffusion], Mapping[str, Any]]


def time_attention(subject: Diffusion) -> Mapping[str, Any]:
    """Time a step with and without fused attention in the sliding layers, whose heads it has a kernel for."""
    if mx.default_device() == mx.Device(mx.cpu):
        raise NotRunError("a CPU has no fused attention")
    prefix = min(PREFIX, subject.context - subject.canvas)
    plain = median(subject.steps(prefix, subject.canvas, _TIMED, _SECONDS))
    for layer in subject.session.model.layers:
        if layer.sliding:
            object.__setattr__(layer.self_attn, "_attention", _fused)
    try:
        fused = median(subject.steps(prefix, subject.canvas, _TIMED, _SECONDS))
    except (TypeError, ValueError, RuntimeError) as error:
        raise NotRunError(f"this MLX cannot force fused attention here: {error}") from None
    return {"prefix": prefix, "unfused_seconds": plain, "fused_seconds": fused}


def _fused(queries: mx.array, keys: mx.array, values: mx.array, mask: Any) -> mx.array:
    fused: Any = mx.fast.scaled_dot_product_attention
    return fused(queries, keys, values, scale=1.0, mask=mask, force_fused=True)


def batch(subject: Diffusion) -> Mapping[str, Any]:
    """Time eight answers one by one and together."""
    session, config = subject.session, replace(subject.config, max_tokens=subject.canvas, max_steps=8)
    prompts = [f"In one sentence: what are {each}?" for each in _THINGS]
    session.generate(prompts[:2], config, batch_size=2)
    seconds: list[float] = []
    answers: list[list[tuple[int, ...]]] = []
    for size in (1, TOGETHER):
        begin = time.perf_counter()
        answers.append([each.tokens for each in session.generate(prompts, config, batch_size=size)])
        seconds.append(time.perf_counter() - begin)
    same = sum(one == other for one, other in zip(*answers, strict=True))
    return {"answers": TOGETHER, "alone_seconds": seconds[0], "together_seconds": seconds[1], "same": same}


def kept_prefix(subject: Diffusion) -> Mapping[str, Any]:
    """Answer a question about a text with and without the text read before."""
    session, config = subject.session, replace(subject.config, max_tokens=2 * subject.canvas)
    room = subject.context - config.max_tokens - 100
    passage = session.tokenizer.decode(session.tokenizer.encode(PASSAGE)[: max(1, room)])
    system: Message = {"role": "system", "content": passage}
    question: Message = {"role": "user", "content": "What is this text about?"}
    fresh = session.generate([system, question], config)
    kept = session.generate([system, question], config, prefix=session.read([system], config))
    return {
        "same": fresh.tokens == kept.tokens,
        "read_again": kept.stats.prompt_tokens - kept.stats.reused_tokens,
        "prompt_tokens": kept.stats.prompt_tokens,
        "fresh_seconds": fresh.stats.prefill_seconds,
        "kept_seconds": kept.stats.prefill_seconds,
    }


def constraint(subject: Diffusion) -> Mapping[str, Any]:
    """Time steps of a free answer, and of one that must match a schema."""
    names = [f"field_{number}" for number in range(1, FIELDS + 1)]
    kinds = ({"type": "integer", "minimum": 0, "maximum": 9}, {"enum": ["a", "b"]}, {"type": "boolean"})
    properties = {name: kinds[number % len(kinds)] for number, name in enumerate(names)}
    schema = JsonSchema({"type": "object", "properties": properties, "required": names, "additionalProperties": False})
    free = _step_seconds(subject, None)
    begin = time.perf_counter()
    built = _step_seconds(subject, schema)
    return {
        "fields": FIELDS,
        "free_seconds": free,
        "schema_seconds": built,
        "whole_seconds": time.perf_counter() - begin,
    }


def _step_seconds(subject: Diffusion, schema: JsonSchema | None) -> float:
    """Return the median seconds of a step on the first canvas."""
    config = replace(subject.config, max_tokens=max(400, subject.canvas), max_steps=_TIMED, constraint=schema)
    times: list[float] = []
    for event in subject.session.stream("Write a JSON object.", config):
        if isinstance(event, Denoised) and event.block == 0:
            times.append(time.perf_counter())
    return median(after - before for before, after in pairwise(times)) if len(times) > 1 else 0.0


def interrupt(subject: Diffusion) -> Mapping[str, Any]:
    """Measure how long Ctrl-C takes during the steps of an answer."""
    config = replace(
        subject.config,
        max_tokens=subject.canvas,
        max_steps=_ENDLESS,
        stability_threshold=_ENDLESS,
        mean_entropy=None,
        stop_tokens=(),
    )
    sent: list[float] = []

    def send() -> None:
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    # A shell lets its background jobs ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    times: list[float] = []
    try:
        with closing(subject.session.stream("Hello", config)) as events:
            for event in events:
                if isinstance(event, Denoised):
                    times.append(time.perf_counter())
                if len(times) == _TIMED:
                    # In the middle of the next step.
                    threading.Timer((times[-1] - times[-2]) / 2, send).start()
    except KeyboardInterrupt:
        step = median(after - before for before, after in pairwise(times))
        return {"step_seconds": step, "answered_seconds": time.perf_counter() - sent[0]}
    raise NotRunError("the signal did not arrive during the answer")


def endurance(subject: Diffusion) -> Mapping[str, Any]:
    """Give fifty short answers; compare the last ten with ten of the first."""
    seconds: list[float] = []
    held: list[int] = []
    for number in range(MANY):
        config = replace(subject.config, max_tokens=subject.canvas, max_steps=8, seed=number)
        begin = time.perf_counter()
        subject.session.generate(f"In one sentence: what are {_THINGS[number % len(_THINGS)]}?", config)
        seconds.append(time.perf_counter() - begin)
        held.append(mx.get_active_memory())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "answers": MANY,
        "early_seconds": median(seconds[2:12]),
        "late_seconds": median(seconds[-10:]),
        "early_memory": held[11],
        "late_memory": held[-1],
        "peak_resident": peak,
    }


PROBES: Mapping[str, Probe] = {
    "attention": time_attention,
    "batch": batch,
    "kept-prefix": kept_prefix,
    "constraint": constraint,
    "interrupt": interrupt,
    "endurance": endurance,
}
