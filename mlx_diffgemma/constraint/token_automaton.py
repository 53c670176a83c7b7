"""A constraint as an automaton over token ids.

An automaton over bytes says which state follows each byte. Reading the bytes of a token one after another gives the
state after that token, for every state at once: the token is a function from states to states. Most tokens are the same
function. " house" and " horse", for example, both leave a JSON string open, and neither can be read anywhere else.

Tokens with the same function form a class. A schema of twenty fields divides 262,144 tokens into some hundreds of
classes. So the automaton stores a class per token, and transitions of classes instead of tokens:

    token --class_of--> class,   (class, source state) -> target state
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mlx_diffgemma.constraint.byte_automaton import ByteAutomaton, Flags, Numbers
from mlx_diffgemma.errors import ConstraintError

NOWHERE = -1
"""The class of a token that no state can read, and the state after a token that cannot be read."""
_UNREACHABLE = np.iinfo(np.int32).max
"""The distance of a state from which no text can be completed."""
_MEMBERS_PER_CLASS = 4
"""How many tokens of each class the search considers at every position, even if the model finds them unlikely."""
_MAX_CELLS = 2**28
"""The largest table of functions and states that is built: 1 GB."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenAutomaton:
    """A deterministic automaton over V token ids, with states 0 to S - 1, classes 0 to F - 1 and E transitions.

    It starts in state 0. The transitions are three columns of equal length, sorted by target.
    """

    class_of: Numbers
    """[V] the class of every token, NOWHERE for a token that no state can read"""
    accepting: Flags
    """[S] whether a text may end in the state"""
    classes: Numbers
    """[E] the class of the token that is read"""
    sources: Numbers
    """[E] the state before it"""
    targets: Numbers
    """[E] the state after it, ascending"""
    stops: tuple[int, ...]
    """the tokens that end a text where it may end; they are in no class"""

    @property
    def states(self) -> int:
        """The number of states, S."""
        return len(self.accepting)

    @cached_property
    def class_count(self) -> int:
        """The number of classes, F."""
        return int(self.class_of.max(initial=NOWHERE)) + 1

    @cached_property
    def arrivals(self) -> tuple[Numbers, Numbers]:
        """The states that some transition leads to, ascending, and where the transitions into each of them begin."""
        states, starts = np.unique(self.targets, return_index=True)
        return states, starts.astype(np.int32)

    @cached_property
    def distance(self) -> Numbers:
        """[S] the smallest number of tokens from each state to one in which a text may end."""
        distance = np.where(self.accepting, 0, _UNREACHABLE).astype(np.int32)
        while True:
            after = distance[self.targets]
            shorter = distance.copy()
            np.minimum.at(shorter, self.sources, np.where(after == _UNREACHABLE, _UNREACHABLE, after + 1))
            if (shorter == distance).all():
                return distance
            distance = shorter

    def finishing(self, minimum: int, maximum: int) -> Flags:
        """[S] whether a text in each state can be completed with `minimum` to `maximum` more tokens."""
        if minimum <= 0:
            return self.distance <= maximum
        completions = self._completions()
        by_count = [next(completions) for _ in range(maximum + 1)]
        return np.logical_or.reduce(by_count[minimum:])

    def lengths(self, state: int, minimum: int, maximum: int) -> list[int]:
        """Return the numbers of tokens, from `minimum` to `maximum`, with which a text in `state` can be completed."""
        completions = self._completions()
        return [count for count in range(maximum + 1) if next(completions)[state] and count >= minimum]

    def _completions(self) -> Iterator[Flags]:
        """Yield [S] whether a text in each state can be completed with exactly 0, 1, 2, ... more tokens."""
        completes = self.accepting
        while True:
            yield completes
            earlier = np.zeros_like(completes)
            earlier[self.sources[completes[self.targets]]] = True
            completes = earlier

    @cached_property
    def members(self) -> tuple[Numbers, Numbers]:
        """Some tokens of every class: [M] ids, class after class, and [F] where those of each class begin."""
        order = np.argsort(self.class_of, kind="stable").astype(np.int32)
        # Tokens of no class come first.
        order = order[np.searchsorted(self.class_of[order], 0) :]
        classes = self.class_of[order]
        rank_in_class = np.arange(len(order)) - np.searchsorted(classes, classes)
        chosen = rank_in_class < _MEMBERS_PER_CLASS
        return order[chosen], np.searchsorted(classes[chosen], np.arange(self.class_count)).astype(np.int32)

    @cached_property
    def _transitions(self) -> dict[tuple[int, int], int]:
        """(class, source) -> target"""
        read = zip(self.classes.tolist(), self.sources.tolist(), strict=True)
        return dict(zip(read, self.targets.tolist(), strict=True))

    def after(self, state: int, tokens: Iterable[int]) -> int:
        """Return the state after `tokens` are read in `state`; NOWHERE if one of them cannot be read."""
        for token in tokens:
            state = self._transitions.get((int(self.class_of[token]), state), NOWHERE)
        return state

    def allowed(self, state: int, remaining: int) -> Flags:
        """[V] whether a text in `state` can go on with each token and be completed with `remaining` tokens more."""
        from_here = self.sources == state
        classes = self.classes[from_here & (self.distance[self.targets] <= remaining)]
        # One flag more than there are classes: the class NOWHERE, -1, reads the last one.
        is_allowed = np.zeros(self.class_count + 1, np.bool_)
        is_allowed[classes] = True
        return is_allowed[self.class_of]


