"""The program mlx_diffgemma.bench as its user meets it: tables, --json, --plot, baseline, Ctrl-C, errors, --help."""

from __future__ import annotations

import json
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from autoregressive import CONTEXT, write_llama
from in_process import call_for_text
from terminal import environment, run_in_terminal

import mlx_diffgemma
from mlx_diffgemma import bench

PROGRAM = (sys.executable, "-m", "mlx_diffgemma.bench")
QUICK = ("--lengths", "32", "--prefixes", "32,64", "--canvases", "8,32")
"""Speeds that take no time."""


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("models") / "tiny-llama")


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program in this process, without a terminal."""
    return call_for_text(bench.main, *arguments, env=environment(COLUMNS="120"))


def start(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the program in a process of its own, without a terminal; its help has room for the longest options."""
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment(COLUMNS="120"),
        stdin=subprocess.DEVNULL,
        timeout=120,
        check=False,
    )


def prompts(folder: Path, *records: dict[str, Any]) -> Path:
    """A file of prompts."""
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


# what it prints


def test_on_a_terminal_a_bar_and_then_the_tables(tmp_path: Path) -> None:
    """The bar is there while the answers are asked for, and gone at the end."""
    mine = prompts(
        tmp_path,
        {"name": "sum", "prompt": "What is 90 + 48?", "check": {"regex": "= "}},
        {"name": "json", "prompt": "Give JSON: Vera is 56 and lives in Copenhagen.", "check": {"json_schema": {}}},
    )
    command = [*PROGRAM, "demo", *QUICK, "--prompts", str(mine), "--repeats", "4"]
    # A key that means nothing: the screen is kept as it was when the answers were being given.
    shown = run_in_terminal(command, (90, 40), environment(), keys=[("demo: answers", b" ")], timeout=120)
    assert (shown.code, shown.cursor_visible) == (0, True)
    assert any(re.match(r"demo: answers  \d/8  [━─]{20}", row) for row in shown.shots[0])
    assert "demo: " not in "".join(shown.rows)
    assert f"mlx-diffgemma {mlx_diffgemma.__version__}" in "".join(shown.rows[:2])
    labels = [row.split("  ")[0].strip() for row in shown.rows]
    for label in (
        "speed", "loading", "weights in memory", "most memory", "prefill of 32", "step of 8 after 32",
        "step of 32 after 32", "step of 32 after 64", "suite", "mine.jsonl", "sum", "json", "all",
    ):  # fmt: skip
        assert label in labels, "\n".join(shown.rows)
    [all_prompts] = [row.split() for row in shown.rows if row.startswith(" all ")]
    assert all_prompts[1:3] == ["8/8", "1.0"]


