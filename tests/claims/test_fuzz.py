"""The fuzz of programs and readers: a few of its cases, and what it takes for a fault."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import run
from fuzzing.cases import READERS, Case, case_of
from fuzzing.judging import Outcome, faults
from fuzzing.sandbox import write_originals
from fuzzing.workers import environment, run_here

GENERATE = Case(name="options:0", program="generate", words=("hi", "--batch", "out"))
IN_PLACE = Case(name="options:0", program="infill", words=("text.txt", "--in-place"))
CONVERT = Case(name="config:0", program="convert", words=("model", "out"))

QUICK = (2, 3, 5)
"""Cases that take no second, whatever reads them."""


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fuzz") / "originals"
    write_originals(folder)
    return folder


@pytest.mark.parametrize("reader", ["options", *READERS])
def test_programs_answer_or_refuse_in_one_line(
    originals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str
) -> None:
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    for seed in QUICK:
        case = case_of(f"{reader}:{seed}", originals)
        outcome = run_here(case, originals, tmp_path / "case")
        assert faults(case, outcome) == [], outcome.stderr


def test_a_case_is_the_same_whenever_it_is_made(originals: Path) -> None:
    for reader in ("options", *READERS):
        assert case_of(f"{reader}:7", originals) == case_of(f"{reader}:7", originals)
        assert case_of(f"{reader}:7", originals) != case_of(f"{reader}:8", originals)


@pytest.mark.parametrize("name", ["config", "config:x", "nothing:1", ""])
def test_a_name_of_no_case_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SystemExit, match=r"is no case: give one such as options:5 or config:17"):
        case_of(name, tmp_path)


@pytest.mark.parametrize(
    ("code", "stderr", "after", "case", "found"),
    [
        (0, "3 tokens in 1 block", {}, GENERATE, []),
        (1, "loading\nerror: no such file\n", {}, GENERATE, []),
        (2, "Usage: x\nTry 'x -h' for help.\n\nError: No such option\n", {}, GENERATE, []),
        (0, "", {"out": "new"}, GENERATE, []),
        (0, "", {"a": "folder", "a/b": "folder", "a/b/c": "new"}, replace(CONVERT, words=("model", "a/b")), []),
        (0, "", {"text.txt": "new"}, IN_PLACE, []),
        (1, "error: NaN", {"out.partial": "folder", "out.partial/a": "x"}, CONVERT, []),
        (1, "Traceback (most recent call last):\n", {}, GENERATE, ["traceback"]),
        (None, "its process died", {}, GENERATE, ["its process died"]),
        (3, "", {}, GENERATE, ["exit code 3"]),
        (1, "", {}, GENERATE, ["0 lines of error with exit code 1"]),
        (0, "error: no", {}, GENERATE, ["1 lines of error with exit code 0"]),
        (1, "error: a\nerror: b\n", {}, GENERATE, ["2 lines of error with exit code 1"]),
        (1, "error: a\nmore\n", {}, GENERATE, ["something is written after the error"]),
        (1, "error: " + "a" * 2000, {}, GENERATE, ["an error that is not to be read: too long"]),
        (1, "error: a", {"out": "new"}, GENERATE, ["left behind: out"]),
        (0, "", {"tmp/x": "new"}, GENERATE, ["left behind: tmp/x"]),
        (0, "", {"text.txt": "new"}, GENERATE, ["changed: text.txt"]),
    ],
)
def test_what_a_fault_is(code: int | None, stderr: str, after: Mapping[str, str], case: Case, found: list[str]) -> None:
    before = {"text.txt": "old", "model": "folder"}
    outcome = Outcome(code=code, stderr=stderr, before=before, after={**before, **after}, seconds=0)
    assert faults(case, outcome) == found


def test_the_table_has_a_row_for_each_reader(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run.main(["fuzz", "--reader", "suite", "--files", "2", "--failures", str(tmp_path / "failures")])
    rows = [row for row in capsys.readouterr().out.splitlines() if "suite" in row or "all" in row]
    assert [row.split()[1] for row in rows] == ["2", "2"]
