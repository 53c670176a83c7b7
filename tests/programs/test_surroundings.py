"""Programs in poor surroundings: no home, no temporary folder, narrow encodings, full disks, Ctrl-C at the start."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from in_process import call, call_for_text
from scripted import Scripted, loading
from terminal import SCRIPTED, environment

from mlx_diffgemma import generate
from mlx_diffgemma.constraint import cache
from mlx_diffgemma.files import replacing

PROGRAM = (sys.executable, "-m", "mlx_diffgemma.generate")


def start(command: tuple[str, ...], env: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(command, env=env, capture_output=True, stdin=subprocess.DEVNULL, timeout=60, check=False)


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", "é – 東"), ("cp1252", "é – ?"), ("ascii", "? - ?"), ("latin-1", "é - ?")]
)
def test_a_character_that_an_encoding_lacks_is_replaced_and_json_loses_none(
    monkeypatch: pytest.MonkeyPatch, encoding: str, shown: str
) -> None:
    monkeypatch.setitem(sys.modules, "mlx_diffgemma.loading", loading(Scripted(text="é – 東")))
    done = call(generate.main, "hi", "-m", "scripted", env=environment(), encoding=encoding)
    assert (done.returncode, done.stdout.decode(encoding)) == (0, f"{shown}\n")
    figures = done.stderr.decode(encoding)
    assert figures.startswith("4 tokens in 1 block | 6.0" if encoding == "ascii" else "4 tokens in 1 block · 6.0")
    done = call(generate.main, "hi", "-m", "scripted", "--json", env=environment(), encoding=encoding)
    assert json.loads(done.stdout.decode(encoding))["text"] == "é – 東"


def test_without_home_temporary_folder_locale_and_cache_there_is_an_answer_and_nothing_else(tmp_path: Path) -> None:
    env = {name: value for name, value in environment().items() if name != "HOME"}
    nowhere = {"TMPDIR": str(tmp_path / "none"), "LC_ALL": "C", "XDG_CACHE_HOME": "/proc"}
    done = start((*PROGRAM, "-m", "demo", "-q", "--regex", "[0-9]{2}", "What is 47 + 38?"), {**env, **nowhere})
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(done.stdout.strip()) == 2


@pytest.fixture
def _homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither HOME nor an entry in the list of users, as in a container with a user id of its own."""

    def unknown(uid: int) -> Any:
        raise KeyError(uid)

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)


@pytest.mark.usefixtures("_homeless")
@pytest.mark.parametrize(
    "options",
    [("-m", "~/x"), ("-m", "demo", "--adapter", "~/x"), ("-m", "demo", "--json-schema", "~/x")],
)
def test_a_home_that_leads_nowhere_is_one_line(options: tuple[str, ...]) -> None:
    done = call_for_text(generate.main, "hi", "-q", *options)
    assert done.returncode == 1
    assert done.stderr == "error: no such folder: ~/x (there is no home folder for ~: give the whole path)\n"


@pytest.mark.usefixtures("_homeless")
def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        cache.folder().mkdir(parents=True)
    assert list(tmp_path.iterdir()) == []


def test_a_full_stderr_costs_no_result() -> None:
    full = ("/bin/sh", "-c", '"$@" 2>/dev/full', "sh", *SCRIPTED)
    done = start((*full, "hi"), environment(SCRIPT='{"text": "One."}'))
    assert (done.returncode, done.stdout) == (0, b"One.\n")


def test_a_help_page_on_a_full_disk_is_one_line() -> None:
    done = start(("/bin/sh", "-c", '"$@" >/dev/full', "sh", *PROGRAM, "--help"), environment())
    assert (done.returncode, done.stderr) == (1, b"error: the output cannot be written: No space left on device\n")


def test_a_file_that_does_not_fit_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    file = tmp_path / "result"
    file.write_text("before")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised, replacing(file) as beside:
            beside.write_bytes(b"x" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(file))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("result", "before")]


def test_ctrl_c_while_a_program_is_loaded_is_silent(tmp_path: Path) -> None:
    """A module in the place of typer presses it, before anything that could report it is there."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    for program in ("generate", "convert"):
        done = start((sys.executable, "-m", f"mlx_diffgemma.{program}", "hi"), environment(PYTHONPATH=path))
        assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, b"", b"")
    assert signal.getsignal(signal.SIGINT) is not signal.SIG_DFL, "a program that is only imported changes nothing"
