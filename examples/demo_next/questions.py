"""Make up the questions that the demo model learns to answer, and hold out others to test it.

    stream(seed, mix) -> a kind by mix -> draw(kind, source) -> Question

Values (the numbers of a sum, a count, a sudoku) are held out by hash; so are words, names and wordings of what the
model cannot answer: training never shows them.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import replace

from demo_next import talk
from demo_next.arithmetic import sums
from demo_next.counting import count, long_count, short_count
from demo_next.edits import edit
from demo_next.functions import function
from demo_next.infills import infill
from demo_next.puzzles import blank_sudoku, sudoku_puzzle
from demo_next.question import Kind, Question
from demo_next.records import record
from demo_next.sorting import sort
from demo_next.source import Source, is_held_out
from demo_next.talk import anything_else, chat
from demo_next.turns import second_turn

KINDS: dict[str, Kind] = {
    "sudoku": sudoku_puzzle,
    "sums": sums,
    "json": record,
    "count": count,
    "sort": sort,
    "function": function,
    "edit": edit,
    "second turn": second_turn,
    "chat": chat,
    "else": anything_else,
    "infill": infill,
}
PRACTICE: dict[str, Kind] = {"short count": short_count, "long count": long_count, "blank sudoku": blank_sudoku}
"""Kinds for training only."""
MIX = {
    "sudoku": 12, "blank sudoku": 2, "sums": 16, "json": 12, "count": 6, "short count": 6, "sort": 14, "function": 8,
    "edit": 10, "second turn": 6, "chat": 1, "else": 4, "infill": 3,
}  # fmt: skip
"""Frequency of each kind in the first stage of training, in percent."""


def draw(kind: str, source: Source) -> Question:
    """Return a random question of one kind, of the source's side of what is held out."""
    make = (KINDS | PRACTICE)[kind]
    while True:
        question = make(source)
        if question.content is None or is_held_out(f"{question.kind}: {question.content}") == source.held_out:
            return replace(question, system=talk.said_before(source))


def stream(seed: int, mix: Mapping[str, int] = MIX, *, held_out: bool) -> Iterator[Question]:
    """Yield questions of all kinds without end, determined by the seed."""
    source = Source(random.Random(f"{seed} {held_out}"), held_out)
    while True:
        (kind,) = source.rng.choices(list(mix), list(mix.values()))
        yield draw(kind, source)
