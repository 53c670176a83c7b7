"""Tokens that a model has read, kept so that no later prompt that begins with them reads them again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from mlx_diffgemma.model.cache import Cache


class PrefixSource(Protocol):
    """Where a prompt finds how far it was read before, and what it reads is kept."""

    def find(self, tokens: Sequence[int]) -> Cache | None:
        """Return the cache of the most leading tokens that are kept; the caller writes to a snapshot of it."""
        ...

    def keep(self, tokens: Sequence[int], cache: Cache, *, is_system: bool) -> None:
        """Keep the cache of these tokens, all of them; `cache` is a snapshot that nobody writes to.

        is_system: they are a system prompt, with which many prompts begin.
        """
        ...


class BothSources(NamedTuple):
    """Finds what `first` or else `second` has; keeps in both."""

    first: PrefixSource
    second: PrefixSource

    def find(self, tokens: Sequence[int]) -> Cache | None:
        """Return what the first finds, else what the second finds."""
        return self.first.find(tokens) or self.second.find(tokens)

    def keep(self, tokens: Sequence[int], cache: Cache, *, is_system: bool) -> None:
        """Keep the cache in both."""
        self.first.keep(tokens, cache, is_system=is_system)
        self.second.keep(tokens, cache, is_system=is_system)


class Reuse(NamedTuple):
    """Where a prompt finds what was read before, and at which of its ends a prefix is kept."""

    source: PrefixSource
    ends: tuple[int, ...] = ()
    """numbers of tokens"""
    system_end: int = 0
    """the one of them that ends the system prompt"""


@dataclass(eq=False)
class Prefix:
    """The beginning of a prompt, and the cache after as many of its tokens as are read.

    The rest is read when the prefix is first used. A cache is a few references: prompts that go on from one prefix
    share its arrays until they write.
    """

    tokens: tuple[int, ...]
    cache: Cache | None = None
    """after the first `cache.offset` of the tokens"""

    @property
    def nbytes(self) -> int:
        """Size of the cache in bytes."""
        return 0 if self.cache is None else self.cache.nbytes

    def __repr__(self) -> str:
        read = 0 if self.cache is None else self.cache.offset
        return f"<Prefix of {len(self.tokens)} tokens, {read} read, {self.nbytes / 1e6:.1f} MB>"

    def find(self, tokens: Sequence[int]) -> Cache | None:
        """Return the cache if `tokens` begin with what it holds."""
        if self.cache is None or tuple(tokens[: self.cache.offset]) != self.tokens[: self.cache.offset]:
            return None
        return self.cache

    def keep(self, tokens: Sequence[int], cache: Cache, *, is_system: bool = False) -> None:
        """Keep the cache of more of these tokens than before."""
        del is_system
        read = 0 if self.cache is None else self.cache.offset
        if read < len(tokens) <= len(self.tokens) and self.tokens[: len(tokens)] == tuple(tokens):
            self.cache = cache


def common_length(first: Sequence[int], second: Sequence[int]) -> int:
    """Return with how many equal tokens two runs begin."""
    pairs = zip(first, second, strict=False)
    return next((at for at, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))
