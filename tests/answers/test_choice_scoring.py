"""The probabilities of choices: beginnings that they share are read once, and nothing else changes by that."""

from __future__ import annotations

from collections.abc import Sequence

import mlx.core as mx
import pytest
from tiny import encoded, random_model

from mlx_diffgemma.generation import scoring
from mlx_diffgemma.generation.scoring import log_probabilities
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3]
STOPS = [1, 50]
ANSWERS = [[7, 8], [7, 8, 9], [7, 8, 9, 10, 11], [7, 8, 9, 12], [7, 30], [20], [21, 7, 8, 9], [7, 8, 9]]
"""One is the beginning of others, one is there twice, and one only ends as others begin."""
NODES = {tuple(answer[: end + 1]) for answer in ANSWERS for end in range(len(answer))}
"""What the tree of the answers has a token for."""


@pytest.fixture
def model() -> DiffusionGemma:
    return random_model()


def read_lengths(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Note in a list how many tokens each row has that goes through the model, pass after pass."""
    passes: list[list[int]] = []
    peek = type(model).peek

    def noting(self: DiffusionGemma, rows: Sequence[mx.array], caches: Sequence[Cache]) -> list[mx.array]:
        passes.append([row.shape[1] for row in rows])
        return peek(self, rows, caches)

    monkeypatch.setattr(type(model), "peek", noting)
    return passes


def one_by_one(model: DiffusionGemma, answer: Sequence[int]) -> float:
    """The log-probability of one answer and an end token, with everything read for it alone."""
    logits = model.logits(encoded(model, mx.array([[*PROMPT, *answer]]), model.make_cache()))
    logs = (logits - mx.logsumexp(logits, axis=-1, keepdims=True))[0, len(PROMPT) - 1 :]
    written = sum(logs[place, token].item() for place, token in enumerate(answer))
    return written + mx.logsumexp(logs[-1, STOPS]).item()


def test_the_probabilities_are_those_of_every_answer_by_itself(model: DiffusionGemma) -> None:
    expected = [one_by_one(model, answer) for answer in ANSWERS]
    assert log_probabilities(model, PROMPT, ANSWERS, STOPS) == pytest.approx(expected, abs=1e-5)


def test_a_beginning_that_answers_share_goes_through_the_model_once(
    model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = read_lengths(model, monkeypatch)
    log_probabilities(model, PROMPT, ANSWERS, STOPS)
    assert sum(map(sum, passes)) == len(PROMPT) + len(NODES)
    # The prompt up to its last token, that token, and then branch after branch: 7 | 20 | 21 7 8 9, then 8 | 30, ...
    assert passes[2:] == [[1, 1, 4], [1, 1], [1], [2, 1]]


def test_many_choices_are_read_group_by_group(model: DiffusionGemma, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once = log_probabilities(model, PROMPT, ANSWERS, STOPS)
    monkeypatch.setattr(scoring, "MAX_ROWS", 2)
    passes = read_lengths(model, monkeypatch)
    assert log_probabilities(model, PROMPT, ANSWERS, STOPS) == pytest.approx(at_once, abs=1e-5)
    assert passes[2:4] == [[1, 1], [4]]
