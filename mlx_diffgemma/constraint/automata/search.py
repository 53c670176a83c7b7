"""The most probable text that an automaton accepts, given the logits of every position of a canvas.

A denoising step predicts all positions of a canvas at once and independently of each other. So the log-probability of a
text is the sum of the log-probabilities of its tokens, and the best text is found by dynamic programming over positions
and states (the idea of DINGO, arXiv 2505.23061). For every position and every state of the automaton, the search keeps
the best sum of a text that is in that state there:

    score[0][start state] = 0
    score[i + 1][target] = max over the transitions (symbol, source) -> target of score[i][source] + gain[i][symbol]

where gain[i][symbol] is the highest logit at position i of any token of the symbol. The best last state is then
followed back to the beginning, which gives the symbol at every position, and of each symbol its likeliest token.

A text ends in one of two ways. An end token follows it in the canvas; the positions after it do not matter. Or the text
fills the canvas and goes on in the next one; then its last state must be one from which it can be completed with the
tokens that are left. The better of the two is taken.

Not all tokens are compared at every position. The candidates are the likeliest tokens of the position, and a few tokens
of every class, whatever their logits: thanks to those, no transition is ever missing. The result is the best text that
the candidates can make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from mlx_diffgemma.constraint.automata.adjacency import Flags, Numbers
from mlx_diffgemma.constraint.automata.token_automaton import NOWHERE, TokenAutomaton

Logits: TypeAlias = npt.NDArray[np.float32]
Scores: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenCandidates:
    """The tokens to choose from at N positions, with their logits.

    A constant may be added to all logits of a position.
    """

    likely: Numbers
    """[N, K] the likeliest ids"""
    likely_logits: Logits
    """[N, K]"""
    member_logits: Logits
    """[N, M] of the tokens in `TokenAutomaton.members`"""
    stop_logits: Logits
    """[N, Z] of the automaton's end tokens; Z is 0 if nothing but the last position ends the text"""
    best: Numbers
    """[N] the likeliest id of all"""
    best_logits: Logits
    """[N]"""


class TokenPath(NamedTuple):
    """The most probable text."""

    tokens: Numbers
    """[N] the text; if it ends before the last position, then an end token, and the likeliest token of the rest"""
    end: int | None
    """the position of the end token"""


def most_probable(
    automaton: TokenAutomaton, state: int, candidates: TokenCandidates, goal: Flags, minimum: int = 0
) -> TokenPath:
    """Return the most probable text that begins in `state`.

    goal [S]: the states from which the text may go on after these positions. minimum: the first position at which an
    end token may be. A text must exist: `TokenAutomaton.finishing` and `TokenAutomaton.lengths` tell.
    """
    gains = _gains(automaton, candidates)
    best_stop = candidates.stop_logits.max(axis=1, initial=-np.inf).astype(np.float64)
    stop_gains = cast("Scores", best_stop - candidates.best_logits)
    stop_gains[:minimum] = -np.inf
    scores = _state_scores(automaton, state, gains.of_symbol)
    ends = [float(np.max(row, where=automaton.accepting, initial=-np.inf)) for row in scores[: len(stop_gains)]]
    ended = stop_gains[: len(ends)] + ends
    is_filled = len(scores) > len(stop_gains)
    unended = np.where(goal, scores[-1], -np.inf) if is_filled else np.full(automaton.states, -np.inf)
    tokens = candidates.best.copy()
    if ended.max() >= unended.max():
        end = int(ended.argmax())
        tokens[end] = automaton.stops[int(candidates.stop_logits[end].argmax())]
        last_state = int(np.where(automaton.accepting, scores[end], -np.inf).argmax())
        tokens[:end] = _traced(automaton, candidates, gains, scores[: end + 1], last_state)
        return TokenPath(tokens, end)
    tokens[:] = _traced(automaton, candidates, gains, scores, int(unended.argmax()))
    return TokenPath(tokens, None)


class _Gains(NamedTuple):
    """The highest logits at each position, measured from that of the likeliest token of the position.

    Positions after an end token then add nothing, so texts that end at different positions can be compared; and sums
    stay small.
    """

    of_class: Scores
    """[N, F]"""
    of_symbol: Scores
    """[N, Y]"""


def _gains(automaton: TokenAutomaton, candidates: TokenCandidates) -> _Gains:
    _, starts = automaton.members
    of_class = np.maximum.reduceat(candidates.member_logits, starts, axis=1).astype(np.float64)
    classes = automaton.class_of[candidates.likely]
    rows, columns = np.nonzero(classes != NOWHERE)
    np.maximum.at(of_class, (rows, classes[rows, columns]), candidates.likely_logits[rows, columns])
    of_class -= candidates.best_logits[:, None]
    symbol_classes, begins = automaton.symbol_classes, automaton.symbol_starts[:-1]
    of_symbol = np.stack([np.maximum.reduceat(row[symbol_classes], begins) for row in of_class])
    return _Gains(of_class, of_symbol)


def _state_scores(automaton: TokenAutomaton, state: int, gains: Scores) -> list[Scores]:
    """Return [S] the best sum of gains of a text that is in each state before each position, and after the last.

    The list ends before a position that no text reaches, because all of them are shorter.
    """
    scores = [np.full(automaton.states, -np.inf)]
    scores[0][state] = 0.0
    # Transitions are sorted by target, so the best one into each state is a maximum over a run of neighbours.
    targets, starts = automaton.arrivals
    for gain in gains:
        best = np.maximum.reduceat(scores[-1][automaton.sources] + gain[automaton.symbols], starts)
        if best.max() == -np.inf:
            break
        after = np.full(automaton.states, -np.inf)
        after[targets] = best
        scores.append(after)
    return scores


def _traced(
    automaton: TokenAutomaton, candidates: TokenCandidates, gains: _Gains, scores: Sequence[Scores], state: int
) -> list[int]:
    """Return the tokens of the best text that ends in `state` after the last of `scores`, found from its end."""
    tokens: list[int] = []
    for position in reversed(range(len(scores) - 1)):
        into = slice(*np.searchsorted(automaton.targets, [state, state + 1]))
        sources, symbols = automaton.sources[into], automaton.symbols[into]
        taken = int((scores[position][sources] + gains.of_symbol[position][symbols]).argmax())
        classes = automaton.classes_of(int(symbols[taken]))
        best = int(classes[gains.of_class[position][classes].argmax()])
        tokens.append(_likeliest_of_class(automaton, candidates, position, best))
        state = int(sources[taken])
    return tokens[::-1]


def _likeliest_of_class(automaton: TokenAutomaton, candidates: TokenCandidates, position: int, token_class: int) -> int:
    """Return the candidate of a class with the highest logit at a position."""
    members, starts = automaton.members
    end = starts[token_class + 1] if token_class + 1 < len(starts) else len(members)
    of_class = slice(starts[token_class], end)
    best = int(candidates.member_logits[position, of_class].argmax())
    token, logit = members[of_class][best], candidates.member_logits[position, of_class][best]
    likely = np.flatnonzero(automaton.class_of[candidates.likely[position]] == token_class)
    if likely.size:
        likeliest = likely[candidates.likely_logits[position, likely].argmax()]
        if candidates.likely_logits[position, likeliest] > logit:
            return int(candidates.likely[position, likeliest])
    return int(token)
