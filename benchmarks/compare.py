"""Compare steps, prefills and their memory with mlx-vlm's: equal checkpoint, prompt, canvas, steps and dtype.

    python benchmarks/run.py compare SCRATCH --shape demo --shape mid
    python benchmarks/run.py compare SCRATCH --shape mid --prefix 32768 --turns 3 --assert
    python benchmarks/run.py compare SCRATCH --shape full --device cuda --json full.json

Each program has its own process, and the processes take turns (`comparing/turns.py`). `stepping/__init__.py` says what
one step is on each side, and which options of mlx-vlm make it equal work. Seconds are wall clock. Peak memory is the
maximum that MLX held, weights and cache included.

Shapes: demo (the model in the package), mid (hidden 512, 8 layers, 32 experts, vocabulary 65,536), wide (a sliding and
a full layer of the release, whole vocabulary), full (all 30 layers, random 4-bit weights). SCRATCH keeps the
checkpoints: mid takes 0.2 GB, wide 4.8, full 15.4. On CUDA with torch installed, full is also compared with
transformers; --reference does that for any shape and device.

On Linux, MLX's own BLAS is slow enough to hide everything else: preload OpenBLAS for all programs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mlx.core as mx
from comparing.link import ProgramError, Worker
from comparing.report import Row, as_json, notes, rows, table
from comparing.shapes import MARGIN, SHAPES, Shape, folder_of, weights_bytes
from comparing.turns import OURS, Measured, Plan, measure
from rich.console import Console

from mlx_diffgemma.errors import DiffGemmaError

SAMPLERS = ["entropy-bound", "confidence-threshold"]


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Make the checkpoints, measure, print the table, write the JSON."""
    arguments = _arguments(parser, words)
    console = Console(stderr=True)
    measured: list[Measured] = []
    versions: dict[str, str] = {}
    try:
        for name in arguments.shape:
            measured += _measure_shape(SHAPES[name], arguments, console, versions)
    except (ProgramError, DiffGemmaError, OSError) as error:
        sys.exit(f"error: {error}")
    judged = arguments.device == "cpu" and arguments.dtype == "float32"
    found = [row for each in measured for row in rows(each, judged=judged)]
    # Every row fits one line, also if the output is no terminal.
    out = Console(width=None if sys.stdout.isatty() else 120)
    out.print(table(found))
    for each in measured:
        for line in notes(each):
            out.print(line, highlight=False)
    if arguments.json:
        whole = as_json(measured, found, {**_machine(arguments), "programs": versions})
        arguments.json.write_text(json.dumps(whole, indent=1) + "\n")
    if arguments.asserted and (missed := [row for row in found if row.missed]):
        sys.exit("\n".join(map(_complaint, missed)))


def _measure_shape(
    shape: Shape, arguments: argparse.Namespace, console: Console, versions: dict[str, str]
) -> list[Measured]:
    """Measure one shape after every prefix; add the programs' versions. Raises ProgramError or DiffGemmaError."""
    with console.status(f"{shape.name}: making the checkpoint"):
        folder = folder_of(shape, arguments.scratch)
    workers = _workers(shape, folder, arguments)
    needed = MARGIN * len(workers) * weights_bytes(folder, arguments.dtype)
    plan = Plan(
        canvas=arguments.canvas or shape.canvas,
        steps=arguments.steps,
        turns=arguments.turns,
        prefill_turns=min(arguments.prefill_turns, arguments.turns),
        top_k=arguments.top_k or None,
        apart=arguments.apart or needed > 0.8 * _memory(arguments.device),
    )
    results: list[Measured] = []
    try:
        with console.status("") as status:
            for prefix in shape.prefixes if arguments.prefix is None else arguments.prefix:
                for event in measure(shape, prefix, workers, plan):
                    if isinstance(event, Measured):
                        results.append(event)
                    else:
                        status.update(event)
    finally:
        for worker in workers:
            versions |= {worker.name: worker.started["version"]} if worker.started else {}
            worker.close()
    return results


