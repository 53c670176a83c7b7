"""How tokens are read by an automaton over bytes: the automaton over tokens.

Reading the bytes of a token one after another leads from a state to a state, for every state at once: the token is a
function from states to states. Most tokens are the same function. " house" and " horse", for example, both leave a JSON
string open, and neither can be read anywhere else.

All tokens are read at the same time, one byte per round. A function is kept as the list of the states in which it can
be read, each with the state after it; most functions are short. Tokens that have reached the same function and read a
byte of the same class reach the same function again, so each such pair is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from mlx_diffgemma.constraint.automata.adjacency import (
    Adjacency,
    Flags,
    Hashes,
    Indices,
    Numbers,
    grouped,
    random_hashes,
    ranges,
)
from mlx_diffgemma.constraint.automata.byte_automaton import ByteAutomaton
from mlx_diffgemma.constraint.automata.token_automaton import NOWHERE, TokenAutomaton
from mlx_diffgemma.errors import ConstraintError

_MAX_ENTRIES = 20_000_000
"""States and states after them in all functions together: 240 MB."""
_AT_ONCE = 4_000_000
"""Entries that are computed at once."""
_UNREADABLE = "no text that matches can be made up of this model's tokens"


class _Functions(NamedTuple):
    """F functions from states to states, and the states in which each can be read."""

    hashes: Hashes
    """[F] equal for equal functions"""
    starts: Indices
    """[F + 1] where the entries of each function begin"""
    sources: Numbers
    """[entries] the state before"""
    targets: Numbers
    """[entries] the state after"""

    def chosen(self, numbers: Indices) -> _Functions:
        """Return some of the functions."""
        counts = np.diff(self.starts)[numbers]
        entries = ranges(self.starts[numbers], counts)
        starts = np.concatenate([[0], np.cumsum(counts)])
        return _Functions(self.hashes[numbers], starts, self.sources[entries], self.targets[entries])


class _Packed(NamedTuple):
    """The bytes of all tokens, one after another."""

    data: npt.NDArray[np.uint8]
    starts: Indices
    lengths: Indices


@lru_cache(maxsize=2)
def _packed(token_bytes: tuple[bytes, ...]) -> _Packed:
    lengths = np.array([len(added) for added in token_bytes])
    return _Packed(np.frombuffer(b"".join(token_bytes), np.uint8), np.cumsum(lengths) - lengths, lengths)


def over_tokens(automaton: ByteAutomaton, token_bytes: Sequence[bytes], stops: tuple[int, ...]) -> TokenAutomaton:
    """Return the automaton of the token sequences whose bytes are a text of `automaton`.

    token_bytes: what each id adds to a text; a token that adds nothing is never read. stops: the ids that end a text;
    they are never read as a part of it.

    Raises ConstraintError if the automaton is too large, or if no tokens make up any of its texts.
    """
    stops = tuple(token for token in stops if token < len(token_bytes))
    functions, function_of = _functions(automaton, _packed(tuple(token_bytes)), stops)
    size = len(automaton.steps)
    # Entries with the same two states are one transition; the functions of a transition are its symbol.
    owner = np.repeat(np.arange(len(functions.hashes)), np.diff(functions.starts))
    order, starts, keys = grouped(functions.sources.astype(np.int64) * size + functions.targets)
    sources, targets = keys // size, keys % size
    values = random_hashes(len(functions.hashes), seed=2)
    sets = np.add.reduceat(values[owner[order]], starts) if len(order) else np.array([], np.uint64)
    kept = _on_the_way(sources, targets, automaton)
    sources, targets, starts, ends = sources[kept], targets[kept], starts[kept], np.append(starts, len(order))[1:][kept]
    _, first, symbols = np.unique(sets[kept], return_index=True, return_inverse=True)
    counts = ends[first] - starts[first]
    symbol_functions = owner[order[ranges(starts[first], counts)]]
    class_of_function, symbol_classes, symbol_starts = _classes(symbol_functions, counts, len(functions.hashes))
    by_target = np.argsort(targets, kind="stable")
    return TokenAutomaton(
        class_of=np.append(class_of_function, NOWHERE).astype(np.int32)[function_of],
        accepting=automaton.accepting,
        symbol_classes=symbol_classes.astype(np.int32),
        symbol_starts=symbol_starts.astype(np.int32),
        symbols=symbols[by_target].astype(np.int32),
        sources=sources[by_target].astype(np.int32),
        targets=targets[by_target].astype(np.int32),
        stops=stops,
    )


def _functions(automaton: ByteAutomaton, packed: _Packed, stops: tuple[int, ...]) -> tuple[_Functions, Indices]:
    """Return the different functions of tokens, and the number of each token's function [V]; -1 for none."""
    data = automaton.class_of_byte[packed.data]
    size, width = automaton.steps.shape
    last = np.full(len(packed.lengths), -1, np.int64)
    ended: list[_Functions] = []
    count = 0
    reading = np.flatnonzero(packed.lengths > 0)
    reading = reading[~np.isin(reading, stops)]
    if not reading.size:
        raise ConstraintError(_UNREADABLE)
    # Before the first byte, one function leaves every state as it is.
    everywhere = np.arange(size, dtype=np.int32)
    functions = _Functions(np.zeros(1, np.uint64), np.array([0, size]), everywhere, everywhere)
    current = np.zeros(len(reading), np.int64)
    for position in range(int(packed.lengths.max(initial=0))):
        pairs = current * width + data[packed.starts[reading] + position]
        is_pair = np.zeros(len(functions.hashes) * width, np.bool_)
        is_pair[pairs] = True
        functions, after_pair = _after(functions, np.flatnonzero(is_pair), automaton)
        current = after_pair[(np.cumsum(is_pair) - 1)[pairs]]
        reading, current = reading[current >= 0], current[current >= 0]
        ends = packed.lengths[reading] == position + 1
        finished, numbers = np.unique(current[ends], return_inverse=True)
        last[reading[ends]] = count + numbers
        ended.append(functions.chosen(finished))
        count += len(finished)
        reading, current = reading[~ends], current[~ends]
        if not reading.size:
            break
        if sum(len(each.sources) for each in (functions, *ended)) > _MAX_ENTRIES:
            raise ConstraintError(f"the constraint is too large: {size} states; allow shorter texts or fewer of them")
    return _without_doubles(_joined(ended), last)


