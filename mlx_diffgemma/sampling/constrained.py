"""A canvas whose text must match a constraint: each step's draft becomes the most probable text that matches.

    processed logits -> candidates -> (constraint.search, on the CPU) -> best, and the tokens of accepted positions

This is the one place where denoising waits for Python: the search needs this step's logits, and the next step needs
the result of the search. Meanwhile the device computes what does not need it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import mlx.core as mx
import numpy as np

from mlx_diffgemma.constraint.automata.adjacency import Flags
from mlx_diffgemma.constraint.automata.search import TokenCandidates, TokenPath, most_probable
from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.model.functions import Arrays
from mlx_diffgemma.model.logits import ProcessedLogits
from mlx_diffgemma.sampling.sampler import Draft

CANDIDATES = 64
"""Most likely tokens per position that the search considers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ConstrainedSpan:
    """Positions of a canvas whose text must match an automaton."""

    automaton: TokenAutomaton
    state: int
    """the automaton's state before the first position"""
    positions: slice
    """counted among the positions that are not pinned"""
    min_tokens: int
    """tokens that the text must still have, from the first position on, those of later canvases included"""
    max_tokens: int
    """tokens that the text can still have, counted likewise"""


def constrain(
    processed: ProcessedLogits, draft: Draft, spans: Sequence[Sequence[ConstrainedSpan]], meanwhile: Arrays = ()
) -> Draft:
    """Return the draft with the text of every row's spans changed to the most probable one that matches.

    processed: the logits [B, C, V] that the draft was made of. meanwhile: what the device computes during the search.
    In a span, `best` becomes the text that was found, and accepted positions take their tokens from it; what follows
    its end token stays as it was.
    """
    constrained = [(row, span) for row, own in enumerate(spans) for span in own]
    if not constrained:
        return draft
    asked = [
        _candidates(processed[row : row + 1, span.positions], draft.best[row, span.positions], span)
        for row, span in constrained
    ]
    # Two calls: the search waits for the first alone.
    mx.async_eval(asked, draft)
    mx.async_eval(meanwhile)
    best, inside = np.array(draft.best), np.zeros(draft.best.shape, np.bool_)
    for (row, span), arrays in zip(constrained, asked, strict=True):
        path = _path(arrays, span)
        best[row, span.positions] = path.tokens
        start = span.positions.start
        inside[row, start : start + (len(path.tokens) if path.end is None else path.end + 1)] = True
    found = mx.array(best)
    canvas = mx.where(draft.accepted & mx.array(cast("Any", inside)), found, draft.canvas)
    chosen = processed.at(found[..., None]).squeeze(-1)
    return draft._replace(canvas=canvas, best=found, inverse_probability=mx.exp(draft.total - chosen))


def among_allowed(processed: ProcessedLogits, draft: Draft, spans: Sequence[Sequence[ConstrainedSpan]]) -> Draft:
    """Return the draft with probabilities that say how sure the model was where its constraint left it a choice.

    processed: the logits [B, C, V] that the draft was made of. In every row's spans, up to the end token, the
    probability of `best` becomes that among the tokens which were allowed after the text before it, with which the
    text can still be completed: 1 where there is only one. It takes a pass over the logits, so it is done once, when a
    canvas is over.
    """
    inverse = draft.inverse_probability[...]
    for row, span in [(row, span) for row, own in enumerate(spans) for span in own]:
        tokens = cast("list[int]", draft.best[row, span.positions].tolist())
        start = span.positions.start
        inverses: list[mx.array] = []
        for token, allowed in zip(tokens, _allowed_tokens(span, tokens), strict=False):
            logits = _logits_at(processed, row, start + len(inverses))
            total = mx.logsumexp(mx.where(mx.array(cast("Any", allowed)), logits, -mx.inf))
            inverses.append(mx.exp(total - logits[token]))
        inverse[row, start : start + len(inverses)] = mx.stack(inverses)
    return draft._replace(inverse_probability=inverse)


def _allowed_tokens(span: ConstrainedSpan, tokens: Sequence[int]) -> Iterator[Flags]:
    """Yield [V] which tokens are allowed in the place of each token of a text, up to its end token."""
    automaton, state = span.automaton, span.state
    for position, token in enumerate(tokens):
        allowed = automaton.allowed(state, span.max_tokens - position - 1)
        allowed[list(automaton.stops)] = automaton.accepting[state] and position >= span.min_tokens
        yield allowed
        if token in automaton.stops:
            return
        state = automaton.after(state, [token])


def _candidates(processed: ProcessedLogits, best: mx.array, span: ConstrainedSpan) -> list[mx.array]:
    """Collect what the search needs of a span's logits [1, N, V], whose most likely tokens are `best` [N]."""
    best = best[None]
    likely, logits = processed.most_likely(CANDIDATES)
    members = processed.at(mx.array(span.automaton.members[0]))
    stops = processed.at(mx.array(span.automaton.stops, mx.int32))
    best_logits = processed.at(best[..., None]).squeeze(-1)
    return [likely.astype(mx.int32), logits, members, stops, best, best_logits]


def _logits_at(processed: ProcessedLogits, row: int, position: int) -> mx.array:
    """Return the logits [V] of one position."""
    return processed[row : row + 1, position : position + 1].array()[0, 0]


def _path(arrays: Sequence[mx.array], span: ConstrainedSpan) -> TokenPath:
    """Search for the most probable text of a span, given what `_candidates` collected."""
    likely, logits, members, stops, best, best_logits = (np.array(each[0]) for each in arrays)
    found = TokenCandidates(
        likely=likely,
        likely_logits=logits,
        member_logits=members,
        stop_logits=stops,
        best=best,
        best_logits=best_logits,
    )
    goal = span.automaton.finishing(span.min_tokens - len(best), span.max_tokens - len(best))
    return most_probable(span.automaton, span.state, found, goal, span.min_tokens)
