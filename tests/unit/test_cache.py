"""What the prefix keeps, and that a canvas leaves no trace in it."""

from __future__ import annotations

import mlx.core as mx
import pytest
from tiny import FULL, SLIDING

from mlx_diffgemma.model.cache import BUFFER_STEP, Cache, LayerCache


def tokens(start: int, count: int) -> mx.array:
    """[1, 1, count, 1]: the value of a token is its position"""
    return mx.arange(start, start + count).reshape(1, 1, count, 1)


def positions(array: mx.array) -> list[int]:
    return array.flatten().tolist()


def test_full_layers_keep_everything() -> None:
    cache = LayerCache()
    for start in range(0, 12, 4):
        keys, _ = cache.write(tokens(start, 4), tokens(start, 4))
        cache.advance(4)
    assert positions(keys) == list(range(12))
    assert positions(cache.arrays[1]) == list(range(12))
    assert cache.length == 12


def test_sliding_layers_keep_one_token_less_than_their_window() -> None:
    cache = LayerCache(limit=4)
    seen = []
    for start, count in ((0, 3), (3, 4), (7, 1)):
        seen.append(positions(cache.write(tokens(start, count), tokens(start, count))[0]))
        cache.advance(count)
    assert seen == [[0, 1, 2], [0, 1, 2, 3, 4, 5, 6], [3, 4, 5, 6, 7]]
    assert positions(cache.arrays[0]) == [4, 5, 6, 7]


@pytest.mark.parametrize("limit", [None, 2])
def test_what_is_placed_does_not_enter_the_prefix_unless_it_is_told(limit: int | None) -> None:
    cache = LayerCache(limit)
    cache.write(tokens(0, 6), tokens(0, 6))
    cache.advance(6)
    kept = positions(cache.arrays[0])
    for value in (60, 70):
        keys, values = cache.write(tokens(value, 4), tokens(value, 4))
        assert positions(keys) == positions(values) == [*kept, value, value + 1, value + 2, value + 3]
    assert positions(cache.arrays[0]) == kept
    cache.advance(2)
    assert positions(cache.arrays[0]) == [*kept, 70, 71][-(limit or 99) :]


@pytest.mark.parametrize("branched", [False, True])
@pytest.mark.parametrize("limit", [None, 4])
def test_some_of_what_was_written_last_can_be_replaced(limit: int | None, branched: bool) -> None:
    cache = LayerCache(limit)
    cache.write(tokens(0, 6), tokens(0, 6))
    cache.advance(6)
    layer = cache.branch() if branched else cache
    layer.write(tokens(10, 5), tokens(20, 5))
    new = mx.array([51, 53]).reshape(1, 1, 2, 1)
    keys, values = layer.rewrite(new, new + 10, mx.array([1, 3]), 5)
    kept = [0, 1, 2, 3, 4, 5] if limit is None else [2, 3, 4, 5]
    assert positions(keys) == [*kept, 10, 51, 12, 53, 14]
    assert positions(values) == [*kept, 20, 61, 22, 63, 24]
    assert layer.length == len(kept)
    keys, _ = layer.rewrite(new[:, :, :1], new[:, :, :1], mx.array([4]), 5)
    assert positions(keys) == [*kept, 10, 51, 12, 53, 51]


def test_a_prefix_is_written_in_place_and_moved_only_when_it_outgrows_its_room() -> None:
    """Peak memory tells: a copy of the prefix would be there twice."""
    cache, many, few = LayerCache(), mx.ones((1, 1, 10_000, 8)), mx.ones((1, 1, 100, 8))
    cache.write(many, many)
    cache.advance(10_000)
    mx.eval(cache.arrays, few)
    held = cache.nbytes
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    for _ in range(5):
        mx.eval(cache.write(few, few)[0].sum())
    assert mx.get_peak_memory() - before < held / 50
    assert cache.nbytes == held


