"""Small changes to a text: upper case, words in reverse order, one word by another, a line of several."""

from __future__ import annotations

from collections.abc import Callable

from demo_next.question import Question
from demo_next.source import Source

UPPER = ["Upper case: {}"] * 4 + [
    "Uppercase: {}", "upper case: {}", "Make upper case: {}", "In upper case: {}", "To upper case: {}",
    "Write in upper case: {}",
    "Make this upper case: {}", "Put in upper case: {}", "Write in capitals: {}", "Capital letters: {}",
]  # fmt: skip
LOWER = ["Lower case: {}"] * 2 + [
    "Lowercase: {}",
    "lower case: {}",
    "Make lower case: {}",
    "In lower case: {}",
    "To lower case: {}",
]
REVERSE = ["Reverse the words: {}"] * 4 + [
    "reverse the words: {}", "Reverse the order of the words: {}", "Words in reverse order: {}",
    "Reverse these words: {}",
    "Reverse the words in: {}", "Write the words backwards: {}", "Turn the words around: {}",
]  # fmt: skip
REPLACE = ["Replace {0} by {1}: {2}"] * 4 + [
    "Replace {0} with {1}: {2}", "Replace {0} with {1} in: {2}", "Replace {0} by {1} in: {2}",
    "replace {0} by {1}: {2}",
    "Change {0} to {1}: {2}", "Put {1} for {0}: {2}", "Write {1} instead of {0}: {2}", 'Replace "{0}" by "{1}": {2}',
]  # fmt: skip
FIRST = [
    "First line of: {}",
    "First line of:\n{}",
    "First line of:\n{}",
    "first line of: {}",
    "Give the first line of: {}",
    "The first line of:\n{}",
]
LAST = ["Last line of: {}", "Last line of:\n{}", "last line of: {}", "Give the last line of: {}"]
SIGNS = ["", "", "", ".", "!", "?"]


def edit(source: Source) -> Question:
    """Return a small change to a text."""
    return source.rng.choices(list(WAYS), list(WAYS.values()))[0](source)


def upper_case(source: Source) -> Question:
    """Return a text to be written in capitals."""
    given = text(source, 6)
    return changed(source, UPPER, given, given.upper())


def lower_case(source: Source) -> Question:
    """Return a text to be written in small letters."""
    given = text(source, 6)
    given = given.upper() if source.chance(0.5) else given.title()
    return changed(source, LOWER, given, given.lower())


def reversed_words(source: Source) -> Question:
    """Return words to be put in reverse order."""
    words = source.words(source.rng.randint(2, 7))
    return changed(source, REVERSE, " ".join(words), " ".join(reversed(words)))


def replaced_word(source: Source) -> Question:
    """Return a text of which one word is to be replaced wherever it is."""
    words = [source.word() for _ in range(source.rng.randint(1, 6))]
    old, new = source.words(2)
    for _ in range(source.rng.choices((1, 2), (80, 20))[0]):
        words.insert(source.rng.randrange(len(words) + 1), old)
    given = " ".join(words) + source.pick(SIGNS)
    if source.chance(0.3):
        given = given[0].upper() + given[1:]
    # A capital letter at the start stays, whichever word is there.
    answer = " ".join(renewed(word, old, new) for word in given.split(" "))
    prompt = source.pick(REPLACE).format(old, new, given)
    return Question(kind="edit", prompt=prompt, answer=answer)


def renewed(word: str, old: str, new: str) -> str:
    """Return the word, or another in its place with the same capital letter and punctuation."""
    bare = word.rstrip(".!?")
    if bare.lower() != old:
        return word
    return (new.capitalize() if bare[0].isupper() else new) + word[len(bare) :]


def one_line(source: Source) -> Question:
    """Return a text of several lines of which one is asked for."""
    lines = [text(source, 5) for _ in range(source.rng.randint(2, 4))]
    first = source.chance(0.8)
    return changed(source, FIRST if first else LAST, "\n".join(lines), lines[0 if first else -1])


WAYS: dict[Callable[[Source], Question], int] = {
    upper_case: 26,
    lower_case: 8,
    reversed_words: 24,
    replaced_word: 26,
    one_line: 16,
}
"""How often each way is asked for, in percent."""


def text(source: Source, most: int) -> str:
    """Return a text of one to `most` words, mostly in small letters."""
    words = [source.word() for _ in range(source.rng.randint(1, most))]
    if source.chance(0.1):
        words[source.rng.randrange(len(words))] = str(source.number())
    joined = " ".join(words)
    if len(words) > 2 and source.chance(0.15):
        joined = joined.replace(" ", ", ", 1)
    if source.chance(0.3):
        joined = joined[0].upper() + joined[1:]
    return joined + source.pick(SIGNS)


def changed(source: Source, phrases: list[str], given: str, answer: str) -> Question:
    """Return a question for a text in one of several wordings."""
    return Question(kind="edit", prompt=source.pick(phrases).format(given), answer=answer)
