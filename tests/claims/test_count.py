"""The counter is right on expressions worked by hand, and the cost of a step does not grow unnoticed.

The figures are exact and equal on every machine. If one changes on purpose, run

    PYTHONPATH=benchmarks python tests/claims/test_count.py

put its output in the place of PINS, and say in the commit what a step computes now that it did not compute before, or
the other way round. Operations and bytes of the products follow from the model's sizes: a change there is a mistake.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import pytest
from counting.costs import Cost, count, total
from counting.graph import between, runs, trace
from counting.instrument import ATTENTION, CountError, apart, compiled
from counting.nodes import Node
from random_checkpoint import make_config, write_checkpoint

from mlx_diffgemma.model.config import ModelConfig, parse_config

COUNT = (sys.executable, str(Path(__file__).parents[2] / "benchmarks" / "run.py"), "count")

PINS: dict[str, dict[str, int | float]] = {
    "26b --prefix 1024": {"operations": 2534638147588, "primitives": 1463, "passes": 16.0},
    "26b --prefix 1024 --top-k 64": {"operations": 2156083532292, "primitives": 1474, "passes": 7.0156},
    "mid --prefix 1024 --device cpu --bits 16": {"operations": 53534564676, "primitives": 6325, "passes": 72.0},
    "mid --prefix 1024 --device cpu --bits 16 --top-k 64": {
        "operations": 35299704388,
        "primitives": 5635,
        "passes": 44.0,
    },
    "tiny --prefix 40 --device cpu --bits 16": {"operations": 14806132, "primitives": 669, "passes": 70.25},
}
"""Options of the counter -> the cost of one step. Operations are exact; of the others there may be fewer."""


@pytest.fixture(autouse=True)
def on_the_cpu() -> Any:
    """Primitives differ between devices."""
    before = mx.default_device()
    mx.set_default_device(mx.Device(mx.cpu))
    yield
    mx.set_default_device(before)


@cache
def counted(*options: str) -> dict[str, Any]:
    """Return the counter's figures; it runs in its own process, because it replaces functions of MLX."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "counts.json"
        command = [*COUNT, *options, "--json", str(file)]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        return json.loads(file.read_text())["programs"]


def pinned(options: str) -> dict[str, int | float]:
    whole = counted(*options.split(), "--program", "ours")["ours"]
    return {
        "operations": whole["total"]["products"] + whole["total"]["others"],
        "primitives": whole["total"]["primitives"] + (whole["repeated"] or 0),
        "passes": round(whole["total"]["passes"], 4),
    }


@pytest.mark.parametrize("options", PINS)
def test_a_step_costs_what_it_did(options: str) -> None:
    found, wanted = pinned(options), PINS[options]
    assert found["operations"] == wanted["operations"]
    assert found["primitives"] <= wanted["primitives"]
    assert found["passes"] <= wanted["passes"]


def step_products(config: ModelConfig, canvas: int, prefix: int) -> int:
    """Operations of all matrix products of a step with exact conditioning, from the sizes alone."""
    size, vocabulary = config.hidden_size, config.vocab_size
    per_row = 3 * size * config.intermediate_size + 2 * vocabulary * size
    scores = 0
    for layer in config.layers:
        queries, keys = config.num_attention_heads * layer.head_dim, layer.num_key_value_heads * layer.head_dim
        per_row += size * (2 * queries + keys * (2 if layer.sliding else 1))
        per_row += 3 * size * config.intermediate_size + size * config.num_experts
        per_row += config.top_k_experts * 3 * size * config.moe_intermediate_size
        seen = min(prefix, config.sliding_window - 1) if layer.sliding else prefix
        scores += 2 * canvas * (seen + canvas) * queries
    return 2 * (canvas * per_row + scores)


