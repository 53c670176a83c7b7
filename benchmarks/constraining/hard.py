"""Constraints that are hard to build: long texts, many fields, many choices, large repetitions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from constraining import ours
from constraining.watching import peak_memory, reset_peak_memory
from mlx_diffgemma.constraint.automata.search import TokenCandidates, most_probable
from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.constraint.spec import Choices, JsonSchema, Regex
from mlx_diffgemma.errors import DiffGemmaError

CANVAS, LIKELY = 256, 64
"""Positions that are searched, and the likeliest tokens that are compared at each."""
SEARCHED = "20 fields of all kinds"
"""The constraint whose search is measured."""
_TEXT: Mapping[str, Any] = {"type": "string"}
_KINDS = [_TEXT, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}, {"enum": ["red", "green", "blue"]}]


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a part of a build came to."""

    part: str
    """"start", "bytes", "tokens" or "search": nothing, the automaton over bytes, over tokens, or a search"""
    seconds: float
    peak_memory: int
    """bytes that the process held at most"""
    states: int = 0
    transitions: int = 0
    refusal: str = ""


def fields(names: list[str], kind: Callable[[int], Any], *, required: bool = True) -> dict[str, Any]:
    """Return the schema of an object with these fields, all required or all optional."""
    properties = {name: kind(number) for number, name in enumerate(names)}
    return {
        "type": "object",
        "properties": properties,
        "required": names if required else [],
        "additionalProperties": False,
    }


def nested(width: int, levels: int, *, required: bool = True) -> dict[str, Any]:
    """Return the schema of objects of `width` fields within each other, with texts at the last level."""
    names = [f"level{levels}_{number}" for number in range(width)]
    inner = _TEXT if levels == 1 else nested(width, levels - 1, required=required)
    return fields(names, lambda _: inner, required=required)


def strict_size() -> dict[str, Any]:
    """Return a schema of OpenAI's documented strict size: 100 properties, 5 levels, 500 values of enums."""
    values = iter(range(500))

    def level(depth: int) -> dict[str, Any]:
        kinds: list[Any] = [{"enum": [f"value {next(values)}" for _ in range(10)]} for _ in range(10)]
        kinds += [_KINDS[number % 4] for number in range(9 if depth < 5 else 10)]
        kinds += [level(depth + 1)] if depth < 5 else []
        return fields([f"field{depth}_{number}" for number in range(20)], kinds.__getitem__)

    return level(1)


def arrays_within(levels: int) -> dict[str, Any]:
    """Return the schema of arrays of arrays."""
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


def hard_constraints() -> dict[str, ours.Constraint]:
    """Return the constraints by name."""
    patterns = [
        "Answer: .{1,60}",
        "[A-Z].{1,40}",
        r"\(.{1,30}\)",
        r"(- .{1,60}\n){1,8}",
        r'"(?:[^"\\]|\\.){1,40}"',
        ".{1,20}: .{1,20}",
        r"\w{1000}",
        "(a{1000}){1000}",
        ".*a.{16}",
    ]
    item = fields(["id", "name"], lambda number: [{"type": "integer"}, _TEXT][number])
    schemas: dict[str, Any] = {
        SEARCHED: fields([f"field{number}" for number in range(20)], lambda number: _KINDS[number % 5]),
        **{f"maxLength {length}": {"type": "string", "maxLength": length} for length in (20, 500, 5000)},
        "200 required strings": fields([f"field{number}" for number in range(200)], lambda _: _TEXT),
        "8x8x8 fields, required": nested(8, 3),
        "8x8x8 fields, optional": nested(8, 3, required=False),
        "maxItems 1,000 of objects": {"type": "array", "items": item, "maxItems": 1000},
        "OpenAI's strict size": strict_size(),
        "arrays nested 150 deep": arrays_within(150),
    }
    return {
        **{name: JsonSchema(schema) for name, schema in schemas.items()},
        "50,000 choices": Choices([f"choice {number * 7919 % 100_003}" for number in range(50_000)]),
        **{f"regex {pattern}": Regex(pattern) for pattern in patterns},
    }


def hard_work(vocabulary_folder: Path | None) -> Callable[[str], Iterator[Step]]:
    """Return what a process does with the name of a constraint: each of the parts in turn."""
    vocabulary = None if vocabulary_folder is None else ours.read_vocabulary(vocabulary_folder)

    def work(name: str) -> Iterator[Step]:
        constraint = hard_constraints()[name]
        reset_peak_memory()
        yield Step(part="start", seconds=0.0, peak_memory=peak_memory())
        begin, part = time.perf_counter(), "bytes"

        def step(**sizes: Any) -> Step:
            return Step(part=part, seconds=time.perf_counter() - begin, peak_memory=peak_memory(), **sizes)

        try:
            automaton = ours.bytes_automaton(constraint)
            dead = len(automaton.steps)
            yield step(states=dead, transitions=int(np.count_nonzero(automaton.steps != dead)))
            if vocabulary is None:
                return
            begin, part = time.perf_counter(), "tokens"
            over_tokens = ours.tokens_automaton(automaton, vocabulary)
            yield step(states=over_tokens.states, transitions=len(over_tokens.targets))
        except DiffGemmaError as error:
            yield step(refusal=str(error))
            return
        if name == SEARCHED:
            yield Step(part="search", seconds=search_seconds(over_tokens), peak_memory=peak_memory())

    return work


def search_seconds(automaton: TokenAutomaton, times: int = 5) -> float:
    """Return the median of the seconds of a search over a canvas of random logits."""
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(CANVAS, len(automaton.class_of))).astype(np.float32)
    likely = np.argpartition(-logits, LIKELY, axis=1)[:, :LIKELY].astype(np.int32)
    candidates = TokenCandidates(
        likely=likely,
        likely_logits=np.take_along_axis(logits, likely, axis=1),
        member_logits=logits[:, automaton.members[0]],
        stop_logits=logits[:, list(automaton.stops)],
        best=logits.argmax(axis=1).astype(np.int32),
        best_logits=logits.max(axis=1),
    )
    goal = automaton.finishing(0, CANVAS)
    seconds: list[float] = []
    for _ in range(times):
        begin = time.perf_counter()
        most_probable(automaton, 0, candidates, goal)
        seconds.append(time.perf_counter() - begin)
    return median(seconds)