def _after(functions: _Functions, pairs: Indices, automaton: ByteAutomaton) -> tuple[_Functions, Indices]:
    """Return the different functions after pairs of a function and a class of bytes, and the number of each pair's.

    pairs: function * number of classes + class; the number of a pair that can be read nowhere is -1.
    """
    size, width = automaton.steps.shape
    of_pair, classes = np.divmod(pairs, width)
    counts = np.diff(functions.starts)[of_pair]
    parts = [
        _step(functions, of_pair[begin:end], classes[begin:end], counts[begin:end], automaton)
        for begin, end in _chunks(counts)
    ]
    kept = np.concatenate([part[0] for part in parts])
    sources, targets = (np.concatenate([part[n] for part in parts]).astype(np.int32) for n in (1, 2))
    starts = np.concatenate([[0], np.cumsum(kept)])
    first_hashes, other_hashes = random_hashes(size, seed=3), random_hashes(size, seed=4)
    hashes = np.zeros(len(pairs), np.uint64)
    readable = np.flatnonzero(kept)
    if readable.size:
        hashes[readable] = np.add.reduceat(first_hashes[sources] * other_hashes[targets], starts[readable])
    all_after = _Functions(hashes, starts, sources, targets)
    after, numbers = _different(hashes[readable])
    number_of_pair = np.full(len(pairs), -1, np.int64)
    number_of_pair[readable] = numbers
    return all_after.chosen(readable[after]), number_of_pair


def _step(
    functions: _Functions, of_pair: Indices, classes: Numbers, counts: Indices, automaton: ByteAutomaton
) -> tuple[Indices, Numbers, Numbers]:
    """Return what is left of the entries of each pair's function after a byte: how many, and their two states."""
    entries = ranges(functions.starts[of_pair], counts)
    targets = automaton.steps[functions.targets[entries], np.repeat(classes, counts)]
    is_read = targets != len(automaton.steps)
    kept = np.bincount(np.repeat(np.arange(len(counts)), counts)[is_read], minlength=len(counts))
    return kept, functions.sources[entries][is_read], targets[is_read]


def _chunks(counts: Indices) -> Iterator[tuple[int, int]]:
    """Cut pairs into runs that have not too many entries together."""
    total = np.cumsum(counts)
    begin = 0
    while begin < len(counts):
        before = total[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(total, before + _AT_ONCE, side="right")))
        yield begin, end
        begin = end


def _different(hashes: Hashes) -> tuple[Indices, Indices]:
    """Return where each different hash stands first, and for every hash the number of its value."""
    _, first, numbers = np.unique(hashes, return_index=True, return_inverse=True)
    return first, numbers


def _joined(parts: Sequence[_Functions]) -> _Functions:
    lengths = np.concatenate([np.diff(part.starts) for part in parts])
    return _Functions(
        np.concatenate([part.hashes for part in parts]),
        np.concatenate([[0], np.cumsum(lengths)]),
        np.concatenate([part.sources for part in parts]),
        np.concatenate([part.targets for part in parts]),
    )


def _without_doubles(functions: _Functions, function_of: Indices) -> tuple[_Functions, Indices]:
    """Keep one of equal functions, and number those of the tokens anew."""
    first, numbers = _different(functions.hashes)
    return functions.chosen(first), np.append(numbers, -1)[function_of]


def _classes(symbol_functions: Indices, counts: Indices, size: int) -> tuple[Indices, Indices, Indices]:
    """Take functions together that belong to the same symbols; their tokens are one class.

    Return the class of each of `size` functions, NOWHERE for one of no symbol, the classes of all symbols, ascending
    within each, and where those of each symbol begin.
    """
    symbol_of = np.repeat(np.arange(len(counts)), counts)
    memberships = np.zeros(size, np.uint64)
    np.add.at(memberships, symbol_functions, random_hashes(len(counts), seed=5)[symbol_of])
    used = np.flatnonzero(memberships)
    _, classes = _different(memberships[used])
    class_of_function = np.full(size, NOWHERE, np.int64)
    class_of_function[used] = classes
    width = int(classes.max(initial=0)) + 1
    pairs = np.unique(symbol_of * width + class_of_function[symbol_functions])
    starts = np.searchsorted(pairs // width, np.arange(len(counts) + 1))
    return class_of_function, pairs % width, starts


def _on_the_way(sources: Indices, targets: Indices, automaton: ByteAutomaton) -> Flags:
    """[E] whether a transition is part of some complete text: tokens reach its source, and complete it from its target.

    Not all are: the automaton's bytes may lead where no token does.
    """
    edges = Adjacency(sources, targets, len(automaton.steps))
    reached = edges.reached(np.array([0]))
    completes = edges.reversed().reached(np.flatnonzero(automaton.accepting))
    is_on_way = reached[sources] & completes[targets]
    if not is_on_way.any():
        raise ConstraintError(_UNREADABLE)
    return is_on_way