@pytest.mark.parametrize(("shape", "prefix"), [("26b", 2000), ("mid", 100)])
def test_products_are_those_of_the_models_sizes_in_both_programs(shape: str, prefix: int) -> None:
    width, layers = {"26b": ("full", 30), "mid": ("bench", 8)}[shape]
    config = parse_config(make_config(layers, width))
    expected = step_products(config, 256, prefix)
    # Ours sums the results of the experts by a product too.
    summed = layers * 2 * 256 * config.top_k_experts * config.hidden_size
    found = {
        program: figures["total"]["products"] for program, figures in counted(shape, "--prefix", str(prefix)).items()
    }
    assert found == {"ours": expected + summed, "mlx-vlm": expected}


def test_a_folder_is_counted_as_its_shape_is(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "tiny", layers=4, width="tiny")
    options = ("--prefix", "40", "--device", "cpu")
    shape = counted("tiny", *options, "--bits", "16", "--program", "ours")
    assert counted(str(tmp_path / "tiny"), *options, "--program", "ours") == shape


def test_top_k_conditioning_spares_the_products_of_the_exact_one() -> None:
    step = ("26b", "--prefix", "1024")
    exact, few = (counted(*step, *options, "--program", "ours")["ours"] for options in ([], ["--top-k", "64"]))
    product = 2 * 256 * 262_144 * 2816
    assert exact["parts"]["signal"]["products"] == product
    assert few["parts"]["signal"]["products"] == product // 4096
    assert few["parts"]["head"]["products"] == exact["parts"]["head"]["products"] == product


def test_lighter_steps_spare_what_they_do_not_compute() -> None:
    """Half of the positions take half of the products; a part of the prefix spares attention alone."""
    step = ("tiny", "--canvas", "64", "--bits", "16", "--program", "ours", "--top-k", "8", "--prefix")
    parts = counted(*step, "200")["ours"]["parts"]
    half = counted(*step, "200", "--rows", "32")["ours"]["parts"]
    for name in ("mlp", "experts", "head", "attention"):
        assert half[name]["products"] * 2 == parts[name]["products"]
    some = counted(*step, "200", "--prefix-top-k", "40")["ours"]["parts"]
    assert some["attention"]["products"] < parts["attention"]["products"]
    assert some["mlp"]["products"] == parts["mlp"]["products"]


def test_a_prefill_does_not_compute_what_nothing_needs() -> None:
    """A prefill needs only the cache: what follows the keys and values of the last layer is not computed."""
    figures = counted("tiny", "--device", "cpu", "--prefill", "64", "--prefix", "0", "--bits", "16")["ours"]
    config = parse_config(make_config(4, "tiny"))
    mlp = 2 * 64 * 3 * config.hidden_size * config.intermediate_size
    assert figures["parts"]["mlp"]["products"] == (len(config.layers) - 1) * mlp
    assert "head" not in figures["parts"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["/no/such/folder"], "error: no such folder: /no/such/folder"),
        (["26b", "--top-k", "0"], "--top-k 0 must be at least 1"),
        (["26b", "--canvas", "0"], "--canvas and --prefill must be at least 1, --prefix at least 0"),
        (["26b", "--prefill", "9", "--program", "mlx-vlm"], "--prefill counts only this runtime"),
    ],
)
def test_what_cannot_be_counted_is_said_in_one_line(options: list[str], said: str) -> None:
    out = subprocess.run([*COUNT, *options], check=False, capture_output=True, text=True)
    assert out.returncode != 0
    assert said in out.stderr.splitlines()[-1]


# Expressions worked by hand.


def costs(function: Callable[..., Any], *arguments: mx.array, gpu: bool = False) -> Cost:
    return total(count(nodes(function, *arguments, gpu=gpu)))


def nodes(function: Callable[..., Any], *arguments: mx.array, gpu: bool = False) -> list[Node]:
    def flat(*given: mx.array) -> Sequence[mx.array]:
        result = function(*given)
        return [result] if isinstance(result, mx.array) else result

    graph = trace(flat, arguments, gpu=gpu)
    return between(graph, graph.outputs)


def test_a_matmul() -> None:
    cost = costs(lambda a, b: a @ b, mx.zeros((3, 5)), mx.zeros((5, 7)))
    assert cost == Cost(products=2 * 3 * 5 * 7, read=4 * (15 + 35), written=4 * 21, primitives=1)


