"""A denoising step, a prefill and their memory beside mlx-vlm's: the same checkpoint, prompt, canvas, steps and dtype.

    python benchmarks/compare_mlx_vlm.py SCRATCH --shape demo --shape mid
    python benchmarks/compare_mlx_vlm.py SCRATCH --shape mid --prefix 32768 --turns 3 --assert
    python benchmarks/compare_mlx_vlm.py SCRATCH --shape full --device cuda --json full.json

Each program runs in a process of its own and they take turns (`comparing/turns.py`). What one step is on each side, and
which of mlx-vlm's options make it the same work, is in `stepping/__init__.py`. Seconds are wall clock; peak memory is
what MLX held at most, weights and cache included, in the process that did only this.

Shapes: demo (the model in the package), mid (hidden 512, 8 layers, 32 experts, vocabulary 65,536), wide (a sliding and
a full layer of the release, whole vocabulary), full (all 30 layers, random 4-bit weights). The checkpoints are made in
SCRATCH once: mid takes 0.2 GB, wide 4.8, full 15.4. On CUDA, full is measured against transformers too, where torch is
installed (--reference asks for it elsewhere).

MLX's own BLAS on Linux is slow enough to hide everything else: preload OpenBLAS, for all programs alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
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


def main() -> None:
    """Make the checkpoints, measure, print the table, write the JSON."""
    arguments = _arguments()
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
    # Figures stand in one line each, also where the output is no terminal.
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
    """One shape behind every prefix; notes the programs' versions. Raises ProgramError or DiffGemmaError."""
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
    """The programs that are compared on a shape."""
    options = ["--dtype", arguments.dtype, "--device", arguments.device, "--sampler", arguments.sampler]
    options += ["--greedy"] if arguments.greedy else []
    names = [OURS, "mlx-vlm"]
    on_gpu = shape.name == "full" and arguments.device == "cuda" and find_spec("torch") is not None
    if arguments.reference or on_gpu:
        names.append("transformers")
    return [Worker(name=name, folder=folder, options=tuple(options), python=arguments.python) for name in names]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scratch", type=Path, help="a folder for the checkpoints, which stay there")
    parser.add_argument("--shape", action="append", choices=list(SHAPES), help="several; demo and mid by default")
    parser.add_argument("--prefix", type=int, action="append", help="tokens; several; the shape's by default")
    parser.add_argument("--canvas", type=int, help="positions; the shape's by default")
    parser.add_argument("--steps", type=int, default=4, help="per turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--prefill-turns", type=int, default=3, help="turns that encode the prefix anew")
    parser.add_argument("--top-k", type=int, default=64, help="of our second kind of steps; 0 for none")
    parser.add_argument("--device", choices=["cpu", "metal", "cuda"], help="what MLX would choose by default")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="float32 on the CPU, bfloat16 on a GPU")
    parser.add_argument("--sampler", choices=SAMPLERS, default=SAMPLERS[0], help="mlx-vlm's; the second is its default")
    parser.add_argument("--greedy", action="store_true", help="no draws, on either side")
    parser.add_argument("--apart", action="store_true", help="one program in memory at a time")
    parser.add_argument("--reference", action="store_true", help="transformers too, whatever the shape and device")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has all programs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--assert", dest="asserted", action="store_true", help="exit with 1 where a target is missed")
    arguments = parser.parse_args()
    arguments.shape = arguments.shape or ["demo", "mid"]
    _check(parser, arguments)
    arguments.dtype = arguments.dtype or ("float32" if arguments.device == "cpu" else "bfloat16")
    return arguments


def _check(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> None:
    """Resolve the device; refuse, in one line, what cannot be meant."""
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
    """Where MLX computes unless told otherwise."""
    if mx.metal.is_available():
        return "metal"
    return "cuda" if mx.is_available(mx.Device(mx.gpu)) else "cpu"


def _memory(device: str) -> int:
    """Bytes that the programs share."""
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


if __name__ == "__main__":
    main()
