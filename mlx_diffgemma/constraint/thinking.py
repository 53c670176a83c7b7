"""A constraint on the answer alone, where the model may think first: in tags, whatever it likes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlx_diffgemma.constraint.byte_automaton import Numbers
from mlx_diffgemma.constraint.token_automaton import NOWHERE, TokenAutomaton

BEFORE, THINKING, ANSWER = 0, 1, 2
"""The states before anything and inside a thought; those of the answer come behind them."""


def after_thinking(
    automaton: TokenAutomaton, vocabulary: Sequence[bytes], opening: int, closing: int
) -> TokenAutomaton:
    """What `automaton` accepts, or a thought between two tags and then that."""
    text = np.array([bool(piece) for piece in vocabulary])
    text[list(automaton.stops)] = False
    # Classes: the two tags, text that no answer can hold, and those of the answer.
    class_of = np.where(automaton.class_of != NOWHERE, automaton.class_of + 3, np.where(text, 2, NOWHERE))
    class_of[[opening, closing]] = [0, 1]
    used, renamed = np.unique(class_of[class_of != NOWHERE], return_inverse=True)
    class_of[class_of != NOWHERE] = renamed
    thoughts = np.flatnonzero(used >= 2)
    begins = automaton.sources == 0
    classes = [np.searchsorted(used, automaton.classes + 3)]
    classes += [classes[0][begins], np.array([0, 1]), thoughts]
    sources = [automaton.sources + ANSWER, np.full(begins.sum(), BEFORE), np.array([BEFORE, THINKING])]
    targets = [automaton.targets + ANSWER, automaton.targets[begins] + ANSWER, np.array([THINKING, ANSWER])]
    inside = np.full(len(thoughts), THINKING)
    order = np.argsort(np.concatenate([*targets, inside]), kind="stable")
    return TokenAutomaton(
        class_of=class_of.astype(np.int32),
        accepting=np.concatenate([automaton.accepting[:1], [False], automaton.accepting]),
        classes=_ordered(np.concatenate(classes), order),
        sources=_ordered(np.concatenate([*sources, inside]), order),
        targets=_ordered(np.concatenate([*targets, inside]), order),
        stops=automaton.stops,
    )


def _ordered(values: np.ndarray, order: np.ndarray) -> Numbers:
    return values[order].astype(np.int32)
