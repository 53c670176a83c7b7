"""The most probable text that an automaton accepts, where a canvas says how likely every token is at every position.

Positions are independent given the canvas, so the probability of a text is a product over positions, and the best text
is found by dynamic programming over positions and states (the idea of DINGO, arXiv 2505.23061):

    score[i + 1][target] = max over transitions (class, source, target) of score[i][source] + best logit of class at i

A text may end before the canvas does. Then an end token follows, and behind that everything is allowed; or it goes on
in the next canvas, from a state out of which it can be finished with the tokens that are left.

Every position is looked at with its likeliest tokens, and with a few tokens of every class, likely or not, which keep
a way open. Of these candidates the result is the best there is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from mlx_diffgemma.constraint.byte_automaton import Flags, Numbers
from mlx_diffgemma.constraint.token_automaton import NOWHERE, TokenAutomaton

Logits: TypeAlias = npt.NDArray[np.float32]
Scores: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """What is known of N positions; logits may be off by a constant per position."""

    likely: Numbers
    """[N, K] ids"""
    likely_logits: Logits
    """[N, K]"""
    member_logits: Logits
    """[N, M] of the automaton's members"""
    stop_logits: Logits
    """[N, Z] of the tokens that end a text; without any it ends with the positions"""
    best: Numbers
    """[N] the likeliest id"""
    best_logits: Logits
    """[N]"""


class Path(NamedTuple):
    """The most probable text."""

    tokens: Numbers
    """[N]: the text, then the end token and the likeliest of all tokens, where it ends"""
    end: int | None
    """position of the end token"""


def most_probable(automaton: TokenAutomaton, state: int, found: Candidates, goal: Flags, least: int = 0) -> Path:
    """The best text that begins in `state`, and goes on behind these positions only from states of `goal` [S].

    Its end token stands behind `least` positions or more. There is such a text: see TokenAutomaton.lengths.
    """
    gains = _gains(automaton, found)
    # Relative to what is likeliest, which is what follows an end token: sums stay small.
    gains -= found.best_logits[:, None]
    stop_gains = cast("Scores", found.stop_logits.max(axis=1, initial=-np.inf).astype(np.float64) - found.best_logits)
    stop_gains[:least] = -np.inf
    scores, ends = _scores(automaton, state, gains, stop_gains)
    finishing = np.where(goal, scores[-1], -np.inf)
    place = len(gains)
    tokens = found.best.copy()
    current = int(finishing.argmax())
    end: int | None = None
    if ends.max() >= finishing[current]:
        end = int(ends.argmax())
        tokens[end] = automaton.stops[int(found.stop_logits[end].argmax())]
        place, current = end, int(np.where(automaton.accepting, scores[end], -np.inf).argmax())
    for position in reversed(range(place)):
        into = slice(*np.searchsorted(automaton.targets, [current, current + 1]))
        sources, classes = automaton.sources[into], automaton.classes[into]
        taken = int((scores[position][sources] + gains[position][classes]).argmax())
        tokens[position] = _token(automaton, found, position, int(classes[taken]))
        current = int(sources[taken])
    return Path(tokens, end)


def _gains(automaton: TokenAutomaton, found: Candidates) -> Scores:
    """[N, F] the best logit of each class."""
    _, starts = automaton.members
    gains = np.maximum.reduceat(found.member_logits, starts, axis=1).astype(np.float64)
    classes = automaton.class_of[found.likely]
    rows, columns = np.nonzero(classes != NOWHERE)
    np.maximum.at(gains, (rows, classes[rows, columns]), found.likely_logits[rows, columns])
    return gains


def _scores(automaton: TokenAutomaton, state: int, gains: Scores, stop_gains: Scores) -> tuple[Scores, Scores]:
    """[N + 1, S] the best sum of gains up to each position and state; [N] that of texts with their end token there."""
    scores = np.full((len(gains) + 1, automaton.states), -np.inf)
    scores[0, state] = 0.0
    targets, starts = automaton.arrivals
    sources, classes = automaton.sources, automaton.classes
    for before, after, gain in zip(scores[:-1], scores[1:], gains, strict=True):
        after[targets] = np.maximum.reduceat(before[sources] + gain[classes], starts)
    return scores, np.where(automaton.accepting, scores[:-1], -np.inf).max(axis=1) + stop_gains


def _token(automaton: TokenAutomaton, found: Candidates, position: int, named: int) -> int:
    """The likeliest candidate of a class."""
    members, starts = automaton.members
    own = slice(starts[named], starts[named + 1] if named + 1 < len(starts) else len(members))
    best = int(found.member_logits[position, own].argmax())
    token, logit = members[own][best], found.member_logits[position, own][best]
    alike = np.flatnonzero(automaton.class_of[found.likely[position]] == named)
    if alike.size:
        likeliest = alike[found.likely_logits[position, alike].argmax()]
        if found.likely_logits[position, likeliest] > logit:
            return int(found.likely[position, likeliest])
    return int(token)
