"""The store of prefixes, and one prefix by itself: what is found, what is dropped first."""

from __future__ import annotations

import random

import mlx.core as mx
import pytest

from mlx_diffgemma.errors import OptionError
from mlx_diffgemma.generation.prefixes import Prefixes
from mlx_diffgemma.model.cache import Cache
from mlx_diffgemma.model.config import LayerConfig
from mlx_diffgemma.model.prefix import BothSources, Prefix

LAYERS = (LayerConfig(kind="full_attention", head_dim=2, num_key_value_heads=1),)
SIZE = 2 * 256 * 2 * 4
"""bytes of a cache of up to 256 tokens: keys and values, head_dim 2, float32"""


def cache_of(count: int) -> Cache:
    cache = Cache(LAYERS, 8)
    cache.layers[0].write(mx.zeros((1, 1, count, 2)), mx.zeros((1, 1, count, 2)))
    cache.advance(count)
    return cache


def store_of(*prefixes: list[int], max_bytes: int = 100 * SIZE) -> tuple[Prefixes, list[Cache]]:
    store, caches = Prefixes(max_bytes), [cache_of(len(tokens)) for tokens in prefixes]
    for tokens, cache in zip(prefixes, caches, strict=True):
        store.keep(tokens, cache)
    return store, caches


def test_the_longest_kept_prefix_is_found() -> None:
    store, (short, long, other) = store_of([1, 2], [1, 2, 3, 4], [1, 2, 9])
    assert store.find([1, 2, 3, 4, 5]) is long
    assert store.find([1, 2, 3]) is short
    assert store.find([1, 2, 9]) is other
    assert store.find([1]) is None
    assert store.find([2, 1]) is None
    assert len(store) == 3
    assert store.nbytes == 3 * SIZE


@pytest.mark.parametrize("seed", range(30))
def test_what_is_found_is_what_a_list_of_all_prefixes_would_say(seed: int) -> None:
    chance = random.Random(seed)
    store, kept = Prefixes(1000 * SIZE), dict[tuple[int, ...], Cache]()
    for _ in range(60):
        tokens = [chance.randint(0, 2) for _ in range(chance.randint(1, 8))]
        if chance.random() < 0.5:
            kept[tuple(tokens)] = cache = cache_of(len(tokens))
            store.keep(tokens, cache)
        else:
            lengths = [length for length in range(1, len(tokens) + 1) if tuple(tokens[:length]) in kept]
            expected = kept[tuple(tokens[: lengths[-1]])] if lengths else None
            assert store.find(tokens) is expected
    assert len(store) == len(kept)


def test_the_least_recently_used_is_dropped_first() -> None:
    store, (first, _, third) = store_of([1], [2], [3], max_bytes=3 * SIZE)
    assert store.find([1]) is first
    store.keep([4], cache_of(1))
    assert store.find([2]) is None
    assert store.find([1]) is first
    assert store.find([3]) is third
    assert store.nbytes == 3 * SIZE


def test_system_prompts_are_dropped_last() -> None:
    store = Prefixes(2 * SIZE)
    system = cache_of(1)
    store.keep([1], system, is_system=True)
    for number in range(2, 6):
        store.keep([1, number], cache_of(2))
    assert store.find([1]) is system
    assert len(store) == 2


def test_a_cache_that_is_too_large_is_not_kept() -> None:
    store = Prefixes(0)
    store.keep([1], cache_of(1))
    assert (len(store), store.nbytes, store.find([1])) == (0, 0, None)
    with pytest.raises(OptionError, match="max_bytes=-1 must be at least 0"):
        Prefixes(-1)


def test_everything_can_be_dropped() -> None:
    store, _ = store_of([1], [2])
    store.clear()
    assert store.find([1]) is None
    assert len(store) == 0


def test_a_prefix_finds_what_it_has_read_and_keeps_only_more() -> None:
    prefix = Prefix((1, 2, 3, 4))
    assert prefix.find([1, 2, 3]) is None
    two, three = cache_of(2), cache_of(3)
    prefix.keep([1, 2, 3], three)
    prefix.keep([1, 2], two)
    prefix.keep([1, 2, 3, 5], cache_of(4))
    assert prefix.find([1, 2, 3, 9]) is three
    assert prefix.find([1, 2, 9]) is None
    assert repr(prefix) == "<Prefix of 4 tokens, 3 read, 0.0 MB>"


def test_of_two_sources_the_first_is_asked_first_and_both_keep() -> None:
    first, second = Prefix((1, 2)), Prefix((1, 2, 3))
    both = BothSources(first, second)
    cache = cache_of(2)
    both.keep([1, 2], cache, is_system=False)
    assert (first.cache, second.cache, both.find([1, 2, 3])) == (cache, cache, cache)
