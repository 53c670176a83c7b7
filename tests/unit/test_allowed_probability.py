"""The probability of a token within a constraint is that among the tokens which were allowed in its place."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from mlx_diffgemma.constraint.automata.byte_automaton import compiled
from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.constraint.automata.token_reading import over_tokens
from mlx_diffgemma.constraint.description import described
from mlx_diffgemma.constraint.spec import Regex
from mlx_diffgemma.model.kernels import default_kernels
from mlx_diffgemma.model.logits import ProcessedLogits
from mlx_diffgemma.sampling.constrained import ConstrainedSpan, among_allowed, constrain
from mlx_diffgemma.sampling.sampler import Draft, make_draft

END, A, B, C, D = range(5)
TOKENS = [b"", b"a", b"b", b"c", b"d"]


def automaton(pattern: str) -> TokenAutomaton:
    return over_tokens(compiled(described(Regex(pattern)).expression), TOKENS, (END,))


def drafted(logits: np.ndarray) -> tuple[ProcessedLogits, Draft]:
    """The logits [C, V] of one row, and what they say without a constraint."""
    processed = ProcessedLogits.of(mx.array(logits.astype(np.float32))[None], default_kernels())
    places = processed.shape[:2]
    reading = processed.read(mx.full(places, 0.5))
    return processed, make_draft(reading, mx.zeros(places, mx.int32), 1.0)


def held(logits: np.ndarray, span: ConstrainedSpan) -> tuple[list[int], list[float]]:
    """The text that is found, and the probability of each of its tokens."""
    processed, draft = drafted(logits)
    draft = among_allowed(processed, constrain(processed, draft, [(span,)]), [(span,)])
    return draft.best[0].tolist(), (1 / draft.inverse_probability[0]).tolist()


def test_a_token_that_is_forced_is_certain_and_a_choice_is_weighed_among_what_was_allowed() -> None:
    logits = np.random.default_rng(0).normal(size=(7, 5)) * 3
    logits[2, [B, C]] = [1.0, 2.0]
    span = ConstrainedSpan(automaton=automaton("a(b|c)d"), state=0, positions=slice(1, 6), min_tokens=0, max_tokens=5)
    tokens, probabilities = held(logits, span)
    assert tokens[1:5] == [A, C, D, END]
    assert probabilities[1:5] == pytest.approx([1, 1 / (1 + np.exp(-1)), 1, 1])
    # Before the span and after its end token, probabilities are those among all tokens.
    plain = np.exp(logits).max(axis=1) / np.exp(logits).sum(axis=1)
    assert [probabilities[place] for place in (0, 5, 6)] == pytest.approx([plain[place] for place in (0, 5, 6)])


def test_what_could_not_be_completed_any_more_was_not_allowed() -> None:
    logits = np.zeros((3, 5))
    span = ConstrainedSpan(automaton=automaton("a|bcd"), state=0, positions=slice(0, 3), min_tokens=0, max_tokens=3)
    _, probabilities = held(logits, span)
    assert probabilities[0] == pytest.approx(0.5)
    short = ConstrainedSpan(automaton=automaton("a|bcd"), state=0, positions=slice(0, 2), min_tokens=0, max_tokens=2)
    tokens, probabilities = held(logits, short)
    assert tokens[:2] == [A, END]
    assert probabilities[:2] == pytest.approx([1, 1])


def test_to_end_and_to_go_on_are_weighed_against_each_other() -> None:
    logits = np.zeros((4, 5))
    logits[:, END] = 1.0
    span = ConstrainedSpan(automaton=automaton("a+"), state=0, positions=slice(0, 4), min_tokens=0, max_tokens=8)
    tokens, probabilities = held(logits, span)
    assert tokens[:2] == [A, END]
    assert probabilities[:2] == pytest.approx([1, np.e / (1 + np.e)])


def test_rows_without_a_constraint_keep_their_probabilities() -> None:
    processed, draft = drafted(np.random.default_rng(1).normal(size=(4, 5)))
    kept = among_allowed(processed, draft, [()])
    assert kept.inverse_probability.tolist() == draft.inverse_probability.tolist()
