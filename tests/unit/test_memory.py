"""What a model holds is known before it is read: by kind, against this machine's memory, and for Macs of every size."""

from __future__ import annotations

import json
import re
import runpy
from importlib import import_module
from pathlib import Path

import mlx.core as mx
import pytest
from in_process import call_for_text
from mlx_diffgemma_convert.best_recipe import CANDIDATES, choose, memory_for
from mlx_diffgemma_convert.plan import make_plan
from test_convert_plan import RELEASE_SHAPES, contents
from tiny import PUBLISHED

import mlx_diffgemma
from mlx_diffgemma import generate
from mlx_diffgemma.benchmark.diffusion import ModelChoice
from mlx_diffgemma.benchmark.settings import BenchmarkSettings
from mlx_diffgemma.checkpoint import fitting
from mlx_diffgemma.checkpoint.names import CheckpointTensors
from mlx_diffgemma.checkpoint.weights import open_checkpoint
from mlx_diffgemma.cli.benchmark import SubjectOptions, benchmark_plan
from mlx_diffgemma.cli.training import AdapterOptions, RunOptions, SourceOptions, training_plan
from mlx_diffgemma.device.memory import GIGABYTE, MACS, higher_limit, mac_for, recommended_bytes, smallest_mac
from mlx_diffgemma.errors import ConvertError, OutOfMemoryError
from mlx_diffgemma.model.config import parse_config
from mlx_diffgemma.model.memory import MemoryNeed, cache_bytes, logits_bytes, memory_need
from mlx_diffgemma.training.settings import TrainingSettings

CONFIG = parse_config(json.loads((PUBLISHED / "google.config.json").read_text()))
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def release() -> CheckpointTensors:
    return contents(RELEASE_SHAPES)


def gigabytes(need: MemoryNeed) -> tuple[float, float, float, float]:
    """Powers of 1000, as the files are counted."""
    return (
        round(need.weights / 1e9, 1),
        round(need.logits / 1e9, 2),
        round(need.activations / 1e9, 1),
        round(need.prefix / 1e9, 2),
    )


def test_the_release_in_4_bits_needs_what_was_computed_by_hand(release: CheckpointTensors) -> None:
    plan = make_plan(release, CONFIG, CANDIDATES[1].recipe, "BF16", 5_000_000_000)
    need = memory_for(plan, CONFIG)
    assert gigabytes(need) == (15.4, 0.67, 0.2, 0.35)
    assert need.total == need.weights + need.logits + need.activations + need.prefix
    assert gigabytes(memory_for(plan, CONFIG, usable=need.total)) == (15.4, 0.67, 0.2, 0.35)
    assert gigabytes(memory_for(plan, CONFIG, usable=need.total - 1)) == (15.4, 0.27, 0.2, 0.35)


def test_a_canvas_of_64_has_a_quarter_of_the_logits() -> None:
    assert round(logits_bytes(CONFIG, 64, itemsize=2) / 1e9, 2) == 0.17
    assert memory_need(CONFIG, 0, itemsize=2, canvas=64).logits == logits_bytes(CONFIG, 256, itemsize=2) // 4


@pytest.mark.parametrize(("tokens", "expected"), [(1024, 0.35), (8192, 0.49), (32768, 1.0)])
def test_keys_and_values_grow_by_20_kilobytes_per_token(tokens: int, expected: float) -> None:
    assert round(cache_bytes(CONFIG, tokens, itemsize=2) / 1e9, 2) == expected
    assert cache_bytes(CONFIG, 9001, itemsize=2) - cache_bytes(CONFIG, 9000, itemsize=2) == 20_480


def test_a_chunk_of_a_long_prompt_is_as_long_as_the_prefill_reads() -> None:
    at_chunk, beyond = (memory_need(CONFIG, 0, itemsize=2, tokens=tokens) for tokens in (2048, 9000))
    assert at_chunk.activations == beyond.activations == 2 * memory_need(CONFIG, 0, itemsize=2).activations


@pytest.mark.parametrize(
    ("size", "expected"),
    [(18, "small"), (24, "mixed"), (32, "mixed"), (36, "uniform in 8 bits"), (512, "uniform in 8 bits")],
)
def test_the_best_recipe_that_fits_is_chosen(release: CheckpointTensors, size: int, expected: str) -> None:
    chosen, reason = choose(release, CONFIG, size * GIGABYTE, "BF16")
    assert chosen.name == expected
    assert reason.startswith(f"the recipe is {expected}: ")
    assert f"on a Mac with {size} GB" in reason


def test_a_choice_names_what_the_better_one_needs(release: CheckpointTensors) -> None:
    _, reason = choose(release, CONFIG, 18 * GIGABYTE, "BF16")
    assert reason == (
        "the recipe is small: 11.35 GB on disk, 12.53 GB in memory, and macOS recommends 12.88 GB at most on a Mac "
        "with 18 GB; mixed needs 16.18 GB"
    )


@pytest.mark.parametrize(
    ("size", "remedy"),
    [
        (16, "convert with --recipe small, and raise the limit there with `sudo sysctl iogpu.wired_limit_mb=11566`"),
        (1, "the smallest Mac that holds it has 18 GB"),
    ],
)
def test_a_mac_that_is_too_small_is_told_what_would_do(release: CheckpointTensors, size: int, remedy: str) -> None:
    with pytest.raises(ConvertError, match=rf"^no recipe fits: .* with {size} GB; small needs 12\.13 GB: ") as caught:
        choose(release, CONFIG, size * GIGABYTE, "BF16")
    assert str(caught.value).endswith(remedy)


