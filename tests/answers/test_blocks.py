"""What happens at the borders of canvases: empty answers, canvases that are cut short, and answers that are checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mlx.core as mx
import pytest
from threaded import taken_in_threads
from tiny import Doubting, ScriptedModel, Shrinking, denoised, encoded, random_model

from mlx_diffgemma.errors import PromptError
from mlx_diffgemma.events import BlockCommitted, CanvasStarted, Denoised, Event, Finished, Prefilled
from mlx_diffgemma.generation.engine import stream, stream_many
from mlx_diffgemma.generation.job import Job, check_lengths
from mlx_diffgemma.generation_config import GenerationConfig
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.diffusion_gemma import DiffusionGemma
from mlx_diffgemma.model.logits import ProcessedLogits

STOP = 9
CONFIG = GenerationConfig(max_tokens=100, stop_tokens=(STOP,), max_steps=6)
A, EMPTY, ENDED = [1, 2, 3, 4], [STOP, 2, 3, 4], [1, STOP, 3, 4]


def run(model: Any, config: GenerationConfig = CONFIG, prompt: Sequence[int] = (10, 11)) -> list[Event]:
    return list(stream(model, prompt, config))


def of(kind: type, events: list[Event]) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def tokens(events: list[Event]) -> tuple[int, ...]:
    return sum((block.tokens for block in of(BlockCommitted, events)), ())


# empty answers


def test_an_end_token_cannot_be_the_first_of_the_answer() -> None:
    """The script is sure of it; the next best is one of the other tokens."""
    events = run(ScriptedModel([EMPTY, EMPTY, ENDED, ENDED]))
    assert STOP not in {event.best[0] for event in of(Denoised, events)}
    assert len(tokens(events)) > 1


def test_an_empty_answer_is_possible_where_it_is_allowed() -> None:
    assert tokens(run(ScriptedModel([EMPTY, EMPTY]), replace(CONFIG, allow_empty=True))) == (STOP,)


def test_later_canvases_may_begin_with_an_end_token() -> None:
    assert tokens(run(ScriptedModel([A, A, EMPTY, EMPTY]))) == (*A, STOP)


def test_the_forbidden_token_does_not_condition_the_next_step() -> None:
    class Listening(ScriptedModel):
        heard: ProcessedLogits

        def signal(
            self, processed: ProcessedLogits, top_k: int | None = None, total: mx.array | None = None
        ) -> mx.array:
            self.heard = processed
            return super().signal(processed)

    model = Listening([EMPTY, EMPTY, ENDED, ENDED])
    next(event for event in stream(model, [10], CONFIG) if isinstance(event, Denoised))
    assert model.heard.probabilities(mx.float32)[0, 0, STOP].item() < 1e-30
    assert model.heard.probabilities(mx.float32)[0, 1, 2].item() > 0.99


@pytest.mark.parametrize(
    ("script", "expected", "reason"),
    [
        ([[0] * 4, [0] * 4], (), "empty"),
        ([A, A, [0] * 4, [0] * 4], tuple(A), "stop"),
        ([[0, 1, 0, 0], [0, 1, 0, 0], ENDED, ENDED], (1, *ENDED[:2]), "stop"),
        ([[0, 0, STOP, 5]] * 2, (STOP,), "stop"),
    ],
)
def test_a_canvas_of_padding_ends_the_answer_and_padding_is_no_token_of_it(
    script: list[list[int]], expected: tuple[int, ...], reason: str
) -> None:
    job = Job(tokens=[10, 11], config=CONFIG, padding=0)
    events = [event for _, event in stream_many(ScriptedModel(script), [job])]  # type: ignore[arg-type]
    assert tokens(events) == expected
    finished = of(Finished, events)[0]
    assert (finished.reason, finished.stats.tokens) == (reason, len(expected))
    assert of(BlockCommitted, events)[-1].last
    for block in of(BlockCommitted, events):
        assert len(block.probabilities) in (0, len(block.tokens))


def test_padding_is_no_token_of_a_causal_answer_either() -> None:
    config = GenerationConfig(max_tokens=40, mode="causal", seed=1, stop_tokens=())
    plain = Job(tokens=[10, 11], config=config)
    drawn = tokens([event for _, event in stream_many(random_model(), [plain])])
    padding = drawn[3]
    events = [event for _, event in stream_many(random_model(), [replace(plain, padding=padding)])]
    assert tokens(events) == tuple(token for token in drawn if token != padding)
    assert of(Finished, events)[0].stats.tokens == len(tokens(events)) < len(drawn) == 40


# canvases that are cut short


def test_no_position_is_denoised_that_max_tokens_has_no_room_for() -> None:
    config = replace(CONFIG, max_tokens=21, max_steps=2, stop_tokens=())
    lengths = [len(event.canvas) for event in of(CanvasStarted, run(random_model(), replace(config, trim=True)))]
    assert lengths == [16, 5]


@pytest.mark.parametrize(
    ("first", "canvas_length", "expected"),
    [
        (2, None, [2, 4, 8, 16, 16, 10]),
        (5, None, [5, 10, 16, 16, 9]),
        (3, 8, [3, 6, 8, 8, 8, 8, 8, 7]),
        # As long as a canvas, or longer: all canvases are alike.
        (16, None, [16, 16, 16, 8]),
        (500, None, [16, 16, 16, 8]),
    ],
)
def test_canvases_grow_from_the_first_to_the_longest(
    first: int, canvas_length: int | None, expected: list[int]
) -> None:
    config = replace(
        CONFIG, max_tokens=56, max_steps=1, stop_tokens=(), first_canvas=first, canvas_length=canvas_length
    )
    events = run(random_model(), config)
    # What max_tokens has no room for is denoised, and not shown.
    assert [len(event.canvas) for event in of(CanvasStarted, events)] == expected
    assert len(tokens(events)) == 56


def test_a_first_canvas_that_is_no_shorter_changes_no_token() -> None:
    config = replace(CONFIG, max_tokens=40, max_steps=2, stop_tokens=())
    assert tokens(run(random_model(), replace(config, first_canvas=16))) == tokens(run(random_model(), config))


def test_the_positions_of_growing_canvases_must_fit_the_context() -> None:
    """Canvases of 2, 4, 8, 16 and 16 positions are the first that hold 40 tokens: 46, and 48 without the small ones."""
    model, config = random_model(), replace(CONFIG, max_tokens=40, first_canvas=2)
    longest = model.config.max_position_embeddings
    check_lengths(model, Job(tokens=[1] * (longest - 46), config=config))
    with pytest.raises(PromptError, match=f"in canvases of 16 need {longest + 1} positions"):
        check_lengths(model, Job(tokens=[1] * (longest - 45), config=config))
    with pytest.raises(PromptError, match=f"need {longest + 2} positions"):
        check_lengths(model, Job(tokens=[1] * (longest - 46), config=replace(config, first_canvas=None)))


ENDED_SOON = [A, *[ENDED] * 5]


def test_what_stands_behind_a_settled_end_token_is_dropped() -> None:
    events = run(Shrinking(ENDED_SOON), replace(CONFIG, trim=True))
    assert [len(event.best) for event in of(Denoised, events)] == [4, 4, 4, 2, 2, 2]
    assert tokens(events) == (1, STOP)
    assert [len(event.best) for event in of(Denoised, run(Shrinking(ENDED_SOON)))] == [4] * 6


def test_canvases_are_cut_short_in_any_thread() -> None:
    config = replace(CONFIG, trim=True)
    taken = taken_in_threads(stream(Shrinking(ENDED_SOON), [10, 11], config))
    expected = run(Shrinking(ENDED_SOON), config)
    assert [event.best for event in of(Denoised, taken)] == [event.best for event in of(Denoised, expected)]


# answers that are checked


VERIFIED = replace(CONFIG, verify=0.5)


def test_an_answer_without_doubts_is_committed_as_it_is() -> None:
    model = Doubting([ENDED, ENDED], doubted=[99])
    assert tokens(run(model, VERIFIED)) == (1, STOP)
    assert model.encoded == [[10], [11]]
    assert model.peeked == [[1, STOP]]


def test_a_block_is_cut_before_its_first_doubtful_token() -> None:
    """Position 2 is doubted: two tokens are kept, and the rest is denoised again after them."""
    model = Doubting([A, A, [3, STOP, 3, 4], [3, STOP, 3, 4]], doubted=[2])
    events = run(model, VERIFIED)
    blocks = of(BlockCommitted, events)
    assert blocks[0].tokens == (1, 2)
    assert not blocks[0].last
    assert [started.block for started in of(CanvasStarted, events)][:2] == [0, 1]


def test_a_canvas_whose_first_token_is_doubted_is_given_up_twice_at_most() -> None:
    model = Doubting([ENDED] * 6, doubted=[0])
    events = run(model, VERIFIED)
    assert [block.tokens for block in of(BlockCommitted, events)] == [(), (), (1, STOP)]
    assert of(Finished, events)[0].reason == "stop"


def test_an_end_token_that_is_doubted_ends_nothing() -> None:
    blocks = of(BlockCommitted, run(Doubting([ENDED, ENDED, [STOP, 2, 3, 4], [STOP, 2, 3, 4]], doubted=[1]), VERIFIED))
    assert blocks[0].tokens == (1,)
    assert not blocks[0].last


@pytest.mark.parametrize(("verify", "blocks"), [(1e-9, 2), (0.9, 7)])
def test_a_checked_answer_of_a_real_model_leaves_the_cache_as_encoding_its_tokens_does(
    verify: float, blocks: int
) -> None:
    """The next canvas's logits tell: they depend on all that the cache holds."""
    model = random_model()
    config = GenerationConfig(max_tokens=40, max_steps=3, stop_tokens=(), verify=verify)
    caches: list[Cache] = []
    make = model.make_cache
    model.make_cache = lambda: caches.append(make()) or caches[-1]  # type: ignore[method-assign]
    committed: list[int] = []
    for event in stream(model, [5, 6, 7], config):
        if isinstance(event, BlockCommitted):
            committed += event.tokens
        if isinstance(event, CanvasStarted) and event.block == blocks:
            break
    assert len(committed) == (32 if blocks == 2 else 2)
    plain = make()
    encoded(model, mx.array([[5, 6, 7, *committed]]), plain)
    canvas = mx.arange(16)[None]
    difference = mx.abs(denoised(model, canvas, caches[0]) - denoised(model, canvas, plain)).max().item()
    assert caches[0].offset == plain.offset
    assert difference < 1e-3


