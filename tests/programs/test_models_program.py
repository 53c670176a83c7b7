"""The program mlx_diffgemma.models: what is in a folder, in the Hub's cache and in the package."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from in_process import call_for_text
from tiny import PARITY

from mlx_diffgemma import models
from mlx_diffgemma.checkpoint import hub
from mlx_diffgemma.device import memory

CONFIG = json.loads((PARITY / "seed-0" / "config.json").read_text())


def write_model(folder: Path, *, nbytes: int = 2_000_000, **changes: object) -> Path:
    """A folder with the configuration of a small model; the weights are never read."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(nbytes)
    return folder


def listed(*arguments: object) -> dict[str, dict[str, object]]:
    """The records of the program, by name."""
    done = call_for_text(models.main, *arguments, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return {record["model"]: record for record in records}


@pytest.fixture(autouse=True)
def no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache of whoever runs the tests does not matter."""
    monkeypatch.setattr("mlx_diffgemma.checkpoint.listing.cached_folders", list)


def test_models_of_a_folder_have_their_size_and_bits(tmp_path: Path) -> None:
    packed = {"quantization": {"group_size": 64, "bits": 4}}
    write_model(tmp_path / "four", **packed)
    write_model(tmp_path / "plain", nbytes=8_000_000)
    write_model(tmp_path / "other", model_type="llama")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.json").write_text("{")
    shutil.copytree(tmp_path / "plain", tmp_path / "empty")
    (tmp_path / "empty" / "model.safetensors").unlink()
    (tmp_path / "file").write_text("")
    found = listed(tmp_path)
    assert found.keys() == {"demo", f"{tmp_path}/four", f"{tmp_path}/plain"}
    four, plain = found[f"{tmp_path}/four"], found[f"{tmp_path}/plain"]
    assert (four["bits"], four["bytes"], plain["bits"], plain["bytes"]) == (4, 2_000_000, 16, 8_000_000)
    assert four["fits"] is plain["fits"] is True


def test_the_folder_itself_may_be_a_model(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model")
    assert str(folder) in listed(folder)


def test_the_table_says_what_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "usable_bytes", lambda: 4_000_000_000)
    write_model(tmp_path / "large", nbytes=5_000_000_000)
    monkeypatch.chdir(tmp_path)
    done = call_for_text(models.main)
    rows = [row.split() for row in done.stdout.splitlines()]
    assert rows[0] == ["model", "bits", "size", "needs", "fits"]
    assert [(row[0], row[-1]) for row in rows[1:-1]] == [("demo", "yes"), ("large", "no")]
    assert rows[2][1:4] == ["16", "5.0", "GB"]
    assert done.stdout.splitlines()[-1].startswith("usable memory: 4.0 GB; ")


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    done = call_for_text(models.main, tmp_path / "absent")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"error: no such folder: {tmp_path}/absent\n")


def write_cache(root: Path) -> Path:
    """A cache as huggingface_hub keeps it: one model with two snapshots, one dataset, one damaged entry."""
    for kind, commit in (("models", "a" * 40), ("models", "b" * 40), ("datasets", "c" * 40)):
        write_model(root / f"{kind}--owner--name" / "snapshots" / commit)
        (root / f"{kind}--owner--name" / "refs").mkdir(exist_ok=True)
    (root / "models--damaged--entry").mkdir()
    (root / "models--damaged--entry" / "refs").write_text("no folder")
    return root


def test_the_cache_of_the_hub_is_listed_without_what_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(write_cache(tmp_path / "hub")))
    [(name, folder)] = hub.cached_folders()
    assert name == "owner/name"
    assert (folder / "config.json").is_file()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "absent"))
    assert hub.cached_folders() == []


def test_the_umbrella_names_it() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mlx_diffgemma", "models", "--help"], capture_output=True, text=True, check=True
    )
    assert "List the models in FOLDER" in " ".join(done.stdout.split())
