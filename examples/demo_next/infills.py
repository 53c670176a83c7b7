"""Texts with gaps, and parts of texts to be rewritten, asked for as the runtime asks."""

from __future__ import annotations

from collections.abc import Sequence

from demo_next import arithmetic, counting, edits, functions, records, sorting
from demo_next.question import Kind, Question
from demo_next.source import Source

from mlx_diffgemma.infilling.prompts import edit_prompt, infill_prompt
from mlx_diffgemma.infilling.template import Gap

SENTENCES = [
    "The {0} is {1} and the {2} is {3}.", "I like {0} and {1}.", "My name is {N} and I live in {C}.",
    "{N} lives in {C}.", "{0} and {1}",
    "The {0} {1} the {2}.", "{N} is {n} years old.", "Dear {N}, thank you for the {0}.", "We have {n} {0}s.",
    "{0}, {1}, {2}",
]  # fmt: skip

FILLED: Sequence[Kind] = (
    functions.function,
    functions.function,
    arithmetic.sums,
    counting.short_count,
    records.record,
    sorting.sort,
    edits.edit,
)
"""Kinds of answers that get a gap."""


def infill(source: Source) -> Question:
    """Return a text of which a part is missing and can be known, or is anything."""
    question = source.pick(FILLED)(source)
    text = question.answer if source.chance(0.75) else sentence(source)
    start, stop = span(source, text)
    way = source.rng.random()
    if way < 0.55:
        prompt = infill_prompt([part for part in (text[:start], Gap(), text[stop:]) if part != ""], None, shown=True)
    elif text == question.answer and way < 0.8:
        prompt = infill_prompt(
            [part for part in (text[:start], Gap(), text[stop:]) if part != ""],
            question.prompt,
            shown=source.chance(0.4),
        )
    else:
        return rewritten(source, text)
    return Question(kind="infill", prompt=prompt, answer=text)


def span(source: Source, text: str) -> tuple[int, int]:
    """Return where a part of a text begins and ends: whole words mostly, the last line of a function often."""
    if "return " in text and source.chance(0.5):
        return text.index("return ") + len("return "), len(text)
    borders = [0, *(n for n, letter in enumerate(text) if letter in ' "(),:.'), len(text)]
    if source.chance(0.2):
        borders = list(range(len(text) + 1))
    start = source.pick(borders[:-1])
    start += text[start : start + 1] in (" ", '"', "(", ",") and start < len(text) - 1
    stops = [n for n in borders if n > start] or [len(text)]
    return start, source.pick(stops[:4])


def rewritten(source: Source, text: str) -> Question:
    """Return a word of a text to be changed: to upper case, or to another word."""
    words = [
        (place, place + len(word))
        for word in set(text.split())
        if word.isalpha() and text.count(word) == 1
        for place in [text.index(word)]
    ]
    if not words:
        text = sentence(source)
        words = [(0, len(text.split(" ")[0]))]
    start, stop = source.pick(words)
    word, new = text[start:stop], source.word()
    instruction, changed = source.pick(
        (
            (source.pick(("upper case", "Make it upper case", "in upper case", "Upper case")), word.upper()),
            (source.pick((f"write {new}", f"Put {new}", f"replace it by {new}", f"use {new} instead")), new),
        )
    )
    answer = text[:start] + changed + text[stop:]
    return Question(kind="infill", prompt=edit_prompt(text, instruction, (start, stop)), answer=answer)


def sentence(source: Source) -> str:
    """Return a sentence of made-up words."""
    words = source.words(4)
    return source.pick(SENTENCES).format(*words, N=source.name(), C=source.city(), n=source.rng.randrange(100))
