"""What is measured: a model behind one small protocol, so that both kinds of model go through the same measurements."""

from __future__ import annotations

from itertools import cycle, islice, pairwise
from typing import Protocol, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_diffgemma.benchmark.prompts import PASSAGE, PRESENT
from mlx_diffgemma.benchmark.results import Loaded, Reply

TEXT = f"{PRESENT}\n\n{PASSAGE}\n\n"
"""What prefixes are made of, over and over: experts are chosen as text chooses them, not as random ids do."""


def weight(model: nn.Module) -> int:
    """What a model's parameters hold, in bytes: not what memory in use grows by, for garbage may leave it meanwhile."""
    flat = cast("list[tuple[str, mx.array]]", tree_flatten(model.parameters()))
    return sum(array.nbytes for _, array in flat)


class Subject(Protocol):
    """A loaded model. Every method ends with everything evaluated."""

    @property
    def loaded(self) -> Loaded:
        """What loading it took."""
        ...

    @property
    def context(self) -> int:
        """The longest sequence it can hold."""
        ...

    @property
    def canvas(self) -> int:
        """The most positions it computes in one step."""
        ...

    @property
    def varies(self) -> bool:
        """Whether another seed may give another answer."""
        ...

    def prefill(self, length: int) -> float:
        """Put `length` tokens into an empty cache; seconds."""
        ...

    def steps(self, prefix: int, canvas: int, count: int, patience: float) -> list[float]:
        """Seconds of up to `count` steps of `canvas` positions behind `prefix` tokens, fewer after `patience` seconds.

        The first two are done, but left out.
        """
        ...

    def problem(self, prompt: str, max_tokens: int) -> str | None:
        """Why a prompt cannot be asked, None where it can."""
        ...

    def warm_up(self, prompt: str) -> None:
        """Do a little of what an answer takes."""
        ...

    def reply(self, prompt: str, max_tokens: int, seed: int) -> Reply:
        """Answer a prompt."""
        ...


def repeated(tokens: list[int], length: int) -> list[int]:
    """`length` ids: `tokens` again and again."""
    return list(islice(cycle(tokens), length))


def steady(times: list[float]) -> list[float]:
    """The seconds between points in time, without the first two where there are more."""
    seconds = [after - before for before, after in pairwise(times)]
    return seconds[2:] or seconds[-1:]