# one token after another


def greedy(model: DiffusionGemma, prompt: Sequence[int], count: int) -> list[int]:
    """The whole text, encoded again for every token."""
    text = list(prompt)
    for _ in range(count):
        logits = model.logits(encoded(model, mx.array([text]), model.make_cache()))
        text.append(int(mx.argmax(logits[0, -1]).item()))
    return text[len(prompt) :]


CAUSAL = GenerationConfig(mode="causal", max_tokens=40, stop_tokens=(), greedy=True)


def test_causal_mode_writes_what_encoding_everything_anew_predicts() -> None:
    """Beyond the sliding window too."""
    model = random_model()
    assert tokens(run(model, CAUSAL)) == tuple(greedy(model, (10, 11), 40))
    assert tokens(run(model, replace(CAUSAL, greedy=False, temperature=0))) == tokens(run(model, CAUSAL))


def test_causal_mode_ends_at_an_end_token_or_at_max_tokens() -> None:
    model = random_model()
    expected = greedy(model, (10, 11), 40)
    end = expected[7]
    events = run(model, replace(CAUSAL, stop_tokens=(end,)))
    assert tokens(events) == tuple(expected[: expected.index(end) + 1]) or expected.index(end) == 0
    assert of(Finished, events)[0].reason == "stop"
    assert of(Finished, run(model, CAUSAL))[0].reason == "length"


def test_causal_events_are_blocks_of_one_token_and_one_step() -> None:
    events = run(random_model(), replace(CAUSAL, max_tokens=3))
    assert [type(event) for event in events] == [Prefilled, Prefilled, *[BlockCommitted] * 3, Finished]
    blocks = of(BlockCommitted, events)
    assert [(block.block, block.steps, len(block.tokens), block.last) for block in blocks] == [
        (0, 1, 1, False),
        (1, 1, 1, False),
        (2, 1, 1, True),
    ]
    assert of(Finished, events)[0].stats.tokens_per_forward == 1


def test_a_causal_draw_depends_on_its_seed_and_follows_the_temperature() -> None:
    model = random_model()
    greedy = replace(CAUSAL, max_tokens=12)
    drawn = replace(greedy, greedy=False, top_p=1.0)
    once, again, other = (tokens(run(model, replace(drawn, seed=seed))) for seed in (1, 1, 2))
    assert once == again != other
    expected = tokens(run(model, greedy))
    assert tokens(run(model, replace(drawn, temperature=0.001))) == expected
    assert tokens(run(model, replace(drawn, top_p=1e-9))) == expected
