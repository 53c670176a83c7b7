"""Compare a conversion to 4 bits with mlx-vlm's on one checkpoint: wall time and peak resident memory.

    python benchmarks/run.py checkpoint CHECKPOINT --width full --layers 3
    python benchmarks/run.py conversion CHECKPOINT SCRATCH --runs 3

The converters take turns, and each run has its own process. The checkpoint is read once before, so that it is in the
page cache as far as it fits. mlx-vlm runs without loading a tokenizer and a processor, because a random checkpoint has
neither; that favours mlx-vlm.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import memory

PEER = """
import importlib, sys
class NoProcessor:
    def save_pretrained(self, *_, **__): pass
importlib.import_module("mlx_vlm.utils").load_processor = lambda *_, **__: NoProcessor()
importlib.import_module("mlx_vlm.convert").convert(sys.argv[1], sys.argv[2], quantize=True, q_bits=4, q_group_size=64)
"""
OURS = "ours"
THEIRS = "mlx-vlm"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One conversion: seconds of wall time, peak resident bytes, bytes of the result."""

    seconds: float
    peak: int
    written: int


def measure(command: list[str], result: Path) -> Run:
    """Run a conversion and delete its result. Raises SystemExit with its output if it fails."""
    os.sync()
    begin = time.perf_counter()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        output = process.stdout.read() if process.stdout else b""
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - begin
    if process.returncode:
        raise SystemExit(output.decode(errors="replace"))
    written = sum(file.stat().st_size for file in result.iterdir())
    shutil.rmtree(result)
    return Run(seconds=seconds, peak=usage.ru_maxrss * memory.UNIT, written=written)


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Alternate the two converters and print medians, ranges and ratios."""
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("scratch", type=Path, help="folder for the results, which are deleted")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--peer-python", default=sys.executable, help="an interpreter that has mlx-vlm")
    arguments = parser.parse_args(words)
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    result = arguments.scratch / "converted"
    paths = [str(arguments.checkpoint), str(result)]
    commands = {
        OURS: [sys.executable, "-m", "mlx_diffgemma.convert", *paths, "--bits", "4"],
        THEIRS: [arguments.peer_python, "-c", PEER, *paths],
    }
    for file in sorted(arguments.checkpoint.iterdir()):
        _read_through(file)
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for number in range(arguments.runs):
        for name, command in commands.items():
            run = measure(command, result)
            runs[name].append(run)
            print(f"run {number + 1} {name:8} {run.seconds:7.2f} s {run.peak / 1e9:6.2f} GB peak", flush=True)
    _report(runs)


def _read_through(file: Path) -> None:
    with file.open("rb", buffering=0) as stream:
        while stream.read(16 << 20):
            pass


def _report(runs: dict[str, list[Run]]) -> None:
    print(f"\n{'':8} {'seconds, median (range)':>30} {'peak GB, median (range)':>30} {'written GB':>11}")
    for name, measured in runs.items():
        seconds = _spread([run.seconds for run in measured])
        peak = _spread([run.peak / 1e9 for run in measured])
        print(f"{name:8} {seconds:>30} {peak:>30} {measured[0].written / 1e9:11.2f}")
    time_ratio, peak_ratio = (
        statistics.median(getattr(run, what) for run in runs[OURS])
        / statistics.median(getattr(run, what) for run in runs[THEIRS])
        for what in ("seconds", "peak")
    )
    print(f"{'ratio':8} {time_ratio:>30.2f} {peak_ratio:>30.2f}")


def _spread(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"
