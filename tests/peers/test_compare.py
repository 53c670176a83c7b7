"""The comparison with mlx-vlm runs, both programs compute equal tokens, and a wrong option is named in one line."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import compare
import mlx.core as mx
import pytest
import run
from comparing.link import ProgramError, Worker
from comparing.report import LONG, WHOLE, notes, rows, table
from comparing.shapes import SHAPES, Shape, folder_of
from comparing.turns import EXACT, OURS, PREFILL, Measured, Plan, Series, top_k_name
from mlx_vlm.utils import load_model as load_with_mlx_vlm
from random_checkpoint import CALM, write_checkpoint
from random_packed import write_packed
from rich.console import Console
from tiny import denoised, encoded

from mlx_diffgemma.checkpoint.weights import load_model

RUN = Path(run.__file__)
ON_CPU = ("--dtype", "float32", "--device", "cpu")
PLAN = Plan(canvas=4, steps=1, turns=3, prefill_turns=1, top_k=64, apart=False)


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What a small comparison on the demo model prints and writes."""
    scratch = tmp_path_factory.mktemp("compare")
    options = ["--shape", "demo", "--prefix", "0", "--prefix", "64", "--turns", "2", "--steps", "2"]
    command = [
        sys.executable,
        str(RUN),
        "compare",
        str(scratch),
        *options,
        *ON_CPU,
        "--json",
        str(scratch / "found.json"),
    ]
    out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    return out.stdout, json.loads((scratch / "found.json").read_text())


def test_both_find_the_same_tokens_most_likely(compared: tuple[str, dict[str, Any]]) -> None:
    for measured in compared[1]["measured"]:
        ours, theirs = (measured["series"][name]["best"] for name in (OURS, "mlx-vlm"))
        assert len(ours) == 32
        assert ours == theirs


def test_every_figure_is_there_for_every_turn(compared: tuple[str, dict[str, Any]]) -> None:
    found = compared[1]
    assert [measured["prefix"] for measured in found["measured"]] == [0, 64]
    for measured in found["measured"]:
        for name, series in measured["series"].items():
            steps = {EXACT, top_k_name(64)} if name == OURS else {EXACT}
            wanted = steps | ({PREFILL} if measured["prefix"] else set())
            assert series["seconds"].keys() == series["peaks"].keys() == wanted
            assert all(len(values) == 2 and min(values) > 0 for values in series["seconds"].values())
            assert all(min(values) > 5_000_000 for values in series["peaks"].values())
            assert series["resident"] > max(series["peaks"][EXACT])
    shown = {(row["prefix"], row["what"], row["unit"]) for row in found["rows"]}
    assert (64, PREFILL, "seconds") in shown
    assert {(prefix, EXACT, unit) for prefix in (0, 64) for unit in ("seconds", "peak")} <= shown
    assert all(row["least"] <= row["ratio"] <= row["most"] for row in found["rows"])
    assert found["machine"]["options"]["steps"] == 2
    assert found["machine"]["programs"]["mlx-vlm"].startswith("mlx-vlm 0.7.10, mlx ")


def test_the_table_names_what_is_compared(compared: tuple[str, dict[str, Any]]) -> None:
    printed = compared[0]
    for word in ("shape", "prefix", "ratio", "spread", "mlx-vlm", PREFILL, EXACT, top_k_name(64), f"{EXACT}: peak"):
        assert word in printed
    assert "demo, prefix 64: 32 of 32 tokens as mlx-vlm has them" in printed


def series(step: list[float], top: list[float] | None = None, prefill: float = 1.0, peak: int = 100) -> Series:
    seconds = {PREFILL: [prefill], EXACT: step, **({} if top is None else {top_k_name(64): top})}
    return Series(seconds=seconds, peaks={EXACT: [peak] * len(step)}, best=[1, 2, 3, 4])


