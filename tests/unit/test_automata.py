"""Expressions as automata over bytes, against Python's re, a slow matcher, and a naive minimization."""

from __future__ import annotations

import gc
import itertools
import random
import re

import numpy as np
import pytest
from automata import are_alike, of_regex, sampled
from expressions import matches, random_expression, random_text

from mlx_diffgemma.constraint.automata.byte_automaton import ByteAutomaton, are_disjoint, compiled, part_automaton
from mlx_diffgemma.constraint.automata.minimal import merged, trimmed
from mlx_diffgemma.constraint.automata.words import words_automaton
from mlx_diffgemma.constraint.expression import (
    ANY_TEXT,
    EMPTY,
    NOTHING,
    Alternatives,
    Difference,
    Expression,
    Intersection,
    Words,
    concatenation,
    either,
    literal,
    one_of,
    optional_list,
    repetition,
)
from mlx_diffgemma.errors import ConstraintError

# patterns

PATTERNS = [
    "a|ab",
    "^a$|^b$",
    "(a|b)*abb",
    "a*?",
    "[^a]b?",
    "a{2,3}",
    "(?i)^ab$",
    r"\d{1,2}-b",
    "é|a\n",
    r"[\d-]+",
    ".a",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_accepts_what_python_matches_whole(pattern: str) -> None:
    automaton = of_regex(pattern)
    for length in range(4):
        for characters in itertools.product("ab1-éA\n", repeat=length):
            text = "".join(characters)
            assert automaton.accepts(text) == bool(re.fullmatch(pattern, text)), text


def test_states_that_differ_in_nothing_are_one() -> None:
    assert len(of_regex("ab|cb|db").steps) == 3
    assert len(of_regex("(?:a|b|c)(?:x|y)*").steps) == 2


def test_digits_are_those_of_ascii() -> None:
    assert not of_regex(r"\d").accepts("٣")
    assert not of_regex(r"[\d.]").accepts("٣")


def test_the_empty_text_can_be_taken_out() -> None:
    automaton = compiled(repetition(literal("a")), allow_empty=False)
    assert [automaton.accepts(text) for text in ("", "a", "aa", "b")] == [False, True, True, False]
    with pytest.raises(ConstraintError, match="only the empty text matches"):
        compiled(EMPTY, allow_empty=False)


def test_a_prefix_stands_before_every_text() -> None:
    automaton = compiled(repetition(literal("a"), 0, 2), prefix="é")
    assert [automaton.accepts(text) for text in ("", "é", "éa", "éaa", "a", "éaaa")] == [
        False,
        True,
        True,
        True,
        False,
        False,
    ]
    filled = compiled(repetition(literal("a"), 0, 2), prefix="é", allow_empty=False)
    assert [filled.accepts(text) for text in ("é", "éa")] == [False, True]


def test_an_expression_without_texts_is_refused() -> None:
    for nothing in (NOTHING, one_of(""), Intersection(literal("a"), literal("b")), Difference(ANY_TEXT, ANY_TEXT)):
        with pytest.raises(ConstraintError, match="no text at all matches"):
            compiled(nothing)


# what doubled with every repetition, and what takes a state for each


NEVER_FINISHED = [
    ("Answer: .{1,60}", ["Answer: 4", "Answer: " + 60 * "x"], ["Answer: ", "Answer: " + 61 * "x", "4"]),
    ("[A-Z].{1,40}", ["Ab", "AA" + 39 * "A"], ["A", "ab", 42 * "A"]),
    (r"\(.{1,30}\)", ["(a)", "())", "(" + 30 * ")" + ")"], ["()", "a", "(" + 31 * ")" + ")"]),
    (r"(- .{1,60}\n){1,8}", ["- a\n", "- a\n- - b\n", 8 * "- a\n"], ["- \n", "- a", 9 * "- a\n"]),
    (r'"(?:[^"\\]|\\.){1,40}"', ['"a"', r'"\""', '"' + 40 * r"\\" + '"'], ['""', r'"\"', '"' + 41 * "a" + '"']),
    (".{1,20}: .{1,20}", ["a: b", ": : : ", "a: " + 20 * ":"], [": ", "a:b", 21 * "a" + ": b", "a: " + 21 * "b"]),
]


@pytest.mark.parametrize(("pattern", "accepted", "refused"), NEVER_FINISHED)
def test_repetitions_that_may_begin_anywhere_are_small(pattern: str, accepted: list[str], refused: list[str]) -> None:
    automaton, rng = of_regex(pattern), random.Random(0)
    assert len(automaton.steps) < 5000
    assert [text for text in accepted if not automaton.accepts(text)] == []
    assert [text for text in refused if automaton.accepts(text)] == []
    for _ in range(20):
        text = sampled(automaton, rng, 150)
        assert re.fullmatch(pattern, text), text


@pytest.mark.parametrize(
    "pattern", ["Answer: .{1,%d}", "[A-Z].{1,%d}", r"\(.{1,%d}\)", r'"(?:[^"\\]|\\.){1,%d}"', "[ab]{%d}"]
)
def test_the_states_grow_with_the_repetitions_and_no_faster(pattern: str) -> None:
    sizes = [len(of_regex(pattern % count).steps) for count in (10, 20, 40)]
    assert sizes[2] - sizes[1] == 2 * (sizes[1] - sizes[0]) <= 200


@pytest.mark.parametrize(
    ("pattern", "part"),
    [
        (r"\w{1000}", r"\w{1000}"),
        ("b(a{1000}){1000}c", "(a{1000}){1000}"),
        (r"x(?:\w{300}|y)z", r"\w{300}"),
        (".*a.{16}", ".{16}"),
    ],
)
def test_a_pattern_that_makes_an_automaton_too_large_is_named(pattern: str, part: str) -> None:
    with pytest.raises(ConstraintError, match=re.escape(f"{part} makes the constraint too large: allow")) as raised:
        of_regex(pattern)
    assert "\n" not in str(raised.value)


def test_building_leaves_garbage_collection_as_it_was() -> None:
    assert gc.isenabled()
    compiled(literal("collected"))
    with pytest.raises(ConstraintError):
        compiled(NOTHING)
    assert gc.isenabled()
    gc.disable()
    try:
        compiled(literal("not collected"))
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_a_deep_expression_is_refused() -> None:
    deep: Expression = literal("a")
    for _ in range(20_000):
        deep = concatenation([literal("("), either([deep, literal("b")])])
    with pytest.raises(ConstraintError, match="nested too deeply"):
        compiled(deep)


# all kinds of expressions


def wrong_texts(seed: int, texts: int) -> list[str]:
    """The texts about which the automaton of a random expression and the slow matcher differ."""
    rng = random.Random(seed)
    expression = random_expression(rng)
    tried = [random_text(rng) for _ in range(texts)]
    try:
        automaton = compiled(expression)
    except ConstraintError as error:
        return [text for text in tried if "too large" not in str(error) and matches(expression, text)]
    tried += [sampled(automaton, rng, 6) for _ in range(5)]
    return [text for text in tried if automaton.accepts(text) != matches(expression, text)]


def test_automata_accept_what_expressions_match() -> None:
    assert [(seed, wrong) for seed in range(300) if (wrong := wrong_texts(seed, 30))] == []


@pytest.mark.slow
def test_automata_accept_what_expressions_match_in_five_thousand_cases() -> None:
    assert [(seed, wrong) for seed in range(5000) if (wrong := wrong_texts(seed, 40))] == []


def test_members_of_a_list_are_in_order_and_as_many_as_allowed() -> None:
    members = [(literal(name), name == "b") for name in "abcd"]
    automaton = compiled(optional_list(members, literal(","), 2, 3))
    texts = ["b", "a,b", "b,c", "b,a", "a,c", "a,b,c", "b,c,d", "a,b,c,d", "a,,b", ""]
    assert [automaton.accepts(text) for text in texts] == [text in ("a,b", "b,c", "a,b,c", "b,c,d") for text in texts]


def test_expressions_without_a_common_text_are_found() -> None:
    assert are_disjoint(repetition(literal("ab")), literal("aba"))
    assert not are_disjoint(repetition(literal("ab")), literal("abab"))
    assert are_disjoint(Difference(ANY_TEXT, repetition(one_of("ab"))), repetition(literal("ab")))


def test_a_part_may_match_nothing() -> None:
    assert not part_automaton(NOTHING).accepts("")
    assert compiled(either([literal("a"), Intersection(literal("a"), literal("b"))])).accepts("a")


# few states


def naive_count(steps: np.ndarray, accepting: np.ndarray) -> int:
    """The number of states after Moore's refinement, one state at a time."""
    block = [int(each) for each in accepting]
    while True:
        keys = [
            (block[state], *[-1 if to == len(steps) else block[to] for to in row]) for state, row in enumerate(steps)
        ]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        if len(numbers) == len(set(block)):
            return len(numbers)
        block = [numbers[key] for key in keys]


def random_steps(rng: np.random.Generator, size: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """An automaton in which few of the states differ."""
    kinds = int(rng.integers(1, size + 1))
    targets = rng.integers(0, kinds + 1, size=(kinds, width))
    of_state = np.concatenate([np.arange(kinds), rng.integers(0, kinds, size=size - kinds)])
    steps = np.full((size, width), size)
    for state, kind in enumerate(of_state):
        for column, target in enumerate(targets[kind]):
            if target < kinds:
                steps[state, column] = rng.choice(np.flatnonzero(of_state == target))
    return steps.astype(np.int32), (rng.random(kinds) < 0.4)[of_state]


def test_merging_leaves_the_fewest_states_and_the_same_texts() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        size, width = int(rng.integers(1, 14)), int(rng.integers(1, 4))
        steps, accepting = random_steps(rng, size, width)
        few, few_accepting = merged(steps, accepting)
        assert len(few) == naive_count(steps, accepting)
        for word in itertools.product(range(width), repeat=4):
            ends: list[bool] = []
            for table, flags in ((steps, accepting), (few, few_accepting)):
                state = 0
                for each in word:
                    state = state if state == len(table) else int(table[state, each])
                ends.append(state < len(table) and bool(flags[state]))
            assert ends[0] == ends[1]


def test_trimming_leaves_the_states_on_a_way_from_the_start_to_an_end() -> None:
    # 0 -> 1 -> 2 ends; 3 is a dead end; 4 is never reached.
    steps = np.array([[1, 3], [2, 5], [5, 5], [3, 3], [2, 2]], np.int32)
    accepting = np.array([False, False, True, False, True])
    few, few_accepting = trimmed(steps, accepting)
    assert few.tolist() == [[1, 3], [2, 3], [3, 3]]
    assert few_accepting.tolist() == [False, False, True]


# many words


def words_as_automaton(words: list[str]) -> ByteAutomaton:
    steps, accepting, class_of_byte = words_automaton([word.encode() for word in words])
    return ByteAutomaton(steps=steps, accepting=accepting, class_of_byte=class_of_byte)


def test_long_lists_of_words_become_the_automaton_of_their_alternatives() -> None:
    rng = random.Random(0)
    for _ in range(100):
        words = ["".join(rng.choices("abé", k=rng.randint(0, 5))) for _ in range(rng.randint(1, 20))]
        assert are_alike(words_as_automaton(words), compiled(Alternatives(tuple(map(literal, words))))), words


def test_a_list_of_many_words_is_built_on_arrays_with_its_prefix() -> None:
    words = tuple(f"choice {number * 7919 % 10_007}" for number in range(3000))
    automaton = compiled(Words(words), prefix="a ")
    assert len(automaton.steps) < 2000
    assert all(automaton.accepts(f"a {word}") for word in words[::10])
    assert not automaton.accepts(words[0])
    assert not automaton.accepts("a choice")
    assert not automaton.accepts("a choice 10007")
