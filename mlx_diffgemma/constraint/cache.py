"""Finished automata are kept: the last few in memory, all of them on disk.

An automaton over the full vocabulary takes seconds to build and milliseconds to read. The name of its file is a digest
of everything that it depends on. A file that cannot be read is built again.
"""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
from platformdirs import user_cache_path

from mlx_diffgemma.constraint.automata.byte_automaton import compiled
from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.constraint.automata.token_reading import over_tokens
from mlx_diffgemma.constraint.description import described
from mlx_diffgemma.constraint.spec import Constraint
from mlx_diffgemma.files import replacing

AUTOMATON_ARRAYS = ("class_of", "accepting", "symbol_classes", "symbol_starts", "symbols", "sources", "targets")
"""The arrays of a TokenAutomaton that its file holds."""
_FORMAT = 3
"""Raise it when the automata, or the code that makes them, change: files of other formats are not used."""
_DAMAGE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What numpy raises for a file that is missing or damaged."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """The bytes that every id of a model adds to a text; b"" for an id that is never text."""

    token_bytes: tuple[bytes, ...]

    @classmethod
    def of(cls, token_bytes: Sequence[bytes], size: int) -> Vocabulary:
        """Return the vocabulary of a model with `size` ids; a tokenizer may know fewer, or more."""
        return cls(token_bytes=(*token_bytes[:size], *[b""] * (size - len(token_bytes))))

    @cached_property
    def digest(self) -> str:
        """A digest of all tokens."""
        return _digest(self.token_bytes)


@lru_cache(maxsize=8)
def automaton_of(
    constraint: Constraint, vocabulary: Vocabulary, stops: tuple[int, ...], allow_empty: bool, prefix: str = ""
) -> TokenAutomaton:
    """Return the automaton of the texts that a constraint allows, each with `prefix` before it.

    stops: the ids that end a text. Raises ConstraintError for a constraint that cannot be used.
    """
    settings = (type(constraint).__name__, constraint.key, str(stops), str(allow_empty), prefix, str(_FORMAT))
    file = folder() / f"{_digest([vocabulary.digest.encode(), *(setting.encode() for setting in settings)])}.npz"
    kept = _read(file, stops, len(vocabulary.token_bytes))
    if kept is not None:
        return kept
    over_bytes = compiled(described(constraint).expression, allow_empty=allow_empty, prefix=prefix)
    automaton = over_tokens(over_bytes, vocabulary.token_bytes, stops)
    # A folder that cannot be written is no error: the automaton is built again next time.
    with suppress(OSError):
        _write(file, automaton)
    return automaton


def folder() -> Path:
    """Return where automata are kept: in $XDG_CACHE_HOME, or in the cache folder that the system gives every user.

    Where there is none, because the user has no home, it is a path that cannot be written.
    """
    try:
        return user_cache_path("mlx_diffgemma") / "constraints"
    except RuntimeError:
        return Path(os.devnull) / "constraints"


def _digest(parts: Iterable[bytes]) -> str:
    state = hashlib.sha256()
    for part in parts:
        state.update(len(part).to_bytes(8, "little") + part)
    return state.hexdigest()


def _read(file: Path, stops: tuple[int, ...], size: int) -> TokenAutomaton | None:
    """Return the automaton in a file; None if the file is missing or damaged."""
    try:
        with np.load(file, allow_pickle=False) as kept:
            arrays = {name: kept[name] for name in AUTOMATON_ARRAYS}
    except _DAMAGE:
        return None
    automaton = TokenAutomaton(**arrays, stops=tuple(token for token in stops if token < size))
    return automaton if len(automaton.class_of) == size else None


def _write(file: Path, automaton: TokenAutomaton) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as temporary:
        np.savez_compressed(temporary, **{name: getattr(automaton, name) for name in AUTOMATON_ARRAYS})
