"""Words or numbers to be put in order."""

from __future__ import annotations

from collections.abc import Sequence

from demo_next.question import Question
from demo_next.source import Source

UP = [
    *["Sort: {}"] * 6, "sort: {}", "Sort {}", "sort {}", "Sort these: {}", "Sort this list: {}", "Put in order: {}",
    "Sort in ascending order: {}", "Please sort: {}", "Order: {}", "Sort the following: {}", "Can you sort {}?",
    "Sort: {}.",
]  # fmt: skip
WORDS = [
    "Sort these words: {}", "Sort the words: {}", "Put in alphabetical order: {}", "Sort alphabetically: {}",
    "Sort the words {}",
    "Alphabetical order: {}", "Put these words in order: {}", "Sort by name: {}", "Sort these words alphabetically: {}",
]  # fmt: skip
NUMBERS = [
    "Sort these numbers: {}",
    "Sort the numbers: {}",
    "Sort the numbers {}",
    "Put these numbers in order: {}",
    "Order the numbers: {}",
]
DOWN = [
    "Sort descending: {}", "Sort in descending order: {}", "Sort in reverse order: {}", "Sort from last to first: {}",
    "Sort backwards: {}", "Reverse sort: {}",
]  # fmt: skip
NUMBERS_DOWN = ["Sort from largest to smallest: {}", "Sort from high to low: {}", "Sort the numbers descending: {}"]
WORDS_DOWN = ["Sort from Z to A: {}", "Sort these words in reverse order: {}"]
MOST = 6


def sort(source: Source) -> Question:
    """Return two to six words or numbers to be sorted."""
    numbers = source.chance(0.25)
    items = drawn_numbers(source) if numbers else drawn_words(source)
    down = source.chance(0.12)
    own = (NUMBERS_DOWN if numbers else WORDS_DOWN) if down else (NUMBERS if numbers else WORDS)
    phrases = (DOWN * 2 if down else UP) + own
    answer = ", ".join(in_order(items, down=down))
    return Question(
        kind="sort",
        prompt=source.pick(phrases).format(enumerated(source, items)),
        answer=answer,
        content=answer if numbers else None,
    )


def drawn_words(source: Source) -> list[str]:
    """Return different words; sometimes several begin with one letter, or with capitals."""
    words = source.words(source.rng.randint(2, MOST))
    if source.chance(0.35):
        letters = words[0][: source.rng.randint(1, 2)]
        alike = [word if source.chance(0.5) else source.word_after(letters) for word in words]
        words = list(dict.fromkeys(alike)) if len(set(alike)) > 1 else words
    way = source.rng.random()
    if way < 0.08:
        return [word.capitalize() for word in words]
    return [word.upper() for word in words] if way < 0.1 else words


def drawn_numbers(source: Source) -> list[str]:
    """Return different numbers of up to three digits."""
    highest = source.pick((9, 20, 99, 999, 999))
    return [str(number) for number in source.rng.sample(range(highest + 1), source.rng.randint(2, MOST))]


def in_order(items: Sequence[str], *, down: bool = False) -> list[str]:
    """Return items sorted: numbers by value, words by their letters."""
    if all(item.isdigit() for item in items):
        return sorted(items, key=int, reverse=down)
    return sorted(items, key=str.casefold, reverse=down)


def enumerated(source: Source, items: Sequence[str]) -> str:
    """Return a list as people write it."""
    way = source.rng.random()
    if way < 0.72:
        return ", ".join(items)
    if way < 0.84:
        return " ".join(items)
    if way < 0.92:
        return ",".join(items)
    return ", ".join(items[:-1]) + " and " + items[-1]