def test_macs_up_to_32_recommend_two_thirds_and_larger_ones_three_quarters() -> None:
    assert [round(recommended_bytes(size * GIGABYTE) / GIGABYTE, 1) for size in (24, 32, 36, 128)] == [16, 21.3, 27, 96]
    assert [mac_for(recommended_bytes(size * GIGABYTE)) for size in MACS] == [*MACS]
    assert [smallest_mac(recommended_bytes(size * GIGABYTE)) for size in MACS] == [*MACS]
    assert smallest_mac(2**50) is None
    assert higher_limit(13 * GIGABYTE, 16 * GIGABYTE) == "sudo sysctl iogpu.wired_limit_mb=13312"
    assert higher_limit(13 * GIGABYTE + 1, 16 * GIGABYTE) is None


def refusal(folder: Path, monkeypatch: pytest.MonkeyPatch, *, usable: int, metal_bytes: int | None = None) -> str:
    """What `load` says on a machine where MLX may use `usable` bytes; metal_bytes: the memory of a Mac."""
    monkeypatch.setattr(fitting, "usable_bytes", lambda: usable)
    if metal_bytes is not None:
        monkeypatch.setattr(mx.metal, "is_available", lambda: True)
        monkeypatch.setattr(fitting, "machine_bytes", lambda: metal_bytes)
    with pytest.raises(OutOfMemoryError) as caught:
        mlx_diffgemma.load(folder)
    return str(caught.value)


def least(folder: Path, canvas: int | None = None) -> int:
    """The bytes that a model needs when memory is short."""
    checkpoint = open_checkpoint(folder)
    config = checkpoint.model.config
    return memory_need(config, checkpoint.weight_bytes, itemsize=4, canvas=canvas, usable=0).total


def test_a_model_that_memory_cannot_hold_is_refused_before_it_is_read(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mlx_diffgemma.checkpoint.weights.install_weights", lambda *_: pytest.fail("weights are read"))
    message = refusal(demo, monkeypatch, usable=1_000_000)
    assert re.fullmatch(
        rf"{re.escape(str(demo))} needs \d\.\d MB of memory \(\d\.\d MB for the weights\), and MLX should use 1\.0 MB "
        r"at most on this machine: convert it again with `mlx_diffgemma\.convert SRC DST --fit 1GB`, or add --force "
        r"\(force=True\) to load it all the same",
        message,
    )


def test_a_model_that_fits_exactly_is_loaded(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need = least(demo)
    refusal(demo, monkeypatch, usable=need - 1)
    monkeypatch.setattr(fitting, "usable_bytes", lambda: need)
    assert mlx_diffgemma.load(demo).model.config.canvas_length


def test_force_loads_it_all_the_same(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "usable_bytes", lambda: 1)
    assert mlx_diffgemma.load(demo, force=True).model.config.canvas_length


def test_a_shorter_canvas_is_offered_only_if_it_is_enough(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = demo.parent / "long"
    long.mkdir(exist_ok=True)
    for file in demo.iterdir():
        (long / file.name).write_bytes(file.read_bytes())
    (long / "config.json").write_text(
        json.dumps(json.loads((demo / "config.json").read_text()) | {"canvas_length": 256})
    )
    enough = least(long, canvas=64)
    assert "use a shorter canvas (--force --canvas-length 64)" in refusal(long, monkeypatch, usable=enough)
    assert "--canvas-length 32" in refusal(long, monkeypatch, usable=enough - 1)
    assert "canvas" not in refusal(long, monkeypatch, usable=least(long, canvas=32) - 1)


def test_a_higher_limit_is_offered_on_a_mac_with_enough_memory(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = "raise the limit with `sudo sysctl iogpu.wired_limit_mb="
    assert wanted in refusal(demo, monkeypatch, usable=1_000_000, metal_bytes=8 * GIGABYTE)
    assert wanted not in refusal(demo, monkeypatch, usable=1_000_000, metal_bytes=3 * GIGABYTE)


def test_the_tables_of_macs_are_up_to_date() -> None:
    for path, page in runpy.run_path(str(DOCS / "make_memory.py"))["pages"]().items():
        assert path.read_text(encoding="utf-8") == page, "run python docs/make_memory.py"


@pytest.mark.parametrize("program", ["generate", "infill", "edit", "train", "bench"])
def test_every_program_that_loads_a_model_refuses_one_that_is_too_large(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(fitting, "usable_bytes", lambda: 1_000_000)
    (tmp_path / "text").write_text("One <gap:2> three.")
    (tmp_path / "train.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    arguments = {
        "generate": ["--model", demo, "Hello"],
        "infill": ["--model", demo, tmp_path / "text"],
        "edit": ["--model", demo, tmp_path / "text", "shorter", "--lines", "1"],
        "train": ["--model", demo, "--data", tmp_path, "--out", tmp_path / "out"],
        "bench": [demo],
    }[program]
    done = call_for_text(import_module(f"mlx_diffgemma.{program}").main, *arguments, "--quiet")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: \S+ needs \d\.\d MB of memory .* or add --force .*\n", done.stderr)


def test_force_reaches_a_training_and_a_benchmark() -> None:
    training = training_plan(
        SourceOptions(data="d", model="m", force=True), AdapterOptions(), TrainingSettings(), RunOptions()
    )
    assert training.force
    plan = benchmark_plan("m", SubjectOptions(force=True), BenchmarkSettings(), {})
    assert isinstance(plan.source, ModelChoice)
    assert plan.source.force


def test_force_answers_on_a_machine_that_is_too_small(demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "usable_bytes", lambda: 1)
    options = ["--model", demo, "--force", "-n", "4", "--max-steps", "1", "--allow-empty", "--quiet"]
    done = call_for_text(generate.main, *options, "Hello")
    assert (done.returncode, done.stderr) == (0, "")
