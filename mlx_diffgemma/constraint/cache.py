"""Automata that were made are kept: in memory the last few, in the user's cache folder all.

A file is named by everything it depends on, written beside its place and renamed; one that cannot be read is made anew.
"""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.metadata import version
from pathlib import Path

import numpy as np

from mlx_diffgemma.constraint.byte_automaton import compiled
from mlx_diffgemma.constraint.token_automaton import TokenAutomaton
from mlx_diffgemma.constraint.tokens import over_tokens
from mlx_diffgemma.files import replacing

LAYOUT = 2
"""To be raised when the automata, or what makes them, change."""
ARRAYS = ("class_of", "accepting", "classes", "sources", "targets")
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What numpy raises for a file that is not whole."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """The bytes that every id of a model adds to a text; b"" for those that are no text."""

    pieces: tuple[bytes, ...]

    @classmethod
    def of(cls, table: Sequence[bytes], size: int) -> Vocabulary:
        """The vocabulary of a model that knows `size` ids, of a tokenizer that knows those of `table`."""
        return cls(pieces=(*table[:size], *[b""] * (size - len(table))))

    @cached_property
    def digest(self) -> str:
        """Stands for all of them."""
        return _digest(self.pieces)


@lru_cache(maxsize=8)
def automaton_of(
    pattern: str, vocabulary: Vocabulary, stops: tuple[int, ...], allow_empty: bool, prefix: bytes = b""
) -> TokenAutomaton:
    """The automaton of the texts that `pattern` matches whole, with `prefix` before each. Raises ConstraintError."""
    said = (pattern, str(stops), str(allow_empty), vocabulary.digest, version("outlines-core"), str(LAYOUT))
    file = folder() / f"{_digest([*(part.encode() for part in said), prefix])}.npz"
    kept = _read(file, stops, len(vocabulary.pieces))
    if kept is not None:
        return kept
    bytewise = compiled(pattern)
    bytewise = (bytewise if allow_empty else bytewise.nonempty()).behind(prefix)
    made = over_tokens(bytewise, vocabulary.pieces, stops)
    # Where nothing can be kept it is made again next time.
    with suppress(OSError):
        _write(file, made)
    return made


def folder() -> Path:
    """Where automata are kept: of the cache folder that the system gives its users."""
    own = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or own) / "mlx_diffgemma" / "constraints"


def _digest(parts: Iterable[bytes]) -> str:
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little") + part)
    return state.hexdigest()


def _read(file: Path, stops: tuple[int, ...], size: int) -> TokenAutomaton | None:
    """What the file holds, None where there is none or it is damaged."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in ARRAYS}
    except DAMAGED:
        return None
    automaton = TokenAutomaton(**arrays, stops=tuple(token for token in stops if token < size))
    return automaton if len(automaton.class_of) == size else None


def _write(file: Path, automaton: TokenAutomaton) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as beside:
        np.savez_compressed(beside, **{name: getattr(automaton, name) for name in ARRAYS})