def _workers(shape: Shape, folder: Path, arguments: argparse.Namespace) -> list[Worker]:
    """Return the programs that are compared on a shape."""
    options = ["--dtype", arguments.dtype, "--device", arguments.device, "--sampler", arguments.sampler]
    options += ["--greedy"] if arguments.greedy else []
    names = [OURS, "mlx-vlm"]
    on_gpu = shape.name == "full" and arguments.device == "cuda" and find_spec("torch") is not None
    if arguments.reference or on_gpu:
        names.append("transformers")
    return [Worker(name=name, folder=folder, options=tuple(options), python=arguments.python) for name in names]


def _arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    parser.add_argument("scratch", type=Path, help="folder that keeps the checkpoints")
    parser.add_argument(
        "--shape", action="append", choices=list(SHAPES), help="can be repeated; demo and mid by default"
    )
    parser.add_argument("--prefix", type=int, action="append", help="tokens; can be repeated; the shape's by default")
    parser.add_argument("--canvas", type=int, help="positions; the shape's by default")
    parser.add_argument("--steps", type=int, default=4, help="per turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--prefill-turns", type=int, default=3, help="turns that also encode the prefix")
    parser.add_argument("--top-k", type=int, default=64, help="conditioning of our second kind of steps; 0: none")
    parser.add_argument("--device", choices=["cpu", "metal", "cuda"], help="MLX's default device if left out")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="by default float32 on the CPU, bfloat16 on a GPU"
    )
    parser.add_argument(
        "--sampler", choices=SAMPLERS, default=SAMPLERS[0], help="mlx-vlm's; its own default is the second"
    )
    parser.add_argument("--greedy", action="store_true", help="take the most likely tokens, on both sides")
    parser.add_argument("--apart", action="store_true", help="one program in memory at a time")
    parser.add_argument("--reference", action="store_true", help="compare with transformers too")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has all programs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--assert", dest="asserted", action="store_true", help="exit with 1 if a target is missed")
    arguments = parser.parse_args(words)
    arguments.shape = arguments.shape or ["demo", "mid"]
    _check(parser, arguments)
    arguments.dtype = arguments.dtype or ("float32" if arguments.device == "cpu" else "bfloat16")
    return arguments


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Resolve the device; refuse wrong options in one line."""
    here = _device()
    if arguments.device is None and "full" in arguments.shape and here == "cpu":
        parser.error("--shape full takes minutes a step on the CPU, which is all there is: add --device cpu to have it")
    arguments.device = arguments.device or here
    if arguments.device not in ("cpu", here):
        parser.error(f"--device {arguments.device}: MLX has {here} here")
    for name in ("steps", "turns", "prefill_turns"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(arguments, name)} must be at least 1")
    if arguments.canvas is not None and arguments.canvas < 1:
        parser.error(f"--canvas {arguments.canvas} must be at least 1")
    if arguments.top_k < 0 or any(prefix < 0 for prefix in arguments.prefix or ()):
        parser.error("--top-k and --prefix must not be below 0")


def _device() -> str:
    """Return the default device of MLX."""
    if mx.metal.is_available():
        return "metal"
    return "cuda" if mx.is_available(mx.Device(mx.gpu)) else "cpu"


def _memory(device: str) -> int:
    """Return the bytes of memory that the programs share."""
    if device == "cuda":
        return int(mx.device_info(mx.Device(mx.gpu))["total_memory"])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _machine(arguments: argparse.Namespace) -> dict[str, Any]:
    options = {name: value for name, value in vars(arguments).items() if not isinstance(value, Path)}
    return {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "preloaded": os.environ.get("LD_PRELOAD", ""),
        "device": {name: str(value) for name, value in mx.device_info().items()},
        "options": {name: value for name, value in options.items() if name not in ("python", "asserted")},
    }


def _complaint(row: Row) -> str:
    what = row.what if row.unit == "seconds" else f"{row.what}, peak memory"
    return f"{row.shape}, prefix {row.prefix}, {what}: {row.ratio:.2f} of {row.peer}'s, wanted {row.target:.2f}"