def test_a_snapshot_undoes_what_was_placed_and_not_computed() -> None:
    cache = Cache((SLIDING, FULL), window=4)
    for layer in cache.layers:
        layer.write(tokens(0, 5), tokens(0, 5))
    cache.advance(5)
    before = cache.snapshot()
    for layer in cache.layers:
        layer.write(tokens(90, 3), tokens(90, 3))
    cache.restore(before)
    assert [positions(array) for array in cache.arrays] == [[2, 3, 4], [2, 3, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]


def test_memory_of_a_sliding_layer_does_not_grow_with_the_context() -> None:
    cache = Cache((SLIDING, FULL), window=64)
    shape = (1, 2, 512, 8)
    held = []
    for _ in range(4):
        for layer in cache.layers:
            layer.write(mx.ones(shape), mx.ones(shape))
        cache.advance(512)
        mx.eval(cache.arrays)
        mx.clear_cache()
        held.append(mx.get_active_memory())
    full_per_chunk = 2 * mx.ones(shape).nbytes
    assert cache.layers[0].length == 63
    assert cache.layers[0].nbytes <= full_per_chunk * (512 + 63 + BUFFER_STEP) / 512
    assert held[3] - held[1] <= 2 * full_per_chunk + 4096
    assert cache.layers[1].nbytes == 4 * full_per_chunk
    assert cache.offset == 4 * 512


def grown(cache: Cache, *runs: tuple[int, int]) -> list[list[int]]:
    """Write runs of tokens (first, count) and keep them; return what the layers showed at each write."""
    shown: list[list[int]] = []
    for first, count in runs:
        shown += [positions(layer.write(tokens(first, count), tokens(first, count))[0]) for layer in cache.layers]
        cache.advance(count)
    return shown


@pytest.mark.parametrize("prefix", [1, 2, 3, 4, 9])
def test_a_branch_shows_and_keeps_what_a_snapshot_does(prefix: int) -> None:
    """A window of 4, prefixes within it and beyond; a branch of a branch too; the trunk goes on by itself."""
    trunk = Cache((SLIDING, FULL), window=4)
    grown(trunk, (0, prefix))
    runs = [(prefix, 1), (prefix + 1, 2), (prefix + 3, 5)]
    snapshot, branch = trunk.snapshot(), trunk.branch()
    assert grown(branch, *runs) == grown(snapshot, *runs)
    assert branch.offset == snapshot.offset
    assert [positions(array) for array in branch.arrays] == [positions(array) for array in snapshot.arrays]
    more = [(50, 2), (60, 1)]
    assert grown(branch.branch(), *more) == grown(snapshot.snapshot(), *more)
    assert [layer.length for layer in branch.layers] == [layer.length for layer in snapshot.layers]
    assert positions(trunk.arrays[-1]) == list(range(prefix))


def test_what_a_branch_wrote_is_undone_as_by_any_cache() -> None:
    trunk = Cache((SLIDING, FULL), window=4)
    grown(trunk, (0, 6))
    branch = trunk.branch()
    grown(branch, (6, 1))
    before = branch.snapshot()
    grown(branch, (7, 3))
    branch.restore(before)
    assert positions(branch.arrays[-1]) == list(range(7))
    assert grown(branch, (20, 1))[1] == [*range(7), 20]


def test_many_branches_hold_one_prefix() -> None:
    trunk = Cache((FULL,), window=4)
    shape = (1, 2, 4096, 8)
    trunk.layers[0].write(mx.ones(shape), mx.ones(shape))
    trunk.advance(4096)
    mx.eval(trunk.arrays)
    before, branches = mx.get_active_memory(), [trunk.branch() for _ in range(32)]
    for branch in branches:
        branch.layers[0].write(mx.ones((1, 2, 3, 8)), mx.ones((1, 2, 3, 8)))
        branch.advance(3)
        mx.eval([array.sum() for array in branch.arrays])
    assert mx.get_active_memory() - before < trunk.nbytes / 4
    assert sum(branch.nbytes for branch in branches) < trunk.nbytes / 4
