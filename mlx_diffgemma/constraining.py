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

from mlx_diffgemma.constraint.automaton import TokenAutomaton
from mlx_diffgemma.constraint.path import Candidates, Path, most_probable
from mlx_diffgemma.sampler import Draft
from mlx_diffgemma.vocabulary import most_likely

LIKELY = 64
"""Tokens per position that the search looks at for being likely."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bound:
    """What the text of one canvas must hold to."""

    automaton: TokenAutomaton
    state: int
    """in which the canvas begins"""
    room: int
    """tokens that may still come, from its first position on"""


def bound(processed: mx.array, draft: Draft, bounds: Sequence[Bound | None]) -> Draft:
    """The draft in which every row that has a bound keeps it; processed float32 logits [B, C, V] are those it is from.

    `best` of such a row is the most probable text that matches, and accepted positions take their token from it; what
    stands behind its end token is left as it was.
    """
    rows = {row: each for row, each in enumerate(bounds) if each is not None}
    if not rows:
        return draft
    asked = {row: _candidates(processed[row : row + 1], draft.best[row : row + 1], own) for row, own in rows.items()}
    mx.eval(list(asked.values()), draft)
    best, inside = np.array(draft.best), np.zeros(draft.best.shape, np.bool_)
    for row, own in rows.items():
        path = _path(asked[row], own)
        best[row, : len(path.tokens)] = path.tokens
        inside[row, : len(path.tokens) if path.end is None else path.end + 1] = True
    found = mx.array(best)
    canvas = mx.where(draft.accepted & mx.array(cast("Any", inside)), found, draft.canvas)
    chosen = mx.take_along_axis(processed, found[..., None], axis=-1).squeeze(-1)
    return draft._replace(canvas=canvas, best=found, rarity=mx.exp(draft.total - chosen))


def _candidates(processed: mx.array, best: mx.array, own: Bound) -> list[mx.array]:
    """What the search is to know of logits [1, C, V], for the positions that there is room for."""
    processed, best = processed[:, : own.room], best[:, : own.room]
    likely, logits = most_likely(processed, LIKELY)
    members = processed[..., mx.array(own.automaton.members[0])]
    stops = processed[..., mx.array(own.automaton.stops)]
    best_logits = mx.take_along_axis(processed, best[..., None], axis=-1).squeeze(-1)
    return [likely.astype(mx.int32), logits, members, stops, best, best_logits]


def _path(asked: Sequence[mx.array], own: Bound) -> Path:
    likely, logits, members, stops, best, best_logits = (np.array(each[0]) for each in asked)
    found = Candidates(
        likely=likely,
        likely_logits=logits,
        member_logits=members,
        stop_logits=stops,
        best=best,
        best_logits=best_logits,
    )
    return most_probable(own.automaton, own.state, found, own.room - len(best))
