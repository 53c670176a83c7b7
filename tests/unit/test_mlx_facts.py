"""What this package relies on in MLX, one fact per test: a new version of MLX that behaves differently fails here.

One fact cannot be tested here: the message of a failed allocation (errors.ALLOCATION_FAILURES). MLX's CPU backend has
none, it ends the process; test_session quotes Metal's.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable

import mlx.core as mx
import pytest

MEGABYTE = 2**20
IDS_OF_KEY_1_2 = [961, 743, 546, 711]
UNIFORM_OF_KEY_1_2 = [0.14645139873027802, 0.3066754937171936]


@pytest.fixture(autouse=True)
def on_the_cpu() -> object:
    """The facts are those of the CPU backend, which is everywhere."""
    before = mx.default_device()
    mx.set_default_device(mx.cpu)
    yield
    mx.set_default_device(before)


def peak_of(compute: Callable[[], object]) -> int:
    """Bytes that computing takes beyond what is held before."""
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    compute()
    return mx.get_peak_memory() - before


def in_a_thread(work: Callable[[], None]) -> None:
    """Do `work` in a thread, and end it in the way that MLX wants."""

    def run() -> None:
        work()
        mx.clear_streams()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def kernels(function: Callable[[mx.array], mx.array]) -> int:
    """How many compiled kernels MLX makes of a function."""
    import io

    text = io.StringIO()
    mx.export_to_dot(text, mx.compile(function)(mx.ones((4,))))
    return text.getvalue().count('label ="Compiled')


# Arrays that are written to. LayerCache.write, Pins


def test_an_array_that_nobody_else_holds_is_written_in_place() -> None:
    buffer, new = mx.zeros((16 * MEGABYTE,), mx.uint8), mx.ones((8,), mx.uint8)
    mx.eval(buffer, new)

    def write() -> None:
        nonlocal buffer
        buffer[:8] = new
        mx.eval(buffer)

    assert peak_of(write) < MEGABYTE


def test_an_array_that_somebody_else_holds_is_copied_before_it_is_written_to() -> None:
    buffer, new = mx.zeros((16 * MEGABYTE,), mx.uint8), mx.ones((8,), mx.uint8)
    snapshot = buffer[...]
    mx.eval(buffer, new, snapshot)

    def write() -> None:
        buffer[:8] = new
        mx.eval(buffer)

    assert peak_of(write) >= 16 * MEGABYTE
    assert snapshot[:8].sum().item() == 0


def test_writing_through_an_alias_leaves_the_original_as_it_was() -> None:
    original = mx.zeros((4,))
    alias = original[...]
    alias[1:3] = mx.ones((2,))
    assert original.tolist() == [0, 0, 0, 0]
    assert alias.tolist() == [0, 1, 1, 0]


# Threads. sampling.ahead, training.gradients


def test_a_graph_cannot_be_evaluated_in_a_thread_that_did_not_build_it() -> None:
    planned = mx.ones((3,)) + 1
    failures: list[str] = []

    def evaluate() -> None:
        try:
            mx.eval(planned)
        except RuntimeError as error:
            failures.append(str(error))

    in_a_thread(evaluate)
    assert len(failures) == 1
    assert "stream" in failures[0].lower()


def test_an_array_that_is_computed_can_be_used_in_every_thread() -> None:
    computed = mx.ones((3,)) + 1
    mx.eval(computed)
    results: list[object] = []
    in_a_thread(lambda: results.append((computed * 2).tolist()))
    assert results == [[4, 4, 4]]


def test_threads_of_a_pool_that_clear_their_streams_let_the_process_end_in_peace() -> None:
    """Without it the process is aborted at its end, but not every time. training.gradients.Workers."""
    program = (
        "import mlx.core as mx; from concurrent.futures import ThreadPoolExecutor;"
        "mx.set_default_device(mx.cpu); pools = [ThreadPoolExecutor(1) for _ in range(8)];"
        "[pool.submit(lambda: mx.eval(mx.ones((300, 300)) @ mx.ones((300, 300)))) for pool in pools];"
        "[(pool.submit(mx.clear_streams).result(), pool.shutdown()) for pool in pools]"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


# The order and depth of graphs. device.cpu


def test_a_compiled_kernel_ends_at_a_depth_of_eleven_operations() -> None:
    def chain(length: int) -> Callable[[mx.array], mx.array]:
        def function(x: mx.array) -> mx.array:
            for _ in range(length):
                x = mx.sin(x)
            return x

        return function

    assert [kernels(chain(length)) for length in (12, 13, 23, 24)] == [1, 2, 2, 3]


def test_parts_that_depend_on_each_other_use_the_same_memory_and_others_are_computed_together() -> None:
    numbers = mx.zeros((32, MEGABYTE // 4))
    mx.eval(numbers)

    def softmax_peaks(*, in_turn: bool) -> Callable[[], None]:
        def compute() -> None:
            done: list[mx.array] = []
            for row in range(len(numbers)):
                own = numbers[row]
                if in_turn and done:
                    (own,) = mx.depends([own], done[-1:])
                powers = mx.exp(own)
                below = powers - powers.max(keepdims=True)
                done.append((below / powers.sum(keepdims=True)).max(keepdims=True))
            mx.eval(mx.concatenate(done))

        return compute

    assert peak_of(softmax_peaks(in_turn=True)) < peak_of(softmax_peaks(in_turn=False)) / 2


# Gradients. model.functions, model.experts


def test_a_gradient_that_is_written_out_replaces_mlx_own_also_in_a_compiled_function() -> None:
    @mx.custom_function
    def double(x: mx.array) -> mx.array:
        return 2 * x

    @double.vjp
    def _pullback(primals: object, cotangent: mx.array, out: mx.array) -> mx.array:
        return 100 * cotangent

    def gradient(x: mx.array) -> mx.array:
        return mx.grad(lambda x: double(x).sum())(x)  # type: ignore[attr-defined]

    assert gradient(mx.ones((2,))).tolist() == [100, 100]
    assert mx.compile(gradient)(mx.ones((2,))).tolist() == [100, 100]


def test_a_compiled_function_inside_another_is_fused_with_it() -> None:
    inner = mx.compile(lambda x: mx.sin(x) * 2)
    assert kernels(lambda x: mx.cos(inner(x)) + 1) == 1


def test_a_checkpointed_function_runs_again_in_the_backward_pass() -> None:
    calls = 0

    def run(x: mx.array) -> mx.array:
        nonlocal calls
        calls += 1
        return mx.sin(x)

    slope = mx.grad(lambda x: mx.checkpoint(run)(x).sum())(mx.zeros((2,)))
    mx.eval(slope)
    assert slope.tolist() == [1, 1]
    assert calls == 2


def test_compiled_functions_and_gradients_cannot_be_copied() -> None:
    """kernels.Kernels is therefore shared by the copies of a model."""
    from copy import deepcopy

    for function in (mx.compile(lambda x: x), mx.custom_function(lambda x: x), mx.exp):
        with pytest.raises(TypeError, match="cannot pickle"):
            deepcopy(function)


# Kernels with options. model.experts, model.layers


def test_gathered_products_take_the_expert_of_each_row_in_ascending_order() -> None:
    weights, rows = mx.random.normal((3, 4, 5), key=mx.random.key(0)), mx.random.normal((6, 1, 4), key=mx.random.key(1))
    experts = mx.array([0, 0, 1, 2, 2, 2], mx.uint32)
    found = mx.gather_mm(rows, weights, rhs_indices=experts, sorted_indices=True)
    assert mx.allclose(found, mx.stack([row @ weights[at] for row, at in zip(rows, experts.tolist(), strict=True)]))


def test_rotary_embeddings_take_one_offset_per_row() -> None:
    heads, periods = mx.random.normal((3, 2, 4, 8), key=mx.random.key(0)), mx.array([1.0, 10.0, 100.0, float("inf")])

    def rotated(heads: mx.array, offset: int | mx.array) -> mx.array:
        return mx.fast.rope(heads, 8, traditional=False, base=None, scale=1.0, offset=offset, freqs=periods)

    found = rotated(heads, mx.array([0, 5, 9]))
    alone = mx.concatenate([rotated(heads[row : row + 1], offset) for row, offset in enumerate((0, 5, 9))])
    assert mx.allclose(found, alone, atol=1e-5)
    # A pair with an infinite period is not rotated.
    assert mx.allclose(found[..., 3], heads[..., 3]) and mx.allclose(found[..., 7], heads[..., 7])


def test_a_causal_mask_is_that_of_queries_which_are_the_last_of_the_keys() -> None:
    queries, keys = mx.random.normal((1, 2, 3, 8), key=mx.random.key(0)), mx.random.normal((1, 2, 5, 8))
    mask = mx.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]], mx.bool_)
    named, literal = (
        mx.fast.scaled_dot_product_attention(queries, keys, keys, scale=1.0, mask=each) for each in ("causal", mask)
    )
    assert mx.allclose(named, literal, atol=1e-6)


# Random numbers. sampling.sampler


def test_random_numbers_depend_on_the_key_alone() -> None:
    """The expected numbers were drawn with MLX 0.32.4 on Linux."""
    key = mx.array([1, 2], mx.uint32)
    assert mx.random.randint(0, 1000, (4,), key=key).tolist() == IDS_OF_KEY_1_2
    assert mx.random.uniform(shape=(2,), key=key).tolist() == UNIFORM_OF_KEY_1_2


def test_draws_for_several_keys_are_those_for_each_key() -> None:
    keys = mx.array([[1, 2], [3, 4]], mx.uint32)
    together = mx.vmap(lambda key: mx.random.uniform(shape=(5,), key=key))(keys)
    alone = mx.stack([mx.random.uniform(shape=(5,), key=key) for key in keys])
    assert mx.array_equal(together, alone)
