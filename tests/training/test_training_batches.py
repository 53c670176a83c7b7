"""What a step sees: all from (seed, step), every example once per epoch, blocks cut and corrupted as the rule says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import mlx.core as mx
import numpy as np
import pytest

from mlx_diffgemma.training.batches import (
    LOWEST_NOISE,
    POOL,
    STRIDE,
    Batches,
    CutExample,
    corrupt,
    cut_example,
    padded_length,
)
from mlx_diffgemma.training.data import Example
from mlx_diffgemma.training.objective import Batch

CANVAS, VOCABULARY, PAD, END, FIRST = 4, 600, 0, 1, 100
"""Example n begins with the token FIRST + n, which is nowhere else."""


def example(number: int, prompt: int, response: int) -> Example:
    """Prompt and response of these sizes; the response counts up from 50 and ends with END."""
    begin = np.array([FIRST + number, *[7] * (prompt - 1)], np.int32)
    return Example(prompt=begin, response=np.array([*range(50, 50 + response - 1), END], np.int32))


def batches(examples: Sequence[Example], rows: int, **changes: object) -> Batches:
    made = Batches(examples=examples, rows=rows, canvas=CANVAS, vocabulary=VOCABULARY, pad=PAD, seed=0)
    return replace(made, **changes)


def mixed(count: int) -> list[Example]:
    """Examples of lengths from 6 to 93, of one to six blocks."""
    return [example(number, 5 + number * 7 % 70, 1 + number % 23) for number in range(count)]


def seen(found: Batches, count: int) -> list[int]:
    """The examples in the first `count` batches."""
    return [int(row[0]) - FIRST for index in range(count) for row in np.array(found.batch(index).tokens)]


def same(first: Batch, second: Batch) -> bool:
    return all(mx.array_equal(one, other).item() for one, other in zip(first, second, strict=True))


# what depends on what


def test_the_same_seed_and_index_give_the_same_batch_in_any_order() -> None:
    found, again = batches(mixed(50), 3), batches(mixed(50), 3)
    forwards = [found.batch(index) for index in range(40)]
    backwards = [again.batch(index) for index in reversed(range(40))][::-1]
    assert all(map(same, forwards, backwards))
    assert [found.conditioned(index) for index in range(40)] == [again.conditioned(index) for index in range(40)]


def test_another_seed_or_index_gives_another_batch() -> None:
    found, other = batches(mixed(50), 3), batches(mixed(50), 3, seed=1)
    assert not any(same(found.batch(index), other.batch(index)) for index in range(8))
    assert not any(same(found.batch(index), found.batch(index + 1)) for index in range(8))


def test_the_noise_on_an_example_is_new_every_epoch() -> None:
    found = batches([example(0, 5, 4)], 1)
    noisy = [tuple(np.array(found.batch(index).noisy)[0].tolist()) for index in range(200)]
    assert len(set(noisy)) > 100


# epochs


@pytest.mark.parametrize(("count", "rows"), [(20, 4), (1, 1), (2 * POOL * 3, 3), (16, 8)])
def test_every_epoch_sees_every_example_once(count: int, rows: int) -> None:
    """Where an epoch is whole batches, and these are whole pools."""
    found = batches(mixed(count), rows)
    per_epoch = count // rows
    epochs = [seen(found, 3 * per_epoch)[epoch * count : (epoch + 1) * count] for epoch in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(count))] * 3
    assert count == 1 or epochs[0] != epochs[1]


def test_examples_that_do_not_fill_batches_are_seen_equally_often() -> None:
    """Ten examples in batches of four, three batches to a pool: after 60 places each was seen six times."""
    assert set(Counter(seen(batches(mixed(10), 4), 15)).values()) == {6}


@pytest.mark.parametrize(("count", "rows"), [(4, 4), (10, 4), (16, 8), (33, 8), (5, 1)])
def test_the_batches_of_one_epoch_hold_all_of_a_small_set(count: int, rows: int) -> None:
    """So a held-out loss is that of all held-out examples, and a batch is not one example many times."""
    found = batches(mixed(count), rows)
    assert set(seen(found, -(-count // rows))) == set(range(count))


def test_more_rows_than_examples_repeat_them() -> None:
    assert Counter(seen(batches(mixed(3), 6), 1)) == Counter({0: 2, 1: 2, 2: 2})


# blocks


def test_a_block_is_drawn_evenly_from_those_of_the_response() -> None:
    """10 tokens are 3 blocks of 4; each is drawn 1000 +- 26 times of 3000, and five deviations are allowed."""
    rng = np.random.default_rng(0)
    drawn = Counter(cut_example(example(0, 3, 10), CANVAS, rng).start for _ in range(3000))
    assert set(drawn) == {3, 7, 11}
    assert all(870 < count < 1130 for count in drawn.values())


def test_a_cut_ends_with_its_block() -> None:
    rng = np.random.default_rng(0)
    made: dict[int, CutExample] = {}
    for _ in range(50):
        found = cut_example(example(0, 3, 10), CANVAS, rng)
        made[found.start] = found
    response = [50, 51, 52, 53, 54, 55, 56, 57, 58, END]
    assert {start: each.tokens.tolist() for start, each in made.items()} == {
        start: [FIRST, 7, 7, *response[:end]] for start, end in ((3, 4), (7, 8), (11, 10))
    }
    assert {each.prompt for each in made.values()} == {3}


def rows_of(found: Batches) -> dict[int, dict[str, list[float]]]:
    """Rows of 60 batches by where their block starts."""
    rows: dict[int, dict[str, list[float]]] = {}
    for index in range(60):
        batch = found.batch(index)
        for row, start in enumerate(batch.starts.tolist()):
            rows[start] = {name: array[row].tolist() for name, array in batch._asdict().items() if array.ndim == 2}
    return rows


def test_the_canvas_is_the_clean_block_with_its_end_token_and_padding() -> None:
    rows = rows_of(batches([example(0, 3, 10)], 1))
    assert {start: row["canvas"] for start, row in rows.items()} == {
        3: [50, 51, 52, 53],
        7: [54, 55, 56, 57],
        11: [58, END, PAD, PAD],
    }
    # The sequence ends where the block does: nothing that follows is there to be seen.
    assert {start: row["tokens"] for start, row in rows.items()} == {
        3: [FIRST, 7, 7, 50, 51, 52, 53] + [PAD] * 25,
        7: [FIRST, 7, 7, 50, 51, 52, 53, 54, 55, 56, 57] + [PAD] * 21,
        11: [FIRST, 7, 7, 50, 51, 52, 53, 54, 55, 56, 57, 58, END] + [PAD] * 19,
    }


@pytest.mark.parametrize(("mask_prompt", "first"), [(False, 1), (True, 3)])
def test_the_causal_loss_counts_tokens_and_no_padding(mask_prompt: bool, first: int) -> None:
    """Nothing predicts the first token; with mask_prompt the prompt does not count either."""
    rows = rows_of(batches([example(0, 3, 10)], 1, mask_prompt=mask_prompt))
    for start, size in ((3, 7), (7, 11), (11, 13)):
        assert rows[start]["weights"] == [0] * first + [1] * (size - first) + [0] * (32 - size)


def test_shapes_and_kinds_are_those_of_a_batch() -> None:
    batch = batches(mixed(50), 3).batch(0)
    length = batch.tokens.shape[1]
    assert [array.shape for array in batch[:5]] == [(3, length), (3, length), (3,), (3, CANVAS), (3, CANVAS)]
    assert [array.dtype for array in batch] == [mx.int32, mx.float32, *[mx.int32] * 4, mx.float32]
    assert batch.denoised.tolist() == [1, 1, 1]


def test_a_text_is_whole_and_has_no_canvas() -> None:
    text = Example(prompt=np.array([FIRST], np.int32), response=np.arange(50, 60, dtype=np.int32), denoised=False)
    batch = batches([text], 1, mask_prompt=True).batch(0)
    assert batch.tokens[0, :11].tolist() == [FIRST, *range(50, 60)]
    assert batch.canvas.tolist() == [[PAD] * CANVAS]
    assert batch.denoised.tolist() == [0]
    assert batch.predicted[:10].tolist() == list(range(1, 11))


@pytest.mark.parametrize("mask_prompt", [False, True])
def test_predicted_are_the_tokens_that_count_filled_up_by_one_that_does_not(mask_prompt: bool) -> None:
    found = batches(mixed(50), 3, mask_prompt=mask_prompt)
    sizes = set()
    for index in range(20):
        batch = found.batch(index)
        weights, predicted = np.array(batch.weights).flatten(), np.array(batch.predicted)
        counted = np.flatnonzero(weights)
        assert np.array_equal(predicted[: counted.size], counted)
        assert not weights[predicted[counted.size :]].any()
        assert predicted.size % (3 * STRIDE) == 0
        assert predicted.size - counted.size < 3 * STRIDE
        sizes.add(predicted.size)
    assert len(sizes) <= 3


def test_lengths_are_padded_to_the_stride_and_no_further() -> None:
    found = batches(mixed(50), 3)
    lengths = set()
    for index in range(60):
        batch = found.batch(index)
        longest = int(batch.weights.sum(axis=1).max().item()) + 1
        assert 0 <= batch.tokens.shape[1] - longest < STRIDE
        assert batch.tokens.shape[1] % STRIDE == 0
        lengths.add(batch.tokens.shape[1])
    assert lengths == {32, 64, 96}


def test_a_sequence_that_fills_its_stride_is_not_padded() -> None:
    assert batches([example(0, 28, 4)], 1).batch(0).tokens.shape == (1, 32)
    assert batches([example(0, 29, 4)], 1).batch(0).tokens.shape == (1, 64)


def test_a_batch_holds_sequences_of_one_padded_length() -> None:
    """50 batches are one pool; sorted, only the two where one of the three lengths ends can hold another one too."""
    found = batches(mixed(200), 4)
    lengths = [
        {padded_length(int(size) + 1) for size in found.batch(index).weights.sum(axis=1).tolist()}
        for index in range(50)
    ]
    assert sum(len(each) > 1 for each in lengths) <= 2
    assert set.union(*lengths) == {32, 64, 96}
    # Batches are shuffled: their lengths do not only grow.
    longest = [max(each) for each in lengths]
    assert longest != sorted(longest)


def test_sequences_of_one_padded_length_are_mixed() -> None:
    """Otherwise a batch would hold one kind of example: here the lengths from 6 to 27 would stand in their order."""
    found = batches([example(number, 5 + number % 22, 1) for number in range(64)], 4)
    spans = [np.ptp(np.array(found.batch(index).weights.sum(axis=1))) for index in range(16)]
    assert np.mean(spans) > 6


# noise


def test_noise_replaces_a_share_of_a_row_that_is_uniform_over_all_shares() -> None:
    """4000 rows of 64: a row's share is off by 0.06 at most, the mean of uniform levels by 0.005 (one deviation)."""
    clean = np.full((4000, 64), 7, np.int32)
    noisy = corrupt(clean, VOCABULARY, np.random.default_rng(0))
    shares = (noisy != clean).mean(axis=1)
    # A replacement is the same token once in VOCABULARY times.
    assert shares.mean() == pytest.approx((1 + LOWEST_NOISE) / 2 * (1 - 1 / VOCABULARY), abs=0.02)
    counts, _ = np.histogram(shares, bins=10, range=(0, 1))
    assert counts.min() > 300
    assert counts.max() < 500
    assert shares.min() < 0.02
    assert shares.max() == 1


