"""Benchmarks and tools of development; `mlx_diffgemma.bench` measures the speed and the answers of a model.

python benchmarks/run.py COMMAND ...        python benchmarks/run.py COMMAND --help

compare       speed and memory beside mlx-vlm, and beside transformers on CUDA
count         arithmetic, bytes and primitives of a denoising step or of a prefill
checkpoint    write a checkpoint with random weights
conversion    seconds and memory of a conversion to 4 bits, beside mlx-vlm
parity        a sliding and a full layer of the release's width, beside transformers
endurance     many generations in one process: speed and memory at the end
batch         answers per second, one by one and side by side
conditioning  error of the top-k signal against the exact one
options       the same questions with several sets of options: right answers, steps, positions computed
constraint    what a constraint costs: its automaton, and its part of a denoising step
constraints   seconds, size and memory of constraints that are hard to build
schemas       real JSON schemas with this project, llguidance and outlines-core: coverage, times, wrong instances
fuzz          random command lines and mangled files: answered, or refused in one line
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

COMMANDS = (
    "compare",
    "count",
    "checkpoint",
    "conversion",
    "parity",
    "endurance",
    "batch",
    "conditioning",
    "options",
    "constraint",
    "constraints",
    "schemas",
    "fuzz",
)
"""Every command is a module of this folder with a function `main(parser, words)`."""


def main(words: Sequence[str] | None = None) -> None:
    """Run the command that the command line names."""
    words = sys.argv[1:] if words is None else words
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="run.py", description=__doc__, formatter_class=raw)
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND")
    command = parser.parse_args(words[:1]).command
    # Only this module is imported: `count` replaces functions of MLX before others import them.
    module = import_module(command)
    module.main(
        argparse.ArgumentParser(prog=f"run.py {command}", description=module.__doc__, formatter_class=raw), words[1:]
    )


if __name__ == "__main__":
    main()
