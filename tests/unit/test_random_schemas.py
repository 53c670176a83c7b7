"""Whatever the automaton of a random schema accepts is valid for the schema."""

from __future__ import annotations

import random

import pytest
from automata import of_schema, sampled
from random_schemas import random_schema
from validity import fault

from mlx_diffgemma.errors import ConstraintError


def invalid_texts(seed: int, count: int) -> list[tuple[str, str]] | None:
    """Texts that the automaton of a random schema accepts, with what is wrong with each; None if it is refused."""
    rng = random.Random(seed)
    schema = random_schema(rng)
    try:
        automaton = of_schema(schema, max_depth=2)
    except ConstraintError as error:
        assert "\n" not in str(error)
        return None
    texts = [sampled(automaton, rng, rng.choice([0, 10, 30, 80])) for _ in range(count)]
    return [(text, wrong) for text in texts if (wrong := fault(schema, text))]


def judge(seeds: range, count: int) -> None:
    """Check random schemas, of which at most a fifth may be refused."""
    found = {seed: invalid_texts(seed, count) for seed in seeds}
    assert {seed: texts for seed, texts in found.items() if texts} == {}
    assert sum(texts is None for texts in found.values()) < len(found) / 5


def test_whatever_is_accepted_validates() -> None:
    judge(range(150), 8)


@pytest.mark.slow
def test_whatever_is_accepted_validates_for_two_thousand_schemas() -> None:
    judge(range(1000, 3000), 20)