def test_a_noise_power_above_one_makes_noisy_canvases_frequent() -> None:
    """Levels below t have the probability t^4: the mean is 4/5, half of the levels are above 0.84."""
    clean = np.full((4000, 64), 7, np.int32)
    noisy = corrupt(clean, VOCABULARY, np.random.default_rng(0), 4.0)
    shares = (noisy != clean).mean(axis=1) / (1 - 1 / VOCABULARY)
    assert shares.mean() == pytest.approx(0.8, abs=0.01)
    assert (shares > 0.5**0.25).mean() == pytest.approx(0.5, abs=0.03)


def test_noise_is_uniform_over_the_whole_vocabulary() -> None:
    """About 128,000 replacements of 20 tokens: 6,400 +- 80 each; the clean token is one of them."""
    clean = np.full((4000, 64), 20, np.int32)
    noisy = corrupt(clean, 20, np.random.default_rng(1))
    counts = np.bincount(noisy[noisy != 20], minlength=20)
    assert counts.size == 20
    assert counts.min() > 0.93 * counts.mean()
    assert counts.max() < 1.07 * counts.mean()


def test_every_position_is_replaced_equally_often_the_padding_too() -> None:
    """4000 uniform levels: half, give or take 0.008 per position."""
    clean = np.array([[50, 51, END, PAD]] * 4000, np.int32)
    shares = (corrupt(clean, VOCABULARY, np.random.default_rng(2)) != clean).mean(axis=0)
    assert np.abs(shares - 0.5).max() < 0.04


def test_noise_leaves_the_clean_canvas_as_it_is() -> None:
    clean = np.full((8, 16), 7, np.int32)
    corrupt(clean, VOCABULARY, np.random.default_rng(0))
    assert (clean == 7).all()


def test_half_of_the_batches_are_conditioned() -> None:
    """2000 fair coins: 1000 +- 22; five deviations are allowed. Accumulated batches are not conditioned alike."""
    found = batches(mixed(5), 1)
    flags = [found.conditioned(index) for index in range(2000)]
    assert 890 < sum(flags) < 1110
    pairs = Counter(zip(flags[::2], flags[1::2], strict=True))
    assert min(pairs.values()) > 180
    assert len(pairs) == 4
