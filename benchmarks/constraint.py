"""Measure the cost of a constraint: making its automaton, and its part of a denoising step.

    python benchmarks/run.py constraint                   # the release's sizes: 11 GB of memory, minutes
    python benchmarks/run.py constraint --automata-only   # seconds

The constraint is a schema of twenty fields, the vocabulary has 262,144 made-up pieces (words with and without a space,
runs of spaces and punctuation, numbers, other scripts, as in large vocabularies), the canvas 256 positions and no
prefix. The model has random weights and one layer of each kind. Steps through one sliding layer, through two, and
through a sliding and a full one give the seconds of a layer of each kind and of the rest; the seconds of 25 + 5 layers
follow. Thirty different layers would use the processor's caches worse than two, so the step comes out too short and the
constraint's part of it too large.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx
import numpy as np
from random_checkpoint import make_config

from mlx_diffgemma.constraint import cache as store
from mlx_diffgemma.constraint.automata.byte_automaton import compiled
from mlx_diffgemma.constraint.automata.token_automaton import TokenAutomaton
from mlx_diffgemma.constraint.automata.token_reading import over_tokens
from mlx_diffgemma.constraint.cache import Vocabulary, automaton_of
from mlx_diffgemma.constraint.description import described
from mlx_diffgemma.constraint.spec import JsonSchema
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.config import parse_config
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.sampling.canvas import Canvas
from mlx_diffgemma.sampling.constrained import ConstrainedSpan, constrain
from mlx_diffgemma.sampling.denoising import refine
from mlx_diffgemma.sampling.strategy import default_rules

VOCABULARY, CANVAS = 262_144, 256
SLIDING, FULL = 25, 5
STOPS = (1, 106, 50)
TARGET = 0.15
NAMES = (
    "name age height active colour street number latitude verified kind title pages price available cover author year "
    "rating open type"
).split()
KINDS: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "integer"},
    {"type": "number"},
    {"type": "boolean"},
    {"enum": ["red", "green", "blue"]},
]


def fields(kinds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a schema of twenty required fields, of these kinds in turn."""
    properties = {name: kinds[n % len(kinds)] for n, name in enumerate(NAMES)}
    return {"type": "object", "properties": properties, "required": NAMES}


SCHEMAS = {
    "20 fields of all kinds": fields(KINDS),
    "20 texts": fields(KINDS[:1]),
    "20 texts of at most 40 characters": fields([{"type": "string", "maxLength": 40}]),
}


def pieces(size: int = VOCABULARY, seed: int = 0) -> tuple[bytes, ...]:
    """Return a vocabulary of this size: 256 special ids, then bytes, then pieces as in large vocabularies."""
    found = dict.fromkeys(bytes([byte]) for byte in range(256))
    for text in _pieces(random.Random(seed)):
        found.setdefault(text.encode())
        if len(found) == size - 256:
            break
    return (*[b""] * 256, *found)


def _pieces(rng: random.Random) -> Iterator[str]:
    marks = "{}[]\":,._-/\\()<>=+*'#;!?"
    for length in range(1, 32):
        yield from (character * length for character in " \n\t")
    yield from (first + second for first in f" {marks}" for second in marks)
    yield from ('": "', '", "', '":"', '","', '"}', '": {"', '": ["', '"],', '": ', '"},')
    yield from (f" {a}{b}" for a in marks for b in marks if rng.random() < 0.5)
    yield from (a + b + c for a in marks for b in marks for c in marks if rng.random() < 0.4)
    yield from (blank + word for word in (*NAMES, "true", "false", "null", "red", "green") for blank in ("", " "))
    yield from (word[:length] for word in NAMES for length in (2, 3, 4))
    yield from map(str, range(1000))
    scripts = [(0x400, 0x500), (0x600, 0x6FF), (0x900, 0x97F), (0x3040, 0x30FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3)]
    while True:
        word = "".join(rng.choices("etaoinshrdlucmfwypvbgkjqxz", weights=range(26, 0, -1), k=rng.randint(2, 10)))
        yield rng.choice((word, f" {word}", f" {word}", word.capitalize()))
        low, high = rng.choice(scripts)
        yield "".join(chr(rng.randint(low, high)) for _ in range(rng.randint(1, 4)))


def seconds(work: Callable[[], object], times: int = 1) -> float:
    """Return the median of the seconds of several calls."""
    taken: list[float] = []
    for _ in range(times):
        begin = time.perf_counter()
        work()
        taken.append(time.perf_counter() - begin)
    return median(taken)


