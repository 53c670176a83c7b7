"""Automata over tokens, and the most probable text that one accepts, against brute force."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from automata import STOPS, VOCABULARY, of_regex, over
from expressions import random_expression

from mlx_diffgemma.constraint.automata.byte_automaton import ByteAutomaton, compiled
from mlx_diffgemma.constraint.automata.search import TokenCandidates, most_probable
from mlx_diffgemma.constraint.automata.thinking import after_thinking
from mlx_diffgemma.constraint.automata.token_automaton import NOWHERE, TokenAutomaton
from mlx_diffgemma.constraint.automata.token_reading import over_tokens
from mlx_diffgemma.errors import ConstraintError


@pytest.mark.parametrize("pattern", ["a|ab", "(ab)*c", "a(b|ba)*", "[abc]{2,5}", "bba?c"])
def test_tokens_lead_where_their_bytes_do(pattern: str) -> None:
    automaton, bytewise = over(pattern), of_regex(pattern)
    for length in range(1, 5):
        for tokens in itertools.product(range(len(VOCABULARY)), repeat=length):
            state = automaton.after(0, tokens)
            if any(token in STOPS or not VOCABULARY[token] for token in tokens):
                assert state == NOWHERE
                continue
            text = b"".join(VOCABULARY[token] for token in tokens).decode()
            accepted = state != NOWHERE and bool(automaton.accepting[state])
            assert accepted == bytewise.accepts(text)


def test_the_distance_is_that_of_the_shortest_text() -> None:
    assert [int(over(pattern).distance[0]) for pattern in ("abba", "a*", "ab{5}", "c{3}")] == [2, 0, 3, 3]


def test_only_tokens_after_which_the_rest_fits_are_allowed() -> None:
    automaton = over("a|abbbb")
    assert np.flatnonzero(automaton.allowed(0, 5)).tolist() == [1, 3]
    assert np.flatnonzero(automaton.allowed(0, 1)).tolist() == [1]


def test_tokens_alike_are_one_class() -> None:
    words = [b"".join(pair) for pair in itertools.product([b"x", b"y", b"z"], repeat=2)]
    automaton = over_tokens(of_regex('"[a-z]*"'), [b"", b'"', *words], (0,))
    assert automaton.class_count == 2


def test_a_constraint_that_no_token_can_meet_is_refused() -> None:
    with pytest.raises(ConstraintError, match="no text that matches can be made up of this model's tokens"):
        over("xyz")


def test_stops_beyond_the_vocabulary_are_left_out() -> None:
    assert over_tokens(of_regex("a"), VOCABULARY, (0, 6, 100)).stops == STOPS


# random vocabularies and automata


def random_vocabulary(rng: random.Random) -> list[bytes]:
    """A few tokens, some of them parts of characters, twice the same, or without bytes; the first ends a text."""
    pieces = [b"a", b"b", b"\n", b"\xc3", b"\xa9", "é".encode()]
    tokens = [b"".join(rng.choices(pieces, k=rng.choice([0, 1, 1, 1, 2, 3]))) for _ in range(rng.randint(1, 8))]
    return [b"<end>", *tokens]


def random_automaton(rng: random.Random) -> ByteAutomaton:
    while True:
        try:
            return compiled(random_expression(rng, rng.randint(0, 3)))
        except ConstraintError:
            continue


def random_cases(count: int) -> Iterator[tuple[random.Random, ByteAutomaton, list[bytes], TokenAutomaton]]:
    """Automata over bytes and over tokens, without those for which a vocabulary makes up no text."""
    for seed in range(count):
        rng = random.Random(seed)
        bytewise, vocabulary = random_automaton(rng), random_vocabulary(rng)
        try:
            yield rng, bytewise, vocabulary, over_tokens(bytewise, vocabulary, (0,))
        except ConstraintError:
            accepted = [each for each in sequences(vocabulary, 3) if each and is_accepted(bytewise, vocabulary, each)]
            assert not accepted, (seed, accepted)


def sequences(vocabulary: Sequence[bytes], longest: int) -> Iterator[tuple[int, ...]]:
    for length in range(longest + 1):
        yield from itertools.product(range(len(vocabulary)), repeat=length)


def is_accepted(automaton: ByteAutomaton, vocabulary: Sequence[bytes], tokens: Sequence[int]) -> bool:
    if not all(token and vocabulary[token] for token in tokens):
        return False
    state = automaton.after(0, b"".join(vocabulary[token] for token in tokens))
    return state < len(automaton.steps) and bool(automaton.accepting[state])


def test_random_tokens_lead_where_their_bytes_do() -> None:
    count = 0
    for _, bytewise, vocabulary, automaton in random_cases(160):
        count += 1
        for tokens in sequences(vocabulary, 3):
            state = automaton.after(0, tokens)
            accepted = state != NOWHERE and bool(automaton.accepting[state])
            assert accepted == is_accepted(bytewise, vocabulary, tokens), (vocabulary, tokens)
            # Where no text can be completed, no token leads.
            assert state == NOWHERE or automaton.distance[state] <= automaton.states
    assert count > 40


def test_random_texts_can_be_completed_with_the_tokens_that_are_counted() -> None:
    for rng, _, vocabulary, automaton in random_cases(100):
        tokens = range(1, len(vocabulary))
        state = automaton.after(0, rng.choices(tokens, k=rng.randint(0, 2)))
        if state == NOWHERE:
            continue
        completed = [
            any(
                end != NOWHERE and automaton.accepting[end]
                for end in (automaton.after(state, more) for more in itertools.product(tokens, repeat=length))
            )
            for length in range(4)
        ]
        nearest = completed.index(True) if True in completed else 4
        assert min(int(automaton.distance[state]), 4) == nearest
        for least in range(4):
            assert automaton.lengths(state, least, 3) == [n for n in range(least, 4) if completed[n]]
            assert automaton.finishing(least, 3)[state] == any(completed[least:])
        allowed = automaton.allowed(state, 1)
        for token in range(len(vocabulary)):
            after = automaton.after(state, [token])
            assert allowed[token] == (after != NOWHERE and automaton.distance[after] <= 1)


# the most probable text


def brute_force(automaton: TokenAutomaton, logits: np.ndarray, left: int, minimum: int = 0, state: int = 0) -> float:
    """The best sum of logits of all sequences of tokens that are allowed."""
    best, begin = -np.inf, state
    for tokens in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        state, ended = begin, False
        for position, token in enumerate(tokens):
            if token in automaton.stops and not ended:
                ended = True
                if not automaton.accepting[state] or position < minimum:
                    state = NOWHERE
            elif not ended:
                state = automaton.after(state, [token])
            if state == NOWHERE:
                break
        if state != NOWHERE and (ended or automaton.distance[state] <= left):
            best = max(best, float(sum(row[token] for row, token in zip(logits, tokens, strict=True))))
    return best


def candidates(automaton: TokenAutomaton, logits: np.ndarray, likely: int) -> TokenCandidates:
    ids = np.argsort(-logits, axis=1)[:, :likely].astype(np.int32)
    return TokenCandidates(
        likely=ids,
        likely_logits=np.take_along_axis(logits, ids, axis=1),
        member_logits=logits[:, automaton.members[0]],
        stop_logits=logits[:, list(automaton.stops)],
        best=logits.argmax(axis=1).astype(np.int32),
        best_logits=logits.max(axis=1),
    )


@pytest.mark.parametrize("pattern", ["a|ab", "(ab)*c", "a(b|ba)*", "[abc]{2,5}", "bba?c"])
def test_the_path_is_the_most_probable_text(pattern: str) -> None:
    automaton, rng = over(pattern), np.random.default_rng(0)
    for length, left in itertools.product(range(1, 5), (0, 1, 3)):
        if automaton.distance[0] > length + left:
            continue
        logits = 3 * rng.normal(size=(length, len(VOCABULARY))).astype(np.float32)
        path = most_probable(automaton, 0, candidates(automaton, logits, 3), automaton.finishing(0, left))
        found = sum(row[token] for row, token in zip(logits, path.tokens, strict=True))
        assert found == pytest.approx(brute_force(automaton, logits, left), abs=1e-4)
        if path.end is not None:
            assert path.tokens[path.end] in STOPS
            assert automaton.accepting[automaton.after(0, path.tokens[: path.end])]


def test_the_path_is_the_most_probable_text_of_random_automata() -> None:
    count = 0
    for rng, _, vocabulary, automaton in random_cases(150):
        length, left, minimum = rng.randint(1, 3), rng.choice([0, 1, 3]), rng.choice([0, 0, 1])
        logits = 3 * np.random.default_rng(count).normal(size=(length, len(vocabulary))).astype(np.float32)
        best = brute_force(automaton, logits, left, minimum)
        if best == -np.inf:
            continue
        count += 1
        goal = automaton.finishing(0, left)
        path = most_probable(automaton, 0, candidates(automaton, logits, 3), goal, minimum)
        found = sum(row[token] for row, token in zip(logits, path.tokens, strict=True))
        assert found == pytest.approx(best, abs=1e-4)
    assert count > 40


# after a thought


OPENING, CLOSING = 6, 8
"""Tokens of VOCABULARY that add nothing to a text."""


def thinking(pattern: str) -> TokenAutomaton:
    return after_thinking(over_tokens(of_regex(pattern), VOCABULARY, (0,)), VOCABULARY, OPENING, CLOSING)


@pytest.mark.parametrize("pattern", ["a|ab", "(ab)*c", "a*"])
def test_a_thought_of_any_text_may_come_before_the_answer(pattern: str) -> None:
    automaton, answer = thinking(pattern), of_regex(pattern)
    for length in range(5):
        for tokens in itertools.product(range(len(VOCABULARY)), repeat=length):
            state, rest = automaton.after(0, tokens), tokens
            is_whole = True
            if tokens[:1] == (OPENING,):
                is_whole = CLOSING in tokens
                closed = tokens.index(CLOSING) if is_whole else len(tokens)
                is_whole = is_whole and all(VOCABULARY[token] and token for token in tokens[1:closed])
                rest = tokens[closed + 1 :]
            expected = is_whole and is_accepted(answer, VOCABULARY, rest)
            assert (state != NOWHERE and bool(automaton.accepting[state])) == expected, tokens


def test_the_most_probable_text_with_a_thought_is_found() -> None:
    automaton, rng = thinking("(ab)*c"), np.random.default_rng(0)
    for length in range(1, 5):
        logits = 3 * rng.normal(size=(length, len(VOCABULARY))).astype(np.float32)
        logits[0, OPENING] += 5
        path = most_probable(automaton, 0, candidates(automaton, logits, 3), automaton.finishing(0, 2))
        found = sum(row[token] for row, token in zip(logits, path.tokens, strict=True))
        assert found == pytest.approx(brute_force(automaton, logits, 2), abs=1e-4)
        assert path.tokens[0] == OPENING
