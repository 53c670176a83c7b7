"""Ask a model: every prompt several times, each answer again until its check accepts it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlx_diffgemma.benchmark.results import Attempt
from mlx_diffgemma.benchmark.subject import Subject
from mlx_diffgemma.benchmark.suite import Case


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How prompts are asked: `repeats` answers to each, at most `retries` attempts at an answer.

    Every attempt at a prompt has its own seed, counted from `seed`. `max_tokens` is for prompts that name no maximum.
    """

    max_tokens: int
    repeats: int
    retries: int
    seed: int


def ask(subject: Subject, case: Case, asking: Asking) -> Iterator[Attempt]:
    """Yield the attempts at one prompt; a model that gives one answer for all seeds is asked once per answer."""
    tries = asking.retries if subject.varies else 1
    for answer in range(asking.repeats):
        for number in range(tries):
            seed = asking.seed + case.seed + answer * asking.retries + number
            reply = subject.reply(case, case.max_tokens or asking.max_tokens, seed)
            refusal = case.check.refusal(reply.text)
            last = refusal is None or number + 1 == tries
            yield Attempt(prompt=case.name, answer=answer, seed=seed, reply=reply, refusal=refusal, last=last)
            if last:
                break
