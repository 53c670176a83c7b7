"""Names of models: folders, and repositories from a cache as huggingface_hub lays it out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlx_diffgemma.checkpoint.hub import model_folder
from mlx_diffgemma.errors import ModelNotFoundError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("name", ["./absent", "/absent/model", "absent", "../a/b", "a/b/c"])
def test_a_path_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        model_folder(name)


@pytest.mark.parametrize("name", ["~nobody-of-this-name/model", "x" * 5000])
def test_a_path_that_no_file_can_have(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match="no such folder"):
        model_folder(name)


def test_a_name_that_no_repository_can_have() -> None:
    with pytest.raises(ModelNotFoundError, match="no name that a Hub repository can have"):
        model_folder("some..one/model--name")


def test_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("")
    with pytest.raises(ModelNotFoundError, match="is a file"):
        model_folder(tmp_path / "model.gguf")


def test_a_folder_is_itself_and_has_no_revision(tmp_path: Path) -> None:
    assert model_folder(tmp_path) == tmp_path
    with pytest.raises(ModelNotFoundError, match="a revision goes with a Hub repository"):
        model_folder(tmp_path, "main")


def in_cache(home: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run `code` offline with its own Hub cache: huggingface_hub reads its environment when it is imported."""
    env = {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    return subprocess.run(
        [sys.executable, "-c", code], check=False, env=env, capture_output=True, text=True, timeout=60
    )


def test_a_cached_repository_is_found_offline_and_by_revision(tmp_path: Path) -> None:
    repository = tmp_path / "hub" / "models--someone--model"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    for revision in ("None", "'main'", f"'{COMMIT}'"):
        code = (
            f"from mlx_diffgemma.checkpoint.hub import model_folder; print(model_folder('someone/model', {revision}))"
        )
        out = in_cache(tmp_path, code)
        assert out.stdout.strip() == str(snapshot), out.stderr


def test_a_repository_that_is_not_cached_is_named_offline(tmp_path: Path) -> None:
    code = "from mlx_diffgemma.checkpoint.hub import model_folder; model_folder('someone/absent')"
    out = in_cache(tmp_path, code)
    assert "ModelNotFoundError: no folder someone/absent, and the Hub repository of that name is neither" in out.stderr
