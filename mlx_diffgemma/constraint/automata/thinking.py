"""A constraint on the answer only: before the answer the model may think, in any words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mlx_diffgemma.constraint.automata.token_automaton import NOWHERE, TokenAutomaton

_BEFORE, _THINKING, _ANSWER = 0, 1, 2
"""State 0 is before everything, state 1 is inside a thought, and the states of the answer follow from 2 on."""


def after_thinking(
    automaton: TokenAutomaton, token_bytes: Sequence[bytes], opening: int, closing: int
) -> TokenAutomaton:
    """Return an automaton that accepts what `automaton` does, also after a thought.

    A thought is any text between the control tokens `opening` and `closing`, which add nothing to a text; token_bytes:
    what each id adds.
    """
    is_text = np.array([bool(added) for added in token_bytes])
    is_text[list(automaton.stops)] = False
    is_other_text = is_text & (automaton.class_of == NOWHERE)
    # The classes of the answer are followed by the two control tokens and, if there is any, by the other text.
    class_of, count = automaton.class_of.copy(), automaton.class_count
    class_of[[opening, closing]] = [count, count + 1]
    class_of[is_other_text] = count + 2
    text_classes = [*range(count), *[count + 2] * bool(is_other_text.any())]
    classes_of_symbols = [automaton.symbol_classes, [count], [count + 1], text_classes]
    ends = automaton.symbol_starts[-1] + np.cumsum([1, 1, len(text_classes)])
    opened, closed, text = len(automaton.symbol_starts) - 1 + np.arange(3)
    begins = automaton.sources == 0
    # In this order: inside the answer; from before everything into the answer; around and inside a thought.
    symbols = np.concatenate([automaton.symbols, automaton.symbols[begins], [opened, closed, text]])
    before = np.full(int(begins.sum()), _BEFORE)
    sources = np.concatenate([automaton.sources + _ANSWER, before, [_BEFORE, _THINKING, _THINKING]])
    after = automaton.targets + _ANSWER
    targets = np.concatenate([after, after[begins], [_THINKING, _ANSWER, _THINKING]])
    order = np.argsort(targets, kind="stable")
    return replace(
        automaton,
        class_of=class_of.astype(np.int32),
        accepting=np.concatenate([automaton.accepting[:1], [False], automaton.accepting]),
        symbol_classes=np.concatenate(classes_of_symbols).astype(np.int32),
        symbol_starts=np.concatenate([automaton.symbol_starts, ends]).astype(np.int32),
        symbols=symbols[order].astype(np.int32),
        sources=sources[order].astype(np.int32),
        targets=targets[order].astype(np.int32),
    )
