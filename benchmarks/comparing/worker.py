"""Run one program in its own process: a line of JSON in, a line of JSON out.

    python -m comparing.worker PROGRAM FOLDER --dtype float32 --device cpu

Whatever a program prints goes to stderr. An error ends the process, and its message is the last line of stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

import memory

from comparing.programs import MlxVlm, Ours, Program, random_tokens
from mlx_diffgemma.device.environment import prepare_float32


def main() -> None:
    """Load the program, report it, and answer requests until the pipe is closed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program", choices=["ours", "mlx-vlm", "transformers"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--sampler", default="entropy-bound")
    parser.add_argument("--greedy", action="store_true")
    options = parser.parse_args()
    replies = _own_stdout()
    program = _load(options)
    _send(replies, {"version": program.version(), "vocabulary": program.vocabulary()})
    for line in sys.stdin:
        _send(replies, answer(program, json.loads(line)))


def _load(options: argparse.Namespace) -> Program:
    if options.program == "transformers":
        from comparing.reference import Transformers

        return Transformers(options.folder, options.dtype, options.device)
    prepare_float32(options.dtype)
    import mlx.core as mx

    mx.set_default_device(mx.Device(mx.cpu if options.device == "cpu" else mx.gpu))
    if options.program == "ours":
        return Ours(options.folder, options.dtype, options.greedy)
    return MlxVlm(options.folder, options.dtype, options.greedy, options.sampler)


def answer(program: Program, request: dict[str, Any]) -> dict[str, Any]:
    """Do what a request asks; return the seconds and the peak memory."""
    vocabulary = program.vocabulary()
    program.peak(begin=True)
    match request:
        case {"do": "prefill", "tokens": count, "seed": seed}:
            reply = {"seconds": [program.prefill(random_tokens(seed, count, vocabulary))]}
        case {"do": "steps", "canvas": length, "count": count, "top_k": top_k, "seed": seed}:
            reply = {"seconds": program.steps(random_tokens(seed, length, vocabulary), count, top_k, seed)}
        case {"do": "best", "canvas": length, "seed": seed}:
            reply = {"best": program.best(random_tokens(seed, length, vocabulary))}
        case _:
            raise ValueError(f"unknown request {request}")
    return {**reply, "peak": program.peak(), "resident": memory.peak_resident()}


def _own_stdout() -> TextIO:
    """Return the pipe to the parent, and send everything else that is printed to stderr."""
    pipe = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return pipe


def _send(pipe: TextIO, reply: dict[str, Any]) -> None:
    pipe.write(json.dumps(reply) + "\n")
    pipe.flush()


if __name__ == "__main__":
    main()