def test_a_batched_matmul_with_a_transposed_side() -> None:
    cost = costs(lambda a, b: a @ b.swapaxes(-1, -2), mx.zeros((2, 3, 5)), mx.zeros((2, 7, 5)))
    assert cost == Cost(products=2 * 2 * 3 * 5 * 7, read=4 * (30 + 70), written=4 * 42, primitives=1)


def test_a_quantized_matmul_reads_packed_weights() -> None:
    weight, scales, biases = mx.quantize(mx.zeros((32, 128)), group_size=64, bits=4)
    cost = costs(
        lambda x, *packed: mx.quantized_matmul(x, *packed, group_size=64, bits=4),
        mx.zeros((3, 128)),
        weight,
        scales,
        biases,
    )
    packed = 32 * 128 // 2 + 2 * 32 * 2 * 4
    assert cost == Cost(products=2 * 3 * 128 * 32, read=4 * 3 * 128 + packed, written=4 * 3 * 32, primitives=1)


def test_experts_read_no_more_experts_than_there_are_rows() -> None:
    weight = mx.zeros((8, 16, 4))
    for rows in (3, 20):
        cost = costs(
            lambda x, w, i: mx.gather_mm(x, w.swapaxes(-1, -2), rhs_indices=i, sorted_indices=True),
            mx.zeros((rows, 1, 4)),
            weight,
            mx.zeros((rows,), mx.uint32),
        )
        assert cost.products == 2 * rows * 4 * 16
        touched = min(rows, 8) * 16 * 4 * 4
        assert touched <= cost.read <= touched + 4 * rows * 4 + 2 * 4 * rows


