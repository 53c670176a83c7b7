"""How often a model is right, and what that costs: prompts asked several times, answers tried until accepted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from mlx_diffgemma.benchmark.results import Attempt
from mlx_diffgemma.benchmark.subject import Subject
from mlx_diffgemma.benchmark.suite import Case


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How prompts are asked: `repeats` answers each, `retries` attempts at an answer at most.

    Every attempt at a prompt has a seed of its own, from `seed` on. `max_tokens` is for prompts without their own.
    """

    max_tokens: int
    repeats: int
    retries: int
    seed: int


def ask(subject: Subject, case: Case, asking: Asking) -> Iterator[Attempt]:
    """The attempts at one prompt. What another seed cannot change is tried once."""
    tries = asking.retries if subject.varies else 1
    for answer in range(asking.repeats):
        for number in range(tries):
            seed = asking.seed + answer * asking.retries + number
            reply = subject.reply(case.prompt, case.max_tokens or asking.max_tokens, seed)
            refusal = case.check.refusal(reply.text)
            last = refusal is None or number + 1 == tries
            yield Attempt(prompt=case.name, answer=answer, seed=seed, reply=reply, refusal=refusal, last=last)
            if last:
                break
