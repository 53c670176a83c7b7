"""The program mlx_diffgemma.train as its user meets it: files, bar, lines, Ctrl-C, --resume, errors, --help."""

from __future__ import annotations

import json
import re
import resource
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from convert_helpers import options as conversion
from convert_helpers import run as convert
from in_process import call_for_text
from terminal import environment, run_in_terminal
from trainable import TAUGHT, write_data, write_model

from mlx_diffgemma import train
from mlx_diffgemma.cli.training import longer_note
from mlx_diffgemma.training.settings import TrainingSettings
from mlx_diffgemma.training.state import State

PROGRAM = (sys.executable, "-m", "mlx_diffgemma.train")
FILES = {"adapters.safetensors", "adapter_config.json", "log.jsonl", "loss.png", "state"}
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"), valid=TAUGHT[:2])


def command(model: Path, data: Path, out: Path, *options: str, steps: int = 6) -> list[str]:
    """A small training on the command line."""
    sizes = ["--steps", str(steps), "--batch-size", "2", "--rank", "4", "--answers", "1"]
    return [*PROGRAM, "--model", str(model), "--data", str(data), "--out", str(out), *sizes, *options]


def call(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the program in this process, without a terminal."""
    return call_for_text(train.main, *arguments[len(PROGRAM) :], env=environment())


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own, without a terminal."""
    return subprocess.run(
        arguments, capture_output=True, text=True, env=environment(), stdin=subprocess.DEVNULL, timeout=120, check=False
    )


def records(out: Path, event: str) -> list[Mapping[str, Any]]:
    """The log's records of one kind."""
    lines = (out / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == event]


# on a terminal


def test_a_training_on_a_terminal(model: Path, data: Path, tmp_path: Path) -> None:
    """A bar with step, loss, speed and time left, evaluations above it; afterwards everything is in the folder."""
    out = tmp_path / "new" / "out"
    arguments = command(model, data, out, "--learning-rate", "1e-3", "--evaluate-every", "10", steps=20)
    # A key that means nothing: the screen is kept as it was in a step.
    shown = run_in_terminal(arguments, (80, 24), environment(), keys=[("tokens/s", b" ")], timeout=120)
    assert shown.code == 0
    assert shown.cursor_visible
    [bar] = [row for row in shown.shots[0] if "tokens/s" in row]
    assert re.fullmatch(r"loss \d+\.\d{4}  [\d,]+ tokens/s  \d+/20  [━─]{20}  [\d:]+ left", bar)
    begun = next(row for row in shown.rows if "parameters trained" in row)
    assert "16 examples, 2 held out, 20 steps of 2" in begun
    evaluations = [row for row in shown.rows if "held out: canvas" in row]
    assert [row.split()[1] for row in evaluations] == ["10", "20"]
    assert all("causal" in row and "answers 0/1" in row for row in evaluations)
    # The terminal breaks the line where the folder's name is long, and drops the blank there.
    assert "".join(shown.rows[-3:]).replace(" ", "").endswith("out:adapter,log.jsonlandloss.png")
    assert not any("tokens/s" in row for row in shown.rows), "the bar is gone at the end"
    assert_whole(out, steps=20)


def assert_whole(out: Path, steps: int) -> None:
    """All files are there, and hold what they should."""
    assert {path.name for path in out.iterdir()} == FILES
    adapter = mx.load(str(out / "adapters.safetensors"))
    assert {name.rpartition(".")[2] for name in adapter} == {"lora_a", "lora_b"}
    assert all(mx.isfinite(array).all().item() for array in adapter.values())
    settings = json.loads((out / "adapter_config.json").read_text())
    assert (settings["fine_tune_type"], settings["num_layers"]) == ("lora", 2)
    assert settings["lora_parameters"]["rank"] == 4
    assert settings["settings"]["steps"] == steps
    stepped = records(out, "step")
    assert [record["step"] for record in stepped] == list(range(1, steps + 1))
    assert set(stepped[0]) == {"event", "step", "loss", "canvas", "causal", "rate", "norm", "tokens", "seconds"}
    assert records(out, "evaluation")[-1]["step"] == steps
    picture = (out / "loss.png").read_bytes()
    assert picture.startswith(PNG)
    width, height = struct.unpack(">II", picture[16:24])
    assert (width, height) == (960, 540)
    assert 10_000 < len(picture) < 300_000


# without a terminal


def test_without_a_terminal_there_are_lines(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run(command(model, data, out, "--full", "--evaluate-every", "0", steps=3))
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout) == (0, "")
    assert "\x1b" not in done.stderr
    assert lines[0].endswith("parameters trained, 16 examples, 2 held out, 3 steps of 2")
    assert [line.split()[:3] for line in lines[1:4]] == [["step", str(step), "loss"] for step in (1, 2, 3)]
    assert all(line.endswith(" tokens/s") for line in lines[1:4])
    assert lines[4].startswith("step      3   held out: canvas ")
    assert lines[5] == f"{out}: adapter, log.jsonl and loss.png"
    assert len(lines) == 6
    assert json.loads((out / "adapter_config.json").read_text())["fine_tune_type"] == "full"


def test_ctrl_c_saves_and_a_resumed_training_finishes(model: Path, data: Path, tmp_path: Path) -> None:
    """The log is opened once Ctrl-C is minded; then three steps, with an evaluation after each, take seconds.

    Ctrl-C is pressed again and again: while MLX asks for a compiler, by system(), the C library ignores it.
    """
    out = tmp_path / "out"
    arguments = command(model, data, out, "--evaluate-every", "1", steps=3)
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True)
    deadline = time.monotonic() + 300
    while not (out / "log.jsonl").exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    while process.poll() is None:
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    stdout, stderr = process.communicate(timeout=300)
    assert (process.returncode, stdout) == (130, "")
    assert stderr.splitlines()[-1] == f"stopped; {out} is saved, --resume goes on"
    assert "Traceback" not in stderr
    reached = json.loads((out / "state" / "state.json").read_text())["step"]
    assert 1 <= reached < 3
    assert {path.name for path in out.iterdir()} == FILES
    refused = call(arguments)
    assert (refused.returncode, refused.stderr) == (
        1,
        f"error: {out} holds a training at step {reached}: add --resume to go on, or choose another folder\n",
    )
    resumed = call([*arguments, "--resume", "--quiet"])
    assert (resumed.returncode, resumed.stdout, resumed.stderr) == (0, "", "")
    assert_whole(out, steps=3)


