"""A constraint on the answer only: before the answer the model may think, in any words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mlx_diffgemma.constraint.byte_automaton import Numbers
from mlx_diffgemma.constraint.token_automaton import NOWHERE, TokenAutomaton

_BEFORE, _THINKING, _ANSWER = 0, 1, 2
"""State 0 is before everything, state 1 is inside a thought, and the states of the answer follow from 2 on."""
_OPENING, _CLOSING, _OTHER_TEXT, _ANSWER_CLASSES = 0, 1, 2, 3
"""The classes: the two control tokens, tokens of text that no answer contains, and from 3 on those of the answer."""


def after_thinking(
    automaton: TokenAutomaton, token_bytes: Sequence[bytes], opening: int, closing: int
) -> TokenAutomaton:
    """Return an automaton that accepts what `automaton` does, also after a thought.

    A thought is any text between the control tokens `opening` and `closing`; token_bytes: what each id adds to a text.
    """
    is_text = np.array([bool(added) for added in token_bytes])
    is_text[list(automaton.stops)] = False
    in_answer = automaton.class_of != NOWHERE
    class_of = np.where(in_answer, automaton.class_of + _ANSWER_CLASSES, np.where(is_text, _OTHER_TEXT, NOWHERE))
    class_of[[opening, closing]] = [_OPENING, _CLOSING]
    # Some classes may have no token any more: the others are numbered anew.
    used, renumbered = np.unique(class_of[class_of != NOWHERE], return_inverse=True)
    class_of[class_of != NOWHERE] = renumbered
    answer_classes = np.searchsorted(used, automaton.classes + _ANSWER_CLASSES)
    text_classes = np.flatnonzero(used >= _OTHER_TEXT)
    begins = automaton.sources == 0
    # In this order: inside the answer; from before everything into the answer; the control tokens; inside a thought.
    classes = [answer_classes, answer_classes[begins], np.array([_OPENING, _CLOSING]), text_classes]
    inside = np.full(len(text_classes), _THINKING)
    sources = [automaton.sources + _ANSWER, np.full(begins.sum(), _BEFORE), np.array([_BEFORE, _THINKING]), inside]
    targets = [automaton.targets + _ANSWER, automaton.targets[begins] + _ANSWER, np.array([_THINKING, _ANSWER]), inside]
    order = np.argsort(np.concatenate(targets), kind="stable")
    return TokenAutomaton(
        class_of=class_of.astype(np.int32),
        accepting=np.concatenate([automaton.accepting[:1], [False], automaton.accepting]),
        classes=_ordered(classes, order),
        sources=_ordered(sources, order),
        targets=_ordered(targets, order),
        stops=automaton.stops,
    )


def _ordered(columns: Sequence[np.ndarray], order: np.ndarray) -> Numbers:
    return np.concatenate(columns)[order].astype(np.int32)
