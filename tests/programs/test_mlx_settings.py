"""What the programs set for MLX before they import it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from terminal import environment

PROBE = """
import json, os, sys
from importlib import import_module

class Import:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mlx":
            print(json.dumps(os.environ.get("MLX_ENABLE_TF32")))
            os._exit(0)

program, *words = sys.argv[1:]
sys.argv = ["program", *words]
sys.meta_path.insert(0, Import())
import_module(f"mlx_diffgemma.{program}").main()
"""
"""Runs a program up to its first import of MLX, and prints the variable's value there."""
COMMANDS = {
    "generate": ("hi", "-m", "demo"),
    "infill": ("-", "-m", "demo"),
    "edit": ("-", "It is short.", "--lines", "1", "-m", "demo"),
    "bench": ("demo",),
    "train": ("--model", "demo", "--data", "none"),
}


def value_at_import(program: str, *words: str, **env: str) -> str | None:
    """The value of MLX_ENABLE_TF32 when a program imports MLX."""
    surroundings = {name: value for name, value in environment().items() if name != "MLX_ENABLE_TF32"}
    command = [sys.executable, "-c", PROBE, program, *COMMANDS[program], *words]
    done = subprocess.run(
        command, input="a <gap:1>", capture_output=True, text=True, env={**surroundings, **env}, timeout=60, check=False
    )
    assert done.stdout, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("program", COMMANDS)
def test_float32_is_asked_of_mlx_before_it_is_imported(program: str) -> None:
    assert value_at_import(program, "--dtype", "float32") == "0"


def test_float32_is_not_asked_of_mlx_otherwise() -> None:
    assert value_at_import("generate") is None
    assert value_at_import("generate", "--dtype", "bfloat16") is None
    assert value_at_import("generate", "--dtype", "float32", MLX_ENABLE_TF32="1") == "1"
