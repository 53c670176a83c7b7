"""A canvas whose text must match: at every step its draft becomes the most probable text that does.

    processed logits -> candidates -> (constraint.path, on the CPU) -> best, and what accepted positions take

The one place where denoising waits for Python: the search needs this step's logits, and the next step the search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import numpy as np

from mlx_diffgemma.constraint.search import TokenCandidates, TokenPath, most_probable
from mlx_diffgemma.constraint.token_automaton import TokenAutomaton
from mlx_diffgemma.model.logits import most_likely
from mlx_diffgemma.sampling.sampler import Draft

LIKELY = 64
"""Tokens per position that the search looks at for being likely."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bound:
    """What the text at some places of a canvas must hold to."""

    automaton: TokenAutomaton
    state: int
    """in which the text begins, or goes on"""
    places: slice
    """where it stands, counted among the positions that are not pinned"""
    least: int
    """tokens that must still come, from its first place on"""
    room: int
    """tokens that may"""


def bound(processed: mx.array, draft: Draft, bounds: Sequence[Sequence[Bound]]) -> Draft:
    """The draft in which every row keeps its bounds; processed float32 logits [B, C, V] are those it is from.

    At their places `best` is the most probable text that matches, and accepted positions take their token from it; what
    stands behind its end token is left as it was.
    """
    kept = [(row, own) for row, several in enumerate(bounds) for own in several]
    if not kept:
        return draft
    asked = [_candidates(processed[row : row + 1, own.places], draft.best[row, own.places], own) for row, own in kept]
    mx.eval(asked, draft)
    best, inside = np.array(draft.best), np.zeros(draft.best.shape, np.bool_)
    for (row, own), known in zip(kept, asked, strict=True):
        path = _path(known, own)
        best[row, own.places] = path.tokens
        start = own.places.start
        inside[row, start : start + (len(path.tokens) if path.end is None else path.end + 1)] = True
    found = mx.array(best)
    canvas = mx.where(draft.accepted & mx.array(cast("Any", inside)), found, draft.canvas)
    chosen = mx.take_along_axis(processed, found[..., None], axis=-1).squeeze(-1)
    return draft._replace(canvas=canvas, best=found, rarity=mx.exp(draft.total - chosen))


def _candidates(processed: mx.array, best: mx.array, own: Bound) -> list[mx.array]:
    """What the search is to know of logits [1, N, V] whose likeliest tokens are `best` [N]."""
    best = best[None]
    likely, logits = most_likely(processed, LIKELY)
    members = processed[..., mx.array(own.automaton.members[0])]
    stops = processed[..., mx.array(own.automaton.stops, mx.int32)]
    best_logits = mx.take_along_axis(processed, best[..., None], axis=-1).squeeze(-1)
    return [likely.astype(mx.int32), logits, members, stops, best, best_logits]


def _path(asked: Sequence[mx.array], own: Bound) -> TokenPath:
    likely, logits, members, stops, best, best_logits = (np.array(each[0]) for each in asked)
    found = TokenCandidates(
        likely=likely,
        likely_logits=logits,
        member_logits=members,
        stop_logits=stops,
        best=best,
        best_logits=best_logits,
    )
    goal = own.automaton.finishing(own.least - len(best), own.room - len(best))
    return most_probable(own.automaton, own.state, found, goal, own.least)
