"""Count the cost of a denoising step or of a prefill: arithmetic, bytes, primitives, passes over the vocabulary.

    python benchmarks/run.py count 26b --prefix 8192
    python benchmarks/run.py count 26b --prefix 8192 --top-k 64 --program ours
    python benchmarks/run.py count mid --device cpu --prefill 8192
    python benchmarks/run.py count FOLDER --program mlx-vlm --json counts.json

The figures are exact and equal on every machine: they are read from the graph that MLX builds; nothing is computed and
no weights are in memory. `counting/costs.py` says how each primitive is counted, `stepping` what one step is.

SHAPE is built in (26b: the release; wide: two of its layers; mid: its proportions, for a CPU; tiny: the tests') or a
checkpoint: a folder, a name on the Hub, or demo.

With --device gpu the graph of a GPU is counted, on any machine: functions of mx.fast are one kernel each, and the
model is made with PLAIN_KERNELS. Two things can differ on a real GPU: MLX stores the scores of attention if it has no
fused kernel for a head size, and kernels that exist for one GPU only are not seen.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from counting.instrument import CountError, install

OURS, THEIRS = "ours", "mlx-vlm"


def main(parser: argparse.ArgumentParser, words: Sequence[str]) -> None:
    """Count, print the tables, write the JSON."""
    arguments = _arguments(parser, words)
    # Before the import of a module that compiles functions.
    install()
    from counting.report import notes, table
    from rich.console import Console

    from mlx_diffgemma.errors import DiffGemmaError

    try:
        found = {name: _figures(arguments, name) for name in arguments.program}
    except (CountError, DiffGemmaError) as error:
        sys.exit(f"error: {error}")
    except ModuleNotFoundError as error:
        if error.name != "mlx_vlm":
            raise
        sys.exit(f"error: mlx-vlm is not installed: install it, or give --program {OURS}")
    console = Console(width=None if sys.stdout.isatty() else 110)
    for name, each in found.items():
        console.print(table(f"{name}: {_title(arguments, name)}", each["parts"], each["total"]))
        if arguments.kinds:
            console.print(table(f"{name}, by primitive", each["kinds"], each["total"]))
        for note in notes(each):
            console.print(note, highlight=False)
    if arguments.json:
        options = {name: value for name, value in vars(arguments).items() if name not in ("json", "kinds", "program")}
        arguments.json.write_text(json.dumps({**options, "programs": found}, indent=1) + "\n")


def _arguments(parser: argparse.ArgumentParser, words: Sequence[str]) -> argparse.Namespace:
    parser.add_argument("shape", help="26b, wide, mid, tiny, or a checkpoint")
    parser.add_argument("--program", action="append", choices=[OURS, THEIRS], help="both by default")
    parser.add_argument("--canvas", type=int, help="positions; the shape's own by default")
    parser.add_argument("--prefix", type=int, default=1024, help="tokens in the cache")
    parser.add_argument("--top-k", type=int, help="tokens that condition the next step, ours only; all by default")
    parser.add_argument("--rows", type=int, help="positions that the step computes, ours only; all by default")
    parser.add_argument("--prefix-top-k", type=int, metavar="N", help="positions of the prefix that full layers see")
    parser.add_argument("--prefill", type=int, metavar="N", help="count a prefill of N tokens instead, ours only")
    parser.add_argument("--bits", type=int, choices=[4, 5, 6, 8, 16], default=4, help="of a built-in shape; 16: bf16")
    parser.add_argument("--device", choices=["cpu", "gpu"], default="gpu")
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16"], help="by default float32 on the CPU, bfloat16 on a GPU"
    )
    parser.add_argument("--kinds", action="store_true", help="print a second table, by primitive")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args(words)
    arguments.program = arguments.program or ([OURS] if arguments.prefill else [OURS, THEIRS])
    arguments.dtype = arguments.dtype or {"cpu": "float32", "gpu": "bfloat16"}[arguments.device]
    if (arguments.canvas is not None and arguments.canvas < 1) or arguments.prefix < 0 or (arguments.prefill or 1) < 1:
        parser.error("--canvas and --prefill must be at least 1, --prefix at least 0")
    for name in ("top_k", "prefix_top_k"):
        if (value := getattr(arguments, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} {value} must be at least 1")
    if arguments.rows is not None and not 1 <= arguments.rows <= (arguments.canvas or arguments.rows):
        parser.error(f"--rows {arguments.rows} must be at least 1 and at most the canvas")
    if arguments.prefill and THEIRS in arguments.program:
        parser.error(f"--prefill counts only this runtime: leave out --program {THEIRS}")
    return arguments


def _figures(arguments: argparse.Namespace, program: str) -> dict[str, Any]:
    """Return the figures of one program. Raises CountError or DiffGemmaError."""
    import mlx.core as mx
    from counting import models, programs
    from counting.report import figures
    from stepping.ours import Stepping

    from mlx_diffgemma.model.kernels import CPU_KERNELS, PLAIN_KERNELS

    mx.set_default_device(mx.Device(mx.cpu))
    subject = models.subject(arguments.shape, None if arguments.bits == 16 else arguments.bits)
    canvas = arguments.canvas or subject.sizes.canvas_length
    dtype, kernels = getattr(mx, arguments.dtype), CPU_KERNELS if arguments.device == "cpu" else PLAIN_KERNELS
    if program == THEIRS:
        counted = programs.their_step(models.theirs(subject, dtype), canvas, arguments.prefix)
    elif arguments.prefill:
        counted = programs.our_prefill(models.ours(subject, dtype, kernels), arguments.prefill, arguments.prefix)
    else:
        model = models.ours(subject, dtype, kernels)
        stepping = Stepping(steps=1, top_k=arguments.top_k, rows=arguments.rows, prefix_top_k=arguments.prefix_top_k)
        counted = programs.our_step(model, canvas, arguments.prefix, stepping)
    logits = 0 if arguments.prefill else (arguments.rows or canvas) * subject.sizes.vocab_size
    return figures(programs.measure(counted, gpu=arguments.device == "gpu"), logits)


def _title(arguments: argparse.Namespace, program: str) -> str:
    what = f"prefill of {arguments.prefill}" if arguments.prefill else "one step"
    kept = "" if arguments.top_k is None or program != OURS else f", top-{arguments.top_k}"
    return f"{what} after {arguments.prefix}, {arguments.shape} in {arguments.dtype}, {arguments.device}{kept}"
