"""The acceptance rule on canvases small enough to work by hand, and the draws."""

from __future__ import annotations

import math

import mlx.core as mx
import pytest
from tiny import processed

from mlx_diffgemma.sampling.sampler import EntropyBoundSampler, accept, make_draft, random_key


def logits(*probabilities: list[float]) -> mx.array:
    """[1, C, V]"""
    return mx.log(mx.array([probabilities]))


CANVAS = logits(
    [0.97, 0.01, 0.01, 0.01], [0.25, 0.25, 0.25, 0.25], [0.01, 0.99 - 0.02, 0.01, 0.01], [0.1, 0.1, 0.1, 0.7]
)


@pytest.mark.parametrize(
    ("bound", "accepted"),
    [
        # Ascending entropies 0.1, 0.2, 0.4, 0.9 at positions 2, 0, 3, 1; before each stand 0, 0.1, 0.3, 0.7.
        (0.0, [False, False, True, False]),
        (0.09, [False, False, True, False]),
        (0.11, [True, False, True, False]),
        (0.29, [True, False, True, False]),
        (0.31, [True, False, True, True]),
        (0.69, [True, False, True, True]),
        (0.71, [True, True, True, True]),
    ],
)
def test_the_most_certain_positions_are_accepted_up_to_the_bound(bound: float, accepted: list[bool]) -> None:
    assert accept(mx.array([[0.2, 0.9, 0.1, 0.4]]), bound).tolist() == [accepted]


def test_rows_of_a_batch_are_judged_apart() -> None:
    entropy = mx.array([[0.0, 0.0], [5.0, 4.0]])
    assert accept(entropy, 0.1).tolist() == [[True, True], [False, True]]


def test_accepted_positions_take_the_draw_and_others_fresh_noise() -> None:
    reading = processed(CANVAS).read(mx.zeros((1, 4)))._replace(drawn=mx.array([[3, 3, 3, 3]]))
    draft = make_draft(reading, mx.array([[7, 8, 9, 10]]), entropy_bound=0.2)
    assert draft.accepted.tolist() == [[True, False, True, False]]
    assert draft.canvas.tolist() == [[3, 8, 3, 10]]
    assert draft.best.tolist()[0][0] == 0
    assert draft.best.tolist()[0][2:] == [1, 3]


def test_greedy_positions_take_the_most_likely_token() -> None:
    sampler = EntropyBoundSampler(vocab_size=4, entropy_bound=100.0, greedy=True)
    for step in range(5):
        draft = sampler.step(processed(CANVAS), mx.zeros((1, 4)), random_key(0, 0, step))
        assert draft.canvas.tolist() == draft.best.tolist()


def test_draws_follow_the_distribution() -> None:
    sampler = EntropyBoundSampler(vocab_size=4, entropy_bound=1e9)
    same = mx.repeat(logits([0.1, 0.2, 0.3, 0.4]), 4000, axis=1)
    drawn = sampler.step(processed(same), mx.zeros((1, 4000)), random_key(3, 0, 1)).canvas
    for token, probability in enumerate([0.1, 0.2, 0.3, 0.4]):
        share = mx.mean((drawn == token).astype(mx.float32)).item()
        # Four standard deviations of a share of 4000 draws.
        assert abs(share - probability) < 4 * math.sqrt(probability * (1 - probability) / 4000)


def test_a_canvas_begins_as_noise_over_the_whole_vocabulary() -> None:
    canvas = EntropyBoundSampler(vocab_size=50, entropy_bound=0.1).start((2, 2000), random_key(0, 0, 0))
    assert canvas.shape == (2, 2000)
    assert set(canvas.flatten().tolist()) == set(range(50))


def test_keys_depend_on_seed_block_and_step_and_nothing_else() -> None:
    coordinates = [(seed, block, step) for seed in (0, 1, 2**40) for block in (0, 1) for step in (0, 1, 2)]
    keys = {tuple(random_key(*where).tolist()) for where in coordinates}
    assert len(keys) == len(coordinates)
    assert random_key(5, 2, 3).tolist() == random_key(5, 2, 3).tolist()


def test_keys_are_the_same_on_every_machine() -> None:
    assert random_key(0, 0, 0).tolist() == FIRST_KEY
    assert random_key(7, 1, 48).tolist() == OTHER_KEY


FIRST_KEY = [4088532484, 613525653]
OTHER_KEY = [3915900407, 124782552]