def test_json_and_a_picture_without_a_terminal(tmp_path: Path) -> None:
    plot = tmp_path / "figures.png"
    done = start("demo", *QUICK, "--only", "json", "--repeats", "2", "--seed", "5", "--json", "--plot", plot)
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "demo: loading", "demo: prefill", "demo: steps", "demo: answers", f"{plot}: the figures as a picture",
    ]  # fmt: skip
    assert done.stdout.count("\n") == 1
    found = json.loads(done.stdout)
    assert (found["suite"], found["prompts"], found["whole"]) == ("demo", ["json"], True)
    assert found["asking"] == {"max_tokens": 384, "repeats": 2, "retries": 3, "seed": 5}
    [model] = found["models"]
    assert (model["model"], model["kind"], model["options"]["max_steps"]) == ("demo", "diffusion", 48)
    assert [(at["prefix"], at["canvas"]) for at in model["steps"]] == [(32, 8), (32, 32), (64, 32)]
    assert all(len(at["seconds"]) == 8 and min(at["seconds"]) > 0 for at in model["steps"])
    assert [at["tokens"] for at in model["prefill"]] == [32]
    assert model["peak_memory"] >= model["weights_bytes"] > 5_000_000
    [answers] = model["answers"]
    assert (answers["answers"], answers["accepted"], answers["acceptance"]) == (2, 2, 1.0)
    first, second = answers["replies"]
    assert (first["seed"], second["seed"]) == (5, 8)
    assert json.loads(first["text"]) == {"name": "Vera", "age": 56, "city": "Copenhagen"}
    assert first["tokens"] / first["forwards"] > 1
    assert 0 < first["first_seconds"] <= first["seconds"]
    assert answers["cost_seconds"] == pytest.approx((first["seconds"] + second["seconds"]) / 2)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_baseline_is_asked_and_measured_alike(llama: Path, tmp_path: Path) -> None:
    mine = prompts(
        tmp_path,
        {"prompt": "Hello", "check": {"command": "grep -q DiffusionGemma"}, "max_tokens": 40},
        {"prompt": "1" * (CONTEXT - 20), "check": {"regex": ".*"}, "max_tokens": 20},
    )
    done = run("demo", *QUICK, "--prompts", mine, "--repeats", "1", "--baseline", llama, "--quiet", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    model, baseline = found["models"]
    assert (baseline["model"], baseline["kind"]) == (str(llama), "autoregressive")
    assert [(at["prefix"], at["canvas"]) for at in baseline["steps"]] == [(32, 1), (64, 1)]
    assert [at["tokens"] for at in baseline["prefill"]] == [32]
    assert (model["answers"][0]["acceptance"], baseline["answers"][0]["acceptance"]) == (1.0, 0.0)
    # It takes the most likely token each time: another seed would say the same.
    assert len(baseline["answers"][0]["replies"]) == 1
    assert baseline["answers"][0]["tokens_per_forward"] == 1.0
    assert (baseline["answers"][0]["cost_seconds"], baseline["answers"][0]["steps_per_canvas"]) == (None, None)
    assert len(model["answers"]) == 2
    [dropped] = found["left_out"]
    assert dropped.startswith(f"prompt 2 for {llama}: prompt and max_tokens=20 need ")


def test_random_weights_have_a_speed(demo: Path) -> None:
    """Sixteen positions on the canvas: the demo's prompts, to which random weights know no answer."""
    speeds = ("--lengths", "32", "--prefixes", "32")
    done = run(demo, *speeds, "--only", "s", "--repeats", "1", "--retries", "2", "--max-steps", "2", "-n", "16")
    assert done.returncode == 0
    rows = [row.split() for row in done.stdout.splitlines() if row.strip()]
    assert [row[:3] for row in rows if row[0] == "step"] == [["step", "of", size] for size in ("2", "4", "8", "16")]
    assert next(row for row in rows if row[0] == "all")[1:3] == ["0/4", "2.0"]
    assert next(row for row in rows if row[0] == "all")[-1] == "–"
    refused = [line for line in done.stdout.splitlines() if line.startswith("refused: ")]
    assert [line.split()[1] for line in refused] == ["sudoku,", "sum,", "json,", "sort,"]


def test_what_does_not_fit_is_left_out_and_named() -> None:
    done = run("demo", "--no-answers", "--lengths", "32,4096", "--prefixes", "32,2041", "--canvases", "8,256")
    assert done.returncode == 0
    assert [line for line in done.stdout.splitlines() if line.startswith("left out")] == [
        "left out: prefill of 4,096 tokens: demo holds 2,048 tokens",
        "left out: canvas of 256 tokens: demo denoises 32 positions at most",
        "left out: prefix of 2,041 tokens: demo holds 2,048 tokens, a canvas of 8 among them",
    ]


# Ctrl-C


def test_ctrl_c_prints_what_is_known_by_then(tmp_path: Path) -> None:
    """The check of the second prompt never ends: its command is pressed Ctrl-C on."""
    begun = tmp_path / "begun"
    mine = prompts(
        tmp_path,
        {"name": "quick", "prompt": "Sort: pear, fig", "check": {"regex": "."}},
        {
            "name": "endless",
            "prompt": "Sort: pear, fig",
            "check": {"command": ["sh", "-c", f"touch {begun}; sleep 60"], "timeout": 60},
        },
    )
    command = [*PROGRAM, "demo", "--no-speed", "--prompts", str(mine), "--repeats", "1", "--json", "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), text=True)
    deadline = time.monotonic() + 300
    while not begun.exists():
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stderr) == (130, "")
    found = json.loads(stdout)
    assert found["whole"] is False
    assert [answers["prompt"] for answers in found["models"][0]["answers"]] == ["quick"]


# what is wrong


def test_an_error_in_the_middle_does_not_cost_what_was_measured(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_text("no program")
    broken.chmod(0o755)
    mine = prompts(
        tmp_path,
        {"name": "good", "prompt": "Sort: pear, fig", "check": {"regex": "."}},
        {"name": "bad", "prompt": "Sort: pear, fig", "check": {"command": [str(broken)]}},
    )
    done = run("demo", "--no-speed", "--prompts", mine, "--repeats", "1")
    assert done.returncode == 1
    assert " good " in done.stdout
    assert done.stdout.endswith("ended before everything was measured\n")
    assert done.stderr.splitlines()[-1] == f"error: the check {broken} cannot be run: Exec format error"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("/nowhere",), "error: no such folder: /nowhere"),
        (("demo", "--repeats", "0"), "error: --repeats 0 must be at least 1"),
        (("demo", "--max-steps", "0"), "error: --max-steps 0 must be at least 1"),
        (("demo", "--fast", "--mode", "causal"), "error: --fast has no effect with --mode causal: leave it out"),
        (("demo", "--lengths", "1,x"), "error: --lengths 1,x: give whole numbers above 0, separated by commas"),
        (("demo", "--no-speed", "--no-answers"), "error: neither speeds nor answers: there is nothing to measure"),
        (("demo", "--plot", "figures.jpg"), "error: the plot must be a .png file, not figures.jpg"),
        (("demo", "--prompts", "none.jsonl"), "error: none.jsonl: no such file"),
        (
            ("demo", "--prompts", "x", "--suite", "demo"),
            "error: --suite and --prompts are both given: choose",
        ),
        (("demo", "--baseline", "demo"), "error: the baseline demo is a DiffusionGemma: name a model that mlx-lm runs"),
        (
            ("demo", "--only", "x"),
            "error: --only 'x' is in no name of the suite demo: sudoku, sum, json, count, sort, ",
        ),
        (("demo", "--canvas-length", "64"), "error: --canvas-length 64 is longer than the 32 positions this model was"),
    ],
)
def test_expected_failures_are_one_line_and_exit_1(arguments: tuple[str, ...], message: str) -> None:
    done = run(*arguments, "--quiet")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(message)


def test_usage_errors_exit_2() -> None:
    assert run().returncode == 2
    assert run("demo", "--suite", "half").returncode == 2


# --help


def test_help_lists_every_option_at_once_without_the_heavy_libraries() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = start("--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    # Processor time: what else this machine is doing does not count.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    for option in (
        "MODEL --baseline --adapter --revision --dtype --suite --prompts --only --no-speed --no-answers --lengths "
        "--prefixes --canvases --repeats --retries --system --thinking --max-tokens --seed --canvas-length --max-steps "
        "--t-min --t-max --entropy-bound --stability-threshold --confidence-threshold --greedy "
        "--exact --fast --fastest --conditioning-top-k --no-until-end --allow-empty --mean-entropy --min-steps "
        "--first-canvas --trim --verify --mode "
        "--temperature --top-p --json --plot --quiet --debug --version"
    ).split():
        assert option in done.stdout
    heavy = {"mlx", "transformers", "numpy", "mlx_lm", "huggingface_hub", "matplotlib", "jsonschema", "rich.progress"}
    probe = f"import sys; import mlx_diffgemma.bench; print({heavy} & set(sys.modules))"
    probed = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert probed.stdout == "set()\n"
