"""The loop on scripted predictions: what ends a canvas, what ends an answer, what is encoded."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import pytest
from threaded import taken_in_threads
from tiny import FULL, SLIDING, ScriptedModel, encoded, random_model, tiny_config

from mlx_diffgemma.errors import OptionError, PromptError, WeightsError
from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event, Finished, Prefilled
from mlx_diffgemma.generation.engine import Job, stream, stream_many
from mlx_diffgemma.generation.prefill import prefill
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import CanvasRow, DiffusionGemma
from mlx_diffgemma.model.kernels import default_kernels
from mlx_diffgemma.model.logits import ProcessedLogits
from mlx_diffgemma.sampling.canvas import Canvas, Endings
from mlx_diffgemma.sampling.denoising import refine
from mlx_diffgemma.sampling.sampler import EntropyBoundSampler
from mlx_diffgemma.sampling.strategy import default_rules

STOP = 9
A, B, C = [1, 2, 3, 4], [5, 6, 7, 8], [1, STOP, 3, 4]
CONFIG = GenerationConfig(max_tokens=100, stop_tokens=(STOP,), max_steps=6)


def run(model: Any, prompt: list[int] | None = None, config: GenerationConfig = CONFIG) -> list[Event]:
    return list(stream(model, prompt or [10, 11], config))


def of(kind: type, events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def test_a_canvas_ends_when_its_prediction_repeats() -> None:
    model = ScriptedModel([A, B, B, C, C])
    events = run(model)
    assert [block.steps for block in of(BlockCommitted, events)] == [3, 2]
    assert [block.tokens for block in of(BlockCommitted, events)] == [(5, 6, 7, 8), (1, STOP)]


def test_events_come_in_the_order_of_their_happening() -> None:
    kinds = [type(event) for event in run(ScriptedModel([A, A, C, C]))]
    block = [CanvasStarted, Denoised, Denoised, BlockCommitted]
    assert kinds == [Prefilled, *block, *block, Finished]


def test_a_canvas_ends_at_max_steps_whatever_it_says() -> None:
    model = ScriptedModel([A, B, A, C], margin=30)
    blocks = of(BlockCommitted, run(model, config=replace(CONFIG, max_steps=4)))
    assert [block.steps for block in blocks] == [4]
    assert blocks[0].tokens == (1, STOP)


def test_an_uncertain_canvas_does_not_end_though_it_repeats() -> None:
    model = ScriptedModel([A] * 6 + [C] * 6, margin=2)
    assert [block.steps for block in of(BlockCommitted, run(model))] == [6, 6]


def test_the_answer_is_cut_behind_its_end_token() -> None:
    events = run(ScriptedModel([C, C]))
    assert of(BlockCommitted, events)[0].tokens == (1, STOP)
    assert of(Finished, events)[0].reason == "stop"


@pytest.mark.parametrize(
    ("max_tokens", "tokens", "reason"),
    [
        (3, (1, 2, 3), "length"),
        (4, (1, 2, 3, 4), "length"),
        (5, (1, 2, 3, 4, 1), "length"),
        (6, (1, 2, 3, 4, 1, 9), "stop"),
    ],
)
def test_tokens_beyond_max_tokens_are_cut(max_tokens: int, tokens: tuple[int, ...], reason: str) -> None:
    events = run(ScriptedModel([A, A, C, C]), config=replace(CONFIG, max_tokens=max_tokens))
    assert sum((block.tokens for block in of(BlockCommitted, events)), ()) == tokens
    assert of(Finished, events)[0].reason == reason
    assert of(Finished, events)[0].stats.tokens == len(tokens)


def test_whole_blocks_are_encoded_and_the_last_one_is_not() -> None:
    model = ScriptedModel([A, A, B, B, C, C])
    run(model, [10, 11])
    assert model.encoded == [[10, 11], A, B]


def test_only_the_last_block_says_that_none_follows() -> None:
    assert [block.last for block in of(BlockCommitted, run(ScriptedModel([A, A, C, C])))] == [False, True]


def test_denoised_events_tell_what_changed_and_where_the_end_is() -> None:
    first, second, third = of(Denoised, run(ScriptedModel([A, C, C])))
    assert first.changed == (True, True, True, True)
    assert second.changed == (False, True, False, False)
    assert third.changed == (False, False, False, False)
    assert (first.end, second.end) == (None, 1)
    assert second.accepted == (True, True, True, True)
    assert second.mean_entropy == pytest.approx(0, abs=1e-6)


def test_stats_count_what_happened() -> None:
    stats = of(Finished, run(ScriptedModel([A, A, A, B, B, C, C]), [10, 11, 12]))[0].stats
    assert (stats.prompt_tokens, stats.tokens, stats.blocks, stats.steps_per_block) == (3, 10, 3, (2, 3, 2))
    assert stats.tokens_per_forward == pytest.approx(10 / 7)
    assert 0 < stats.prefill_seconds < stats.seconds_to_first_block < stats.seconds
    assert stats.tokens_per_second == pytest.approx(10 / stats.seconds)
    assert stats.seconds_per_step * 7 == pytest.approx(stats.seconds - stats.prefill_seconds, rel=0.05)
    assert stats.peak_memory > 0


@pytest.mark.parametrize("width", [2, 3, 8])
def test_answers_side_by_side_are_those_given_alone(width: int) -> None:
    """Prompts, canvases and budgets of different lengths, more of them than stand side by side."""
    together: dict[int, list[Event]] = {number: [] for number in range(5)}
    for number, event in stream_many(random_model(), VARIED_JOBS, width=width):
        together[number].append(event)
    for number, alone in enumerate(answered_alone()):
        assert [untimed(event) for event in together[number]] == alone
    assert len({len(events) for events in together.values()}) > 2


VARIED = GenerationConfig(max_steps=6, stop_tokens=(3,), entropy_bound=5.0, t_min=0.01, t_max=0.02)
VARIED_JOBS = [
    Job(tokens=list(range(1, 2 + 5 * n)), config=replace(VARIED, seed=n, max_tokens=10 + 9 * n, canvas_length=16 - n))
    for n in range(5)
]


@functools.cache
def answered_alone() -> list[list[Event]]:
    """The events of each of the varied jobs, answered by itself."""
    model = random_model()
    return [[untimed(event) for event in stream(model, job.tokens, job.config)] for job in VARIED_JOBS]


def untimed(event: Event) -> Event:
    """Figures of time and rounding left out: other shapes of the same products are rounded differently."""
    match event:
        case Finished():
            return replace(event, stats=replace(event.stats, **TIMELESS))
        case Denoised():
            return replace(event, mean_entropy=round(event.mean_entropy, 3))
        case _:
            return event


TIMELESS = {
    "prefill_seconds": 0.0,
    "seconds_to_first_block": 0.0,
    "seconds": 0.0,
    "seconds_per_step": 0.0,
    "peak_memory": 0,
}


def test_every_event_of_answers_side_by_side_may_be_taken_by_another_thread() -> None:
    model = random_model()
    configs = [GenerationConfig(max_tokens=12 + 9 * n, max_steps=4, seed=n, trim=n == 1) for n in range(4)]
    jobs = [Job(tokens=list(range(1, 3 + n)), config=config) for n, config in enumerate(configs)]
    together: dict[int, list[Event]] = {number: [] for number in range(4)}
    for number, event in taken_in_threads(stream_many(model, jobs, width=3)):
        together[number].append(event)
    for number, job in enumerate(jobs):
        alone = [untimed(event) for event in stream(model, job.tokens, job.config)]
        assert [untimed(event) for event in together[number]] == alone


def test_jobs_that_cannot_be_answered_are_named_when_their_turn_comes() -> None:
    jobs = [Job(tokens=tokens, config=GenerationConfig(max_tokens=16, max_steps=2)) for tokens in ([1], [2], [64])]
    with pytest.raises(PromptError, match="token id 64 is outside"):
        list(stream_many(random_model(), jobs, width=2))


def test_when_one_is_finished_the_next_begins() -> None:
    order = [
        (number, type(event))
        for number, event in stream_many(
            random_model(),
            [Job(tokens=[1], config=GenerationConfig(max_tokens=16 * blocks, max_steps=2)) for blocks in (3, 1, 1)],
            width=2,
        )
        if isinstance(event, Prefilled | Finished)
    ]
    assert order == [(0, Prefilled), (1, Prefilled), (1, Finished), (2, Prefilled), (2, Finished), (0, Finished)]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_model_that_computes_no_numbers_is_an_error(bad: float) -> None:
    model = random_model()
    model.model.decoder.norm.weight = model.model.decoder.norm.weight * bad
    with pytest.raises(WeightsError, match="its weights hold NaN or Inf"):
        run(model)


class Wide:
    """A head over a wide vocabulary and nothing else."""

    def __init__(self, vocabulary: int) -> None:
        self.table = mx.random.normal((vocabulary, 4), key=mx.random.key(0))
        mx.eval(self.table)

    def denoise(self, rows: Sequence[CanvasRow]) -> list[mx.array]:
        return [self.table[row.canvas] if row.signal is None else row.signal for row in rows]

    config = SimpleNamespace(vocab_size=2**16)

    def processed_logits(self, hidden: mx.array, temperature: list[float]) -> ProcessedLogits:
        return ProcessedLogits(hidden @ self.table.T, temperature, 30.0, default_kernels())

    def signal(self, processed: ProcessedLogits, top_k: int | None = None, total: mx.array | None = None) -> mx.array:
        return processed.probabilities(mx.float32) @ self.table


def test_a_step_holds_few_arrays_over_the_vocabulary() -> None:
    """Each is 268 MB at full size: the logits, the parts that are made of them, and these joined."""
    vocabulary, length = 2**16, 64
    config = replace(CONFIG, max_steps=4)
    sampler = EntropyBoundSampler(vocab_size=vocabulary, entropy_bound=0.1)
    rules = replace(default_rules(random_model(), config), sampler=sampler)
    canvas = Canvas.start(Cache((), 1), rules, seed=0, block=0, length=length, forbidden=[])
    model = Wide(vocabulary)
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    for _ in refine(model, [canvas]):
        pass
    copies = (mx.get_peak_memory() - before) / (vocabulary * length * 4)
    assert copies < 3.5


def test_the_same_seed_gives_the_same_tokens_and_another_seed_others() -> None:
    model = random_model()
    config = GenerationConfig(max_tokens=40, max_steps=5, stop_tokens=())
    once, again = (of(BlockCommitted, run(model, config=config)) for _ in range(2))
    other = of(BlockCommitted, run(model, config=replace(config, seed=1)))
    assert once == again
    assert [block.tokens for block in once] != [block.tokens for block in other]


def test_a_shorter_canvas_gives_more_blocks() -> None:
    config = GenerationConfig(max_tokens=24, max_steps=2, canvas_length=6, stop_tokens=())
    blocks = of(BlockCommitted, run(random_model(), config=config))
    assert [len(block.tokens) for block in blocks] == [6, 6, 6, 6]


def two_layers() -> DiffusionGemma:
    """A model for prompts of thousands of tokens: a layer of each kind, of one head."""
    layers = replace(SLIDING, num_key_value_heads=1), FULL
    return random_model(tiny_config(layers=layers, num_attention_heads=1))


def test_prefill_reports_every_chunk_and_fills_the_cache() -> None:
    model = two_layers()
    tokens = mx.random.randint(0, 64, (1, 2048 + 300), key=mx.random.key(0))
    cache = model.make_cache()
    assert list(prefill(model, [tokens], [cache])) == [{0: 2048}, {0: 2348}]
    assert cache.offset == 2348
    assert cache.layers[1].length == 2348


def test_prompts_that_are_encoded_together_are_in_their_caches_as_alone() -> None:
    """After prefixes of their own, beyond the window; a long one goes by itself while others would be too many."""
    model = two_layers()
    lengths, known = (3, 2048 + 30, 21, 9), (0, 5, 12, 0)
    prompts = [mx.random.randint(0, 64, (1, length), key=mx.random.key(length)) for length in lengths]
    alone, together = ([model.make_cache() for _ in lengths] for _ in range(2))
    for caches in (alone, together):
        for cache, length in zip(caches, known, strict=True):
            if length:
                encoded(model, mx.arange(length)[None], cache)
    for prompt, cache in zip(prompts, alone, strict=True):
        assert list(prefill(model, [prompt], [cache]))[-1] == {0: prompt.shape[1]}
    assert list(prefill(model, prompts, together)) == [{0: 3}, {1: 2048}, {1: 2078, 2: 21, 3: 9}]
    for one, other in zip(alone, together, strict=True):
        assert one.offset == other.offset
        for expected, given in zip(one.arrays, other.arrays, strict=True):
            assert mx.allclose(expected, given, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("prompt", "config", "message"),
    [
        ([], CONFIG, "empty"),
        (
            [1] * 950,
            CONFIG,
            "950 prompt tokens and max_tokens=100 in canvases of 4 need 1050 positions, the model has 1000",
        ),
        ([32], CONFIG, "token id 32 is outside"),
    ],
)
def test_prompts_that_cannot_be_answered_are_named(prompt: list[int], config: GenerationConfig, message: str) -> None:
    with pytest.raises(PromptError, match=message):
        next(stream(ScriptedModel([A]), prompt, config))


def test_a_canvas_longer_than_the_models_is_refused() -> None:
    with pytest.raises(OptionError, match="canvas_length=5 is longer than the 4 positions"):
        run(ScriptedModel([A]), config=replace(CONFIG, canvas_length=5))


def test_positions_beyond_max_tokens_are_on_no_canvas_that_is_shown() -> None:
    events = run(ScriptedModel([A, A, C, C]), config=replace(CONFIG, max_tokens=5))
    lengths = [len(event.best) for event in of(Denoised, events)]
    assert lengths == [4, 4, 1, 1]
    assert [len(event.canvas) for event in of(CanvasStarted, events)] == [4, 1]
    assert all(len(event.accepted) == len(event.changed) == len(event.best) for event in of(Denoised, events))
    assert of(Denoised, events)[-1].end is None


def test_a_canvas_without_an_end_token_is_kept_whole() -> None:
    endings = Endings(tokens=(STOP,))
    assert endings.cut(A) == ((1, 2, 3, 4), False)
    assert endings.cut(C) == ((1, STOP), True)
    assert endings.cut([STOP, STOP]) == ((STOP,), True)