def over_tokens(automaton: ByteAutomaton, token_bytes: Sequence[bytes], stops: tuple[int, ...]) -> TokenAutomaton:
    """Return the automaton of the token sequences whose bytes are a text of `automaton`.

    token_bytes: what each id adds to a text; a token that adds nothing is never read. stops: the ids that end a text;
    they are never read as a part of it.

    Raises ConstraintError if the automaton is too large, or if no tokens make up any of its texts.
    """
    readable = [b"" if token in stops else added for token, added in enumerate(token_bytes)]
    functions, function_of = _functions(automaton, readable)
    dead = len(automaton.steps)
    numbers, sources = (found.astype(np.int32) for found in np.nonzero(functions != dead))
    targets = functions[numbers, sources]
    kept = _on_the_way(sources, targets, automaton)
    numbers, sources, targets = numbers[kept], sources[kept], targets[kept]
    # A function with a transition left is a class; tokens of the others are in no class.
    used, classes = np.unique(numbers, return_inverse=True)
    class_of_function = np.full(len(functions), NOWHERE, np.int32)
    class_of_function[used] = np.arange(len(used))
    order = np.argsort(targets, kind="stable")
    return TokenAutomaton(
        class_of=class_of_function[function_of],
        accepting=automaton.accepting,
        classes=classes[order].astype(np.int32),
        sources=sources[order].astype(np.int32),
        targets=targets[order].astype(np.int32),
        stops=tuple(token for token in stops if token < len(token_bytes)),
    )


def _functions(automaton: ByteAutomaton, token_bytes: Sequence[bytes]) -> tuple[Numbers, Numbers]:
    """Return the functions of tokens [F, S], each the state after every state, and the function of every token [V].

    All tokens are read at the same time, one byte per round. `current` holds, for every token, the number of the
    function of the bytes read so far. Tokens that have reached the same function and read the same byte reach the same
    function again, so each pair of function and byte is computed once, and equal results get one number.
    """
    dead = len(automaton.steps)
    # The dead state is a row of its own, which leads to itself.
    steps = np.concatenate([automaton.steps, np.full((1, 256), dead, np.int32)])
    # Function 0 reads nothing in any state; function 1, that of no bytes, leaves every state as it is.
    functions: list[Numbers] = [np.full(dead, dead, np.int32), np.arange(dead, dtype=np.int32)]
    number_of = {function.tobytes(): number for number, function in enumerate(functions)}
    lengths = np.array([len(added) for added in token_bytes])
    current = np.where(lengths > 0, 1, 0)
    all_bytes = np.frombuffer(b"".join(token_bytes), np.uint8)
    starts = np.cumsum(lengths) - lengths
    for position in range(int(lengths.max(initial=0))):
        reading = np.flatnonzero((lengths > position) & (current > 0))
        pairs, pair_of = np.unique(current[reading] * 256 + all_bytes[starts[reading] + position], return_inverse=True)
        numbers = np.empty(len(pairs), np.int64)
        for n, pair in enumerate(pairs.tolist()):
            function = steps[functions[pair // 256], pair % 256]
            number = number_of.setdefault(function.tobytes(), len(functions))
            if number == len(functions):
                functions.append(function)
            numbers[n] = number
        if len(functions) * dead > _MAX_CELLS:
            raise ConstraintError(
                f"the constraint is too large: {dead} states; allow shorter strings, or fewer repetitions"
            )
        current[reading] = numbers[pair_of]
    # Functions that only beginnings of tokens have are dropped.
    used, function_of = np.unique(current, return_inverse=True)
    return np.stack([functions[number] for number in used.tolist()]), function_of.astype(np.int32)


def _on_the_way(sources: Numbers, targets: Numbers, automaton: ByteAutomaton) -> Flags:
    """[E] whether a transition is part of some complete text: tokens reach its source, and complete it from its target.

    Not all are: the automaton's bytes may lead where no token does.
    """
    reached = np.zeros(len(automaton.steps), np.bool_)
    reached[0] = True
    completes = automaton.accepting.copy()
    while True:
        found = reached.sum() + completes.sum()
        reached[targets[reached[sources]]] = True
        completes[sources[completes[targets]]] = True
        if found == reached.sum() + completes.sum():
            break
    if not completes[0] or not len(targets):
        raise ConstraintError("no text that matches can be made up of this model's tokens")
    return reached[sources] & completes[targets]
