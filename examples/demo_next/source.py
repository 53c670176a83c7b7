"""Words, names and numbers drawn at random, kept apart for training and testing.

Spellings are made up from syllables, so that a model learns to copy what it reads and not to know a list. One word of
twenty, chosen by its hash, is held out: training never shows it, tests show no other.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from keyword import iskeyword
from typing import TypeVar

from demo_model.words import CITIES, NAMES
from demo_next.lists import WORDS

HELD_OUT = 20
"""One word or value of this many is held out."""
ONSETS = (
    "b br c ch cl cr d dr f fl fr g gl gr h j k kl l m n p pl pr qu r s sc sh sk sl sp st str t th tr v w y z".split()
)
VOWELS = "a a a e e e i i o o u u ai au ea ee ia ie io oa oo ou y".split()
CODAS = ["", "", "", "", "", *"b ck d g l ll m n n nd ng nt p r r rk s s ss st t t x".split()]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ACCENTS = {"a": "áàâäåã", "e": "éèêë", "i": "íîï", "o": "óôöø", "u": "úûü", "c": "ç", "n": "ñ", "s": "š", "z": "ž"}
Item = TypeVar("Item")


def is_held_out(content: str) -> bool:
    """Return whether only tests show this content; capitals make no difference."""
    digest = hashlib.sha256(content.casefold().encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT == 0


@dataclass(frozen=True)
class Source:
    """Draws from one side of the line between training and testing."""

    rng: random.Random
    held_out: bool
    """draw held-out content and no other"""

    def chance(self, probability: float) -> bool:
        """Return True with a probability."""
        return self.rng.random() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """Return one of several items."""
        return self.rng.choice(items)

    def word(self, longest: int = 8, shortest: int = 2) -> str:
        """Return a word of lower-case letters."""
        return self._kept(lambda: spelling(self.rng, longest, shortest, WORDS))

    def word_after(self, beginning: str, longest: int = 8) -> str:
        """Return a word that begins with some letters."""
        return self._kept(lambda: (beginning + spelling(self.rng, longest, 2, WORDS))[:longest])

    def words(self, count: int, longest: int = 8) -> list[str]:
        """Return different words."""
        found: dict[str, None] = {}
        while len(found) < count:
            found[self.word(longest)] = None
        return list(found)

    def name(self) -> str:
        """Return the name of a person: one to three words, sometimes with accents, a hyphen or an apostrophe."""
        parts = [self._named(NAMES, 10) for _ in range(self.rng.choices((1, 2, 3), (60, 36, 4))[0])]
        name = " ".join(parts)
        if len(parts) > 1 and self.chance(0.06):
            name = name.replace(" ", "-", 1)
        elif self.chance(0.03):
            name = f"O'{name}"
        return name.lower() if self.chance(0.06) else name

    def city(self) -> str:
        """Return the name of a city: one or two words."""
        parts = [self._named(CITIES, 11) for _ in range(2 if self.chance(0.15) else 1)]
        city = " ".join(parts)
        return city.lower() if self.chance(0.05) else city

    def identifier(self, longest: int = 10) -> str:
        """Return the name of a function or an argument: a word, or two with an underscore between them."""
        while iskeyword(name := "_".join(self.word(longest) for _ in range(2 if self.chance(0.2) else 1))):
            pass
        return name

    def number(self, highest: int = 999) -> int:
        """Return a whole number whose length is as random as its digits."""
        digits = self.rng.randint(1, len(str(highest)))
        return self.rng.randint(0, min(highest, 10**digits - 1))

    def _named(self, known: Sequence[str], longest: int) -> str:
        def make() -> str:
            return accented(self.rng, spelling(self.rng, longest, 2, known)).capitalize()

        return self._kept(make)

    def _kept(self, make: Callable[[], str]) -> str:
        while is_held_out(made := make()) != self.held_out:
            pass
        return made


def spelling(rng: random.Random, longest: int, shortest: int, known: Sequence[str]) -> str:
    """Return a lower-case word: of a list, of syllables, or of any letters."""
    while True:
        way = rng.random()
        if way < 0.25:
            word = rng.choice(known).lower()
        elif way < 0.9:
            syllables = rng.choices((1, 2, 3, 4), (30, 45, 20, 5))[0]
            word = "".join(rng.choice(ONSETS) + rng.choice(VOWELS) + rng.choice(CODAS) for _ in range(syllables))
            # A word may begin with a vowel.
            word = word.lstrip("bcdfghjklmnpqrstvwxz") if rng.random() < 0.15 else word
        else:
            word = "".join(rng.choice(LETTERS) for _ in range(rng.randint(shortest, longest)))
        if shortest <= len(word) <= longest and " " not in word:
            return word


def accented(rng: random.Random, word: str) -> str:
    """Return a word, sometimes with an accent on one of its letters."""
    places = [place for place, letter in enumerate(word) if letter in ACCENTS]
    if not places or rng.random() >= 0.08:
        return word
    place = rng.choice(places)
    return word[:place] + rng.choice(ACCENTS[word[place]]) + word[place + 1 :]
