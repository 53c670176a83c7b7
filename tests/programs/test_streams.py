"""Every program with stdout and stderr each a terminal, a file, a pipe, or closed: stdout gets results alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import mlx.core as mx
import pytest
from convert_helpers import tiny_source
from mlx_diffgemma_convert import convert_program, fuse_program
from scripted import Scripted, loading
from streams import KINDS, Left, call_on
from terminal import environment
from trainable import TAUGHT, write_data, write_model

from mlx_diffgemma import bench, edit, generate, infill, models, train
from mlx_diffgemma.checkpoint.adapters import LoRA, adapter_config, attach_adapter, save_adapter
from mlx_diffgemma.checkpoint.weights import load_model

EVERY = list(product(KINDS, KINDS))
EACH = [("terminal", "terminal"), ("file", "terminal"), ("pipe", "closed"), ("closed", "pipe"), ("terminal", "file")]
"""Every kind of each stream, for programs that take their time."""
PROGRESS = ("\x1b[2m", "━", "loading", "reading", "writing", "left", "tok/s")
"""What only progress and figures look like."""

Run = Callable[..., Left]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def call(main: Callable[[], object], *arguments: object, stdout: str, stderr: str) -> Left:
        left = call_on(main, *arguments, folder=tmp_path, stdout=stdout, stderr=stderr, env=environment(COLUMNS="80"))
        assert left.code == 0, left.stderr
        assert "Traceback" not in left.stdout + left.stderr
        return left

    return call


def lines_of(left: Left) -> list[str]:
    """The lines on stdout, which a terminal ends with a carriage return too."""
    return left.stdout.replace("\r\n", "\n").splitlines()


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "mlx_diffgemma.loading", loading(Scripted(text="One.\nTwo.")))


@pytest.mark.parametrize(("stdout", "stderr"), EVERY)
@pytest.mark.usefixtures("scripted")
def test_an_answer(run: Run, stdout: str, stderr: str) -> None:
    left = run(generate.main, "hi", "-m", "scripted", stdout=stdout, stderr=stderr)
    assert lines_of(left) == ([] if stdout == "closed" else ["One.", "Two."])
    assert ("6 tokens in 1 block" in left.stderr) == (stderr != "closed")
    assert ("\x1b[?25l" in left.stderr) == (stdout == stderr == "terminal"), "the canvas needs both terminals"


@pytest.mark.parametrize(("stdout", "stderr"), EVERY)
@pytest.mark.usefixtures("scripted")
def test_a_batch(run: Run, tmp_path: Path, stdout: str, stderr: str) -> None:
    batch = tmp_path / "b.jsonl"
    batch.write_text('{"prompt": "a"}\n' * 3)
    left = run(generate.main, "--batch", batch, "-m", "scripted", stdout=stdout, stderr=stderr)
    assert [json.loads(line)["index"] for line in lines_of(left)] == ([] if stdout == "closed" else [0, 1, 2])
    assert ("answers, " in left.stderr) == (stderr == "terminal"), "only a terminal has a bar"
    assert stderr == "terminal" or left.stderr == ""


@pytest.mark.parametrize(("stdout", "stderr"), EACH)
@pytest.mark.parametrize("program", ["infill", "edit"])
def test_a_revised_text(run: Run, tmp_path: Path, program: str, stdout: str, stderr: str) -> None:
    file = tmp_path / "text"
    file.write_text("The sum is <gap:1>." if program == "infill" else "sum\nThe end.")
    main, asked = (
        (infill.main, ()) if program == "infill" else (edit.main, ("Say it.", "--lines", "1", "--gap-tokens", "1"))
    )
    left = run(main, file, *asked, "-m", "demo", "--max-steps", "2", stdout=stdout, stderr=stderr)
    whole = "".join(lines_of(left))
    if stdout == "closed":
        assert whole == ""
    else:
        assert whole.startswith("The sum is ") if program == "infill" else whole.endswith("The end.")
    assert (" in 1 block" in left.stderr) == (stderr != "closed")
    assert not any(mark in left.stdout for mark in PROGRESS)


@pytest.mark.parametrize(("stdout", "stderr"), EVERY)
def test_a_list_of_models(run: Run, tmp_path: Path, stdout: str, stderr: str) -> None:
    left = run(models.main, tmp_path, stdout=stdout, stderr=stderr)
    assert any(line.startswith("demo ") for line in lines_of(left)) == (stdout != "closed")
    assert left.stderr == ""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_source(tmp_path_factory.mktemp("source") / "source")


@pytest.fixture(scope="module")
def adapter(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter")
    model, lora = load_model(source), LoRA(rank=2, alpha=4.0, layers=1, keys=("self_attn.q_proj",))
    attach_adapter(model, lora, 0)
    mx.eval(model.parameters())
    save_adapter(folder, model, adapter_config(lora, model, {}))
    return folder


@pytest.mark.parametrize(("stdout", "stderr"), EACH)
@pytest.mark.parametrize("program", ["convert", "fuse"])
def test_a_written_model(
    run: Run, source: Path, adapter: Path, tmp_path: Path, *, program: str, stdout: str, stderr: str
) -> None:
    result = tmp_path / "result"
    if program == "convert":
        left = run(convert_program.main, source, result, stdout=stdout, stderr=stderr)
    else:
        left = run(fuse_program.main, source, result, "--adapter", adapter, stdout=stdout, stderr=stderr)
    assert any("total" in line for line in lines_of(left)) == (stdout != "closed")
    assert ("writing" in left.stderr) == (stderr == "terminal")
    assert not any(mark in left.stdout for mark in PROGRESS[1:])


@pytest.mark.parametrize(("stdout", "stderr"), EACH)
def test_a_benchmark(run: Run, stdout: str, stderr: str) -> None:
    quick = ("--lengths", "8", "--prefixes", "8", "--canvases", "8", "--repeats", "1", "--no-answers")
    left = run(bench.main, "demo", *quick, stdout=stdout, stderr=stderr)
    assert any("weights in memory" in line for line in lines_of(left)) == (stdout != "closed")
    assert ("demo: prefill" in left.stderr) == (stderr != "closed")
    assert "demo: " not in left.stdout
    assert all(len(line) <= 80 for line in lines_of(left)) or stdout in ("file", "pipe")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.mark.parametrize(("stdout", "stderr"), EACH)
def test_a_training(run: Run, model: Path, tmp_path: Path, stdout: str, stderr: str) -> None:
    data = write_data(tmp_path / "data", TAUGHT[:2])
    sizes = ("--steps", "2", "--batch-size", "1", "--rank", "1", "--num-layers", "1", "--answers", "0")
    out = tmp_path / "out"
    left = run(train.main, "-m", model, "--data", data, "--out", out, *sizes, stdout=stdout, stderr=stderr)
    assert left.stdout == ""
    assert ("parameters trained" in left.stderr) == (stderr != "closed")
    assert ("left" in left.stderr and "━" in left.stderr) == (stderr == "terminal")
    assert (out / "adapters.safetensors").exists()