def automata(vocabulary: Vocabulary) -> TokenAutomaton:
    """Print the size of each schema's automaton and the seconds of making it; return the automaton of the first."""
    print(f"{'':36}states classes transitions | seconds: bytes  tokens  from disk")
    with TemporaryDirectory() as folder:
        store.folder = lambda: Path(folder)
        for name, schema in SCHEMAS.items():
            constraint = JsonSchema(schema)
            bytewise = compiled(described(constraint).expression)
            made = over_tokens(bytewise, vocabulary.token_bytes, STOPS)
            in_bytes = seconds(lambda constraint=constraint: compiled(described(constraint).expression))
            in_tokens = seconds(lambda bytewise=bytewise: over_tokens(bytewise, vocabulary.token_bytes, STOPS))
            automaton_of(constraint, vocabulary, STOPS, False)
            automaton_of.cache_clear()
            loading = seconds(lambda constraint=constraint: automaton_of(constraint, vocabulary, STOPS, False))
            print(
                f"{name:36}{made.states:6} {made.class_count:7} {len(made.targets):11} |        "
                f"{in_bytes:7.2f} {in_tokens:7.2f} {loading:10.3f}"
            )
        return automaton_of(JsonSchema(SCHEMAS["20 fields of all kinds"]), vocabulary, STOPS, False)


def model() -> DiffusionGemma:
    """Return a sliding and a full layer of the release's width, with random weights in float32."""
    made = DiffusionGemma(parse_config(make_config(2, "full")))
    # Small uniform weights make a calm network, whose head is unsure.
    made.apply(lambda weight: mx.random.uniform(-0.01, 0.01, weight.shape) + (weight.ndim == 1))
    mx.eval(made.parameters())
    return made


def steps(made: DiffusionGemma, layers: list[int], spans: tuple[ConstrainedSpan, ...], count: int) -> float:
    """Return the seconds of a step through some of the model's layers."""
    decoder, every, config = made.model.decoder, list(made.model.decoder.layers), made.config
    decoder.layers = [every[index] for index in layers]
    cache = Cache(tuple(config.layers[index] for index in layers), config.sliding_window)
    options = GenerationConfig(max_steps=count + 2, confidence_threshold=1e-9)
    canvas = Canvas.start(
        cache, default_rules(made, options), seed=0, block=0, length=CANVAS, forbidden=[], spans=spans
    )
    times = [time.perf_counter()]
    for _ in refine(made, [canvas]):
        times.append(time.perf_counter())
    decoder.layers = every
    # The first step has no signal, and the last does not build the next one.
    return median(np.diff(times)[1:-1])


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Print the automata, the parts of a step, and the fraction of the constraint."""
    parser.add_argument("--automata-only", action="store_true")
    parser.add_argument("--steps", type=int, default=5, help="steps, of which the median is taken")
    parser.add_argument("--assert", dest="asserted", action="store_true", help="exit with 1 above 15 %% of a step")
    options = parser.parse_args(words)
    automaton = automata(Vocabulary(token_bytes=pieces()))
    if options.automata_only:
        return
    made = model()
    own = ConstrainedSpan(automaton=automaton, state=0, positions=slice(0, CANVAS), min_tokens=0, max_tokens=CANVAS)
    one, two, both = (steps(made, layers, (), options.steps) for layers in ([0], [0, 0], [0, 1]))
    sliding, full = two - one, both - one
    rest = one - sliding
    step = rest + SLIDING * sliding + FULL * full
    print(f"a step of {CANVAS}: {rest:.2f} s without layers, {sliding:.2f} s a sliding and {full:.2f} s a full layer")
    print(f"a step of {SLIDING} + {FULL} layers: {step:.2f} s")
    hidden = mx.random.normal((1, CANVAS, made.config.hidden_size))
    logits = made.processed_logits(hidden, 0.8)
    sampler = default_rules(made, GenerationConfig()).sampler
    draft = sampler.step(logits, sampler.start((1, CANVAS), mx.random.key(0)), mx.random.key(1))
    mx.eval(draft)
    alone = seconds(lambda: mx.eval(constrain(logits, draft, [(own,)])), options.steps)
    held = steps(made, [0, 1], (own,), options.steps)
    print(f"the constraint alone: {alone:.3f} s; in a step of two layers: {held:.2f} s with it, {both:.2f} s without")
    cost = max(alone, held - both)
    print(f"the constraint takes {100 * cost / step:.1f} % of a step")
    if options.asserted and cost > TARGET * step:
        raise SystemExit(1)
