"""What is measured: a model behind one small protocol, so that both kinds of model take the same measurements."""

from __future__ import annotations

from itertools import cycle, islice, pairwise
from typing import Protocol, cast

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from mlx_diffgemma.benchmark.prompts import PASSAGE, PRESENT
from mlx_diffgemma.benchmark.results import Loaded, Reply
from mlx_diffgemma.benchmark.suite import Case

TEXT = f"{PRESENT}\n\n{PASSAGE}\n\n"
"""The text that prefixes repeat; a real text, because random ids would choose other experts than text does."""


def weight_bytes(model: nn.Module) -> int:
    """Return the size of a model's parameters in bytes.

    The growth of the memory in use would be another number, because garbage may be freed meanwhile.
    """
    flat = cast("list[tuple[str, mx.array]]", tree_flatten(model.parameters()))
    return sum(array.nbytes for _, array in flat)


class Subject(Protocol):
    """A loaded model. When a method returns, everything is evaluated."""

    @property
    def loaded(self) -> Loaded:
        """What was measured while the model was loaded."""
        ...

    @property
    def context(self) -> int:
        """The maximum sequence length in tokens."""
        ...

    @property
    def canvas(self) -> int:
        """The maximum number of positions that are computed in one step."""
        ...

    @property
    def varies(self) -> bool:
        """Whether another seed may give another answer."""
        ...

    def prefill(self, length: int) -> float:
        """Encode `length` tokens into an empty cache; return the seconds."""
        ...

    def steps(self, prefix: int, canvas: int, count: int, patience: float) -> list[float]:
        """Return the seconds of `count` steps of `canvas` positions after `prefix` tokens.

        Two more steps come first and are not timed. No step begins after `patience` seconds.
        """
        ...

    def problem(self, case: Case, max_tokens: int) -> str | None:
        """Return why a prompt cannot be asked; None if it can be. Raises DiffGemmaError for options that are wrong."""
        ...

    def warm_up(self, case: Case) -> None:
        """Compute a little of an answer, so that the first measurement does not compile kernels."""
        ...

    def reply(self, case: Case, max_tokens: int, seed: int) -> Reply:
        """Answer a prompt."""
        ...


def repeated(tokens: list[int], length: int) -> list[int]:
    """Return `length` token ids by repeating `tokens`."""
    return list(islice(cycle(tokens), length))


def steady(times: list[float]) -> list[float]:
    """Return the seconds between points in time, without the first two intervals if there are more."""
    seconds = [after - before for before, after in pairwise(times)]
    return seconds[2:] or seconds[-1:]
