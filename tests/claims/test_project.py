"""Facts about the project that nothing else would notice."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from demo_checkpoint import write_demo

import mlx_diffgemma
from mlx_diffgemma import load

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_version_is_the_same_everywhere() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert version("mlx-diffgemma") == mlx_diffgemma.__version__
    assert f"## {mlx_diffgemma.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_constraints_name_versions_and_no_addresses() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line) for line in lines if not line.startswith("#"))


def test_every_dependency_has_a_tested_version() -> None:
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in (ROOT / "constraints.txt").open()}
    wanted = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
    wanted += [*PROJECT["optional-dependencies"]["plot"], *PROJECT["optional-dependencies"]["bench"]]
    for requirement in wanted:
        name = re.match(r"[A-Za-z0-9._-]+", requirement)
        assert name is not None
        assert name[0].lower().replace("_", "-") in {*pinned, PROJECT["name"]}


def test_a_machine_without_python_is_told_what_is_missing(tmp_path: Path) -> None:
    out = subprocess.run(
        ["/bin/sh", str(ROOT / ".ci" / "venv"), str(tmp_path / "venv"), "."],
        check=False,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert out.returncode == 1
    assert out.stderr.startswith("error: no Python >= 3.11 with the venv module was found")
    assert not (tmp_path / "venv").exists()


def test_the_canvases_of_the_demo_settle(tmp_path: Path) -> None:
    write_demo(tmp_path)
    session = load(tmp_path)
    stats = session.generate("Why is the sky blue?", replace(session.defaults, max_tokens=128)).stats
    assert stats.blocks == 2
    assert max(stats.steps_per_block) < session.defaults.max_steps


def test_the_programs_are_console_scripts_and_modules() -> None:
    for program in ("generate", "train", "bench", "convert", "fuse"):
        assert PROJECT["scripts"][f"mlx_diffgemma.{program}"] == f"mlx_diffgemma.{program}:main"
        command = [sys.executable, "-m", f"mlx_diffgemma.{program}", "--help"]
        out = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        assert "Usage" in out.stdout