def test_a_ratio_is_of_one_turn_and_its_spread_from_the_least_to_the_most() -> None:
    both = {OURS: series([1.0, 3.6, 8.0], [1.0, 3.0, 4.0], prefill=1.1), "mlx-vlm": series([2.0, 4.0, 10.0])}
    measured = Measured(shape="mid", prefix=LONG, plan=PLAN, series=both)
    found = {(row.what, row.unit): row for row in rows(measured, judged=True)}
    exact, top = found[EXACT, "seconds"], found[top_k_name(64), "seconds"]
    assert (exact.ours, exact.theirs) == (3.6, 4.0)
    assert (exact.least, exact.ratio, exact.most) == (0.5, 0.8, 0.9)
    assert (exact.target, exact.missed) == (0.9, False)
    assert (top.ratio, top.target, top.missed) == (0.5, 0.45, True)
    assert found[PREFILL, "seconds"].missed
    assert found[WHOLE, "peak"].missed
    assert found[EXACT, "peak"].target is None
    assert not any(row.target for row in rows(measured, judged=False))
    assert next(notes(measured)).startswith(f"mid, prefix {LONG}: 4 of 4 tokens")
    out = io.StringIO()
    Console(file=out, width=140).print(table(list(found.values())))
    assert "0.50 missed" in out.getvalue()


def test_a_checkpoint_is_made_once_and_never_half(tmp_path: Path) -> None:
    made: list[Path] = []

    def make(folder: Path) -> None:
        made.append(folder)
        folder.mkdir()
        if len(made) == 1:
            raise KeyboardInterrupt

    shape = Shape(name="small", make=make, prefixes=(0,), canvas=4)
    with pytest.raises(KeyboardInterrupt):
        folder_of(shape, tmp_path)
    assert not (tmp_path / "small").exists()
    assert folder_of(shape, tmp_path) == folder_of(shape, tmp_path) == tmp_path / "small"
    assert len(made) == 2


def test_packed_random_weights_are_a_checkpoint_for_both(tmp_path: Path) -> None:
    write_packed(tmp_path, layers=3, width="tiny", bits=4)
    theirs, ours = load_with_mlx_vlm(tmp_path), load_model(tmp_path, "float32")
    theirs.set_dtype(mx.float32)
    tokens, canvas = (mx.random.randint(0, 512, (1, length), key=mx.random.key(length)) for length in (40, 16))
    cache = ours.make_cache()
    encoded(ours, tokens, cache)
    found, expected = denoised(ours, canvas, cache), theirs(input_ids=tokens, canvas_ids=canvas).logits
    assert mx.max(mx.abs(found - expected)).item() < 1e-4 * mx.max(mx.abs(expected)).item()
    assert mx.array_equal(mx.argmax(found, axis=-1), mx.argmax(expected, axis=-1))


def test_a_calm_checkpoint_differs_in_its_norms_alone(tmp_path: Path) -> None:
    for name, calm in (("plain", False), ("calm", True)):
        write_checkpoint(tmp_path / name, layers=2, width="tiny", calm=calm)
    plain, calm = (mx.load(str(next((tmp_path / name).glob("*.safetensors")))) for name in ("plain", "calm"))
    changed = {name for name in plain if not mx.array_equal(plain[name], calm[name])}
    assert changed == {name for name in plain if name.endswith(tuple(CALM))}
    assert len(changed) == 5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--shape", "full"], "--shape full takes minutes a step on the CPU"),
        (["--device", "cuda"], "--device cuda: MLX has cpu here"),
        (["--turns", "0"], "--turns 0 must be at least 1"),
        (["--canvas", "0"], "--canvas 0 must be at least 1"),
        (["--prefix", "-1"], "--top-k and --prefix must not be below 0"),
    ],
)
def test_a_wrong_option_is_named_in_one_line(
    options: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare, "_device", lambda: "cpu")
    with pytest.raises(SystemExit) as ended:
        run.main(["compare", "scratch", *options])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("program", [OURS, "mlx-vlm"])
def test_a_program_that_ends_is_named_with_what_it_said_last(program: str, tmp_path: Path) -> None:
    worker = Worker(name=program, folder=tmp_path, options=ON_CPU)
    with pytest.raises(ProgramError, match=f"{program} ended with 1 on {tmp_path}: .*[cC]onfig"):
        worker.ask(do="best", canvas=4, seed=0)
    assert not worker.running


def test_the_full_shape_is_the_release_in_four_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr("comparing.shapes.write_packed", lambda folder, **sizes: asked.update(sizes))
    make = SHAPES["full"].make
    assert make is not None
    make(tmp_path)
    assert asked == {"layers": 30, "width": "full", "bits": 4}
