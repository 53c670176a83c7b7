"""What the README shows is run, on a tiny model under the names that it uses."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
REPOSITORY = "google/diffusiongemma-26B-A4B-it"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def programs() -> list[str]:
    """Every shell line that calls one of our programs, in order, without its comment."""
    lines = [line.split("  #")[0] for block in blocks("sh") for line in block.splitlines()]
    return [line for line in lines if re.search(r"(^|\| )mlx_diffgemma\.\w+ ", line)]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> Path:
    """A folder where the repository's name is a tiny model; canvases of 64 and two steps keep it quick."""
    folder = tmp_path_factory.mktemp("readme")
    model = folder / REPOSITORY
    shutil.copytree(demo, model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"canvas_length": 64}))
    (model / "generation_config.json").write_text('{"max_denoising_steps": 2, "eos_token_id": [1, 106, 50]}')
    (folder / "README.md").write_text("A short text about a lighthouse.")
    (folder / "mine.jsonl").write_text(blocks("jsonl")[0])
    (folder / "person.json").write_text('{"properties": {"age": {"enum": [34, 35]}}, "required": ["age"]}')
    (folder / "data").mkdir()
    for name in ("train", "valid"):
        line = json.dumps({"prompt": f"Last word: pear, fig, {name}", "completion": name})
        (folder / "data" / f"{name}.jsonl").write_text(f"{line}\n" * 8)
    return folder


@pytest.fixture(scope="module")
def converted(workplace: Path) -> Path:
    run(workplace, programs()[1])
    return workplace


def run(folder: Path, command: str, model: str = "diffusiongemma-4bit") -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "PATH": path, "MLX_DIFFGEMMA_MODEL": model}
    out = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], check=False, cwd=folder, env=env, capture_output=True, text=True
    )
    assert out.returncode == 0, f"{command}\n{out.stderr}"
    return out.stdout


def test_the_first_command_prints_what_the_readme_says(tmp_path: Path) -> None:
    answer = re.search(r"\n\n```\n(.*?)```", README, flags=re.DOTALL)
    assert answer is not None
    assert run(tmp_path, programs()[0], model="demo") == answer[1]


def test_the_second_command_converts() -> None:
    assert programs()[1].startswith(f"mlx_diffgemma.convert {REPOSITORY} diffusiongemma-4bit")


@pytest.mark.parametrize("command", programs()[2:])
def test_every_command_runs(converted: Path, command: str) -> None:
    printed = run(converted, command)
    if "mlx_diffgemma.train" in command:
        assert {"adapters.safetensors", "log.jsonl", "loss.png"} <= {
            file.name for file in (converted / "adapter").iterdir()
        }
    elif "--plot" in command:
        assert (converted / "figures.png").read_bytes().startswith(b"\x89PNG")
        assert "cost" in printed
    elif "--json " in command:
        assert set(json.loads(printed)) >= {"text", "tokens", "finish_reason", "stats"}
    elif "--choices" in command:
        assert printed.strip() in {"yes", "no", "maybe"}
    elif "--regex" in command:
        date.fromisoformat(printed.strip())
    elif "--json-schema" in command:
        assert json.loads(printed)["age"] in {34, 35}
    elif " > " in command:
        assert printed == ""
        assert (converted / "story.txt").read_text().strip()
    else:
        assert printed.strip()


@pytest.mark.parametrize("program", blocks("python"))
def test_every_python_example_runs(converted: Path, program: str) -> None:
    (converted / "example.py").write_text(program)
    assert run(converted, f"{sys.executable} example.py").strip()


def test_every_file_that_the_readme_links_to_exists() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
