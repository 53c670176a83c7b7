"""Run one probe and print its result as JSON: `python -m mlx_diffgemma.machine_report.probe batch MODEL`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mlx_diffgemma.device.environment import lengthen_command_buffers, prepare_float32
from mlx_diffgemma.errors import DiffGemmaError


def main() -> None:
    """Load the model as the command line says, and measure."""
    parser = argparse.ArgumentParser(prog="mlx_diffgemma.machine_report.probe", description=__doc__)
    parser.add_argument("name")
    parser.add_argument("model")
    parser.add_argument("--revision")
    parser.add_argument("--dtype", type=prepare_float32)
    parser.add_argument("--adapter", type=Path)
    parser.add_argument("--force", action="store_true")
    given = parser.parse_args()
    lengthen_command_buffers()
    # After what MLX reads from the environment is set.
    from mlx_diffgemma.benchmark.diffusion import ModelChoice, load_diffusion
    from mlx_diffgemma.machine_report.probes import PROBES
    from mlx_diffgemma.machine_report.steps import NotRunError

    choice = ModelChoice(
        model=given.model, revision=given.revision, dtype=given.dtype, adapter=given.adapter, force=given.force
    )
    try:
        result = PROBES[given.name](load_diffusion(choice))
    except NotRunError as error:
        result = {"not_run": str(error)}
    except DiffGemmaError as error:
        sys.exit(f"error: {error}")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