def test_attention_in_one_kernel_and_taken_apart_has_the_same_products() -> None:
    heads, groups, length, seen, size = 4, 2, 3, 11, 16
    queries, keys = mx.zeros((1, heads, length, size)), mx.zeros((1, groups, seen, size))

    def attention(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
        scores = q.reshape(1, groups, -1, size) @ k.swapaxes(-1, -2)
        return mx.softmax(scores, axis=-1) @ v

    cost = costs(attention, queries, keys, keys)
    assert cost.products == 2 * (2 * heads * length * seen * size)
    assert cost.others == heads * length * seen
    graph = trace(lambda q, k, v: [attention(q, k, v)], [queries, keys, keys])
    fused = Node(kind=ATTENTION, inputs=graph.inputs, outputs=(graph.inputs[0],))
    assert total(count([fused])).products == cost.products
    assert total(count([fused])).others == cost.others


def test_views_are_free_and_reading_them_costs_what_lies_under_them() -> None:
    whole = mx.zeros((4, 6))
    cost = costs(lambda x: mx.broadcast_to(x[:, :2].T[None], (5, 2, 4)) + 1, whole)
    # Eight numbers and a one are read, however often they are repeated.
    assert cost == Cost(others=40, read=4 * (8 + 1), written=4 * 40, primitives=1)


def test_a_reshape_copies_only_where_strides_cannot_say_it() -> None:
    x = mx.zeros((2, 3, 4))
    assert costs(lambda x: x.reshape(6, 4).reshape(2, 12)[None, :, ::2].squeeze(0), x).primitives == 0
    assert costs(lambda x: x.swapaxes(0, 1).reshape(3, 2, 2, 2), x).primitives == 0
    copied = costs(lambda x: x.swapaxes(0, 1).reshape(6, 4), x)
    assert copied == Cost(read=4 * 24, written=4 * 24, primitives=1)


def test_a_gather_reads_the_rows_it_takes() -> None:
    cost = costs(lambda table, ids: table[ids], mx.zeros((1000, 8)), mx.zeros((3,), mx.int32))
    assert cost == Cost(read=4 * 24 + 4 * 3, written=4 * 24, primitives=1)


def test_room_is_written_into_where_it_lies() -> None:
    def placed(room: mx.array, new: mx.array) -> mx.array:
        room[:, 2:4] = new
        return room

    cost = costs(placed, mx.zeros((3, 100)), mx.zeros((3, 2)))
    assert cost == Cost(read=4 * 6, written=4 * 6, primitives=1)


def test_a_compiled_function_is_the_kernels_that_mlx_makes_of_it() -> None:
    fused = compiled(lambda x, y: mx.exp(x) * y + 1)
    cost = costs(fused, mx.zeros((5, 7)), mx.zeros((5, 7)))
    assert cost == Cost(others=3 * 35, read=4 * (2 * 35 + 1), written=4 * 35, primitives=1)


def test_a_compiled_reduction_is_a_kernel_of_its_own() -> None:
    normed = compiled(lambda x: mx.exp(x) / mx.exp(x).sum(axis=-1, keepdims=True))
    power, total_of, quotient = nodes(normed, mx.zeros((5, 7)))
    assert (power.kind, total_of.kind) == ("Exp", "Reduce")
    assert [member.kind for member in quotient.members] == ["Broadcast", "Divide"]


def test_a_compiled_function_can_give_several_results_and_what_it_was_given() -> None:
    def three(x: mx.array, scale: float) -> tuple[mx.array, mx.array, mx.array]:
        doubled = x * scale
        return doubled, doubled + 1, x

    cost = costs(lambda x: compiled(three)(x, 2.0), mx.zeros((5, 7)))
    assert (cost.others, cost.written, cost.primitives) == (2 * 35, 4 * 70, 1)


@pytest.mark.parametrize("shapeless", [False, True])
def test_gelu_as_mlx_compiles_it(shapeless: bool) -> None:
    """The count says so where mx.compile makes other kernels: nothing is raised here."""
    gelu = compiled(lambda x, y: nn.gelu_approx(x) * y, shapeless=shapeless)
    assert costs(gelu, mx.zeros((2, 9)), mx.zeros((2, 9))).primitives == (2 if shapeless else 1)


def test_a_long_chain_is_cut_where_mlx_cuts_it() -> None:
    def chain(x: mx.array) -> mx.array:
        for _ in range(30):
            x = mx.sin(x)
        return x

    assert costs(compiled(chain), mx.zeros((4,))).primitives == 3


def test_what_leads_nowhere_does_not_run() -> None:
    assert costs(lambda x: [x + 1, mx.exp(x)][:1], mx.zeros((4,))).primitives == 1


def test_what_is_computed_twice_is_counted_twice_where_it_is_kept_apart() -> None:
    """MLX's trace merges equal primitives, which a run does not."""
    assert costs(lambda x: [mx.exp(x), mx.exp(x) + 1], mx.zeros((4,))).primitives == 2
    assert costs(lambda x: [mx.exp(x), mx.exp(apart(x)) + 1], mx.zeros((4,))).primitives == 3
    x = mx.zeros((4,))
    assert runs([mx.exp(x), mx.exp(x) + 1], [], [x]) == ["Exp", "Exp", "Add"]


def test_a_primitive_without_a_rule_is_named() -> None:
    with pytest.raises(CountError, match="no rule for what the primitive FFT costs"):
        costs(lambda x: mx.fft.fft(x).astype(mx.float32), mx.zeros((8,)))


def test_elements_over_the_vocabulary_in_any_pieces() -> None:
    logits = mx.zeros((1, 4, 96))

    def in_pieces(x: mx.array) -> list[mx.array]:
        return [mx.unflatten(x[:, at : at + 2], -1, (8, 12)).max(axis=-1) for at in (0, 2)]

    graph = trace(in_pieces, [logits])
    assert total(count(graph.nodes, vocabulary=96)).vocabulary == 4 * 96
    graph = trace(lambda x: [mx.exp(x)], [logits])
    assert total(count(graph.nodes, vocabulary=96)).vocabulary == 2 * 4 * 96


if __name__ == "__main__":
    print(json.dumps({options: pinned(options) for options in PINS}, indent=4))