# what is wrong


def test_a_bad_line_of_data_is_one_line_and_nothing_is_written(model: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    with (data / "train.jsonl").open("a") as file:
        file.write('{"prompt": "Who?"}\n')
    done = call(command(model, data, tmp_path / "out"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (f"error: {data}/train.jsonl, line 17: neither messages nor prompt and completion nor text\n")
    assert not (tmp_path / "out").exists()


def test_a_quantized_model_is_not_trained_in_full(demo: Path, data: Path, tmp_path: Path) -> None:
    convert(conversion(demo, tmp_path / "4bit"))
    done = call(command(tmp_path / "4bit", data, tmp_path / "out", "--full"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: a quantized model cannot be trained in full: train an adapter, or name unquantized weights\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--steps", "0"), "error: --steps 0 must be at least 1\n"),
        (("--learning-rate", "nan"), "error: --learning-rate nan must be a number\n"),
        (("--rank", "0"), "error: --rank 0 must be at least 1\n"),
        (("--resume",), "/out holds no training to resume: leave --resume out, or name another folder\n"),
    ],
)
def test_options_out_of_range_are_one_line(
    model: Path, data: Path, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    done = call(command(model, data, tmp_path / "out", *options))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(message)
    assert done.stderr.count("\n") == 1


def test_usage_errors_exit_2(model: Path) -> None:
    assert call([*PROGRAM, "--model", str(model)]).returncode == 2
    assert call([*PROGRAM, "--model", str(model), "--data", ".", "--steps", "many"]).returncode == 2


# --help


def test_help_lists_every_option_at_once_without_the_heavy_libraries() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = run([*PROGRAM, "--help"])
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    # Processor time: what else this machine is doing does not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    for option in (
        "--data --model --adapter-path --out --revision --dtype --full --rank --alpha --num-layers --experts --router "
        "--steps --iters --batch-size --accumulate --learning-rate --warmup --final-rate --beta1 --beta2 --clip "
        "--weight-decay --causal-weight --mask-prompt --max-seq-length --grad-checkpoint --workers --seed "
        "--evaluate-every --answers --save-every --resume --quiet --debug --version"
    ).split():
        assert option in done.stdout
    probe = (
        "import sys; import mlx_diffgemma.train\n"
        "print({'mlx', 'transformers', 'numpy', 'mlx_lm', 'huggingface_hub', 'matplotlib'} & set(sys.modules))"
    )
    assert run([sys.executable, "-c", probe]).stdout == "set()\n"


def test_more_steps_than_planned_say_what_the_learning_rate_becomes() -> None:
    """By the old plan the rate is at its end after 600 steps; by the new one it is on its way."""
    done = State(step=600, parameters={}, optimizer={}, planned=600)
    longer = TrainingSettings(steps=900, learning_rate=1e-3)
    assert longer_note(done, longer) == (
        "900 steps instead of 600: the learning rate is 0.000325 in step 601, by the old plan 0.0001"
    )
    assert longer_note(done, TrainingSettings(steps=600)) is None
