"""The program as a user runs it: exit codes, one line per failure, the contents of stdout and stderr."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import conversion as benchmark
import huggingface_hub
import pytest
from convert_helpers import program, tensors, tiny_source
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError
from in_process import restored
from mlx_diffgemma_convert.convert_program import main
from random_checkpoint import write_checkpoint
from terminal import environment, run_in_terminal

from mlx_diffgemma.files import read_json


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_source(tmp_path_factory.mktemp("program") / "source", vision=True)


def call(*arguments: str | Path) -> int:
    """Run the program within this process; return its exit code."""
    command = ["mlx_diffgemma.convert", *map(str, arguments)]
    with restored(), patch.object(sys, "argv", command), pytest.raises(SystemExit) as stopped:
        main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_a_conversion_prints_its_table_on_stdout_and_nothing_animated_on_stderr(source: Path, tmp_path: Path) -> None:
    done = program(source, tmp_path / "result")
    assert done.returncode == 0
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[0] for row in rows if row and row[0] in CLASSES] == CLASSES
    assert "measured on one row in 61" in re.sub(r"\s+", " ", done.stdout)
    assert done.stderr == f"warning: {source} has no tokenizer: the result will need one to run\n"
    assert read_json(tmp_path / "result" / "config.json")["quantization"]["bits"] == 4


CLASSES = ["embed", "attention", "mlp", "router", "experts", "conditioning", "other", "vision", "total"]


def test_memory_does_not_grow_with_the_number_of_layers(tmp_path: Path) -> None:
    peaks: list[int] = []
    for layers in (2, 16):
        write_checkpoint(tmp_path / "source", layers=layers, width="mid")
        command = [sys.executable, "-m", "mlx_diffgemma.convert", str(tmp_path / "source"), str(tmp_path / "result")]
        peaks.append(benchmark.measure(command, tmp_path / "result").peak)
    weights = sum(file.stat().st_size for file in (tmp_path / "source").glob("*.safetensors"))
    assert weights > 150e6
    assert peaks[1] - peaks[0] < 40e6


def test_quiet_says_nothing(source: Path, tmp_path: Path) -> None:
    done = program(source, tmp_path / "result", "--quiet")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_every_option_reaches_the_result(source: Path, tmp_path: Path) -> None:
    result = tmp_path / "result"
    wanted = "--mode affine --bits 5 --group-size 32 --recipe uniform --set experts=bf16 --set embed=8 --dtype float16"
    assert call(source, result, *wanted.split(), "--max-shard-size", "0.1MB") == 0
    quantization = read_json(result / "config.json")["quantization"]
    assert {key: quantization[key] for key in ("bits", "group_size", "mode")} == {
        "bits": 5, "group_size": 32, "mode": "affine",
    }  # fmt: skip
    assert quantization["model.decoder.embed_tokens"] == {"bits": 8, "group_size": 32}
    found = tensors(result)
    assert str(found["model.decoder.layers.0.experts.down_proj.weight"].dtype) == "mlx.core.float16"
    assert str(found["model.decoder.layers.0.mlp.up_proj.scales"].dtype) == "mlx.core.float16"
    assert len(list(result.glob("*.safetensors"))) > 1
    assert call(source, result) == 1
    assert call(source, result, "--overwrite", "--mode", "mxfp8") == 0
    assert read_json(result / "config.json")["quantization"]["mode"] == "mxfp8"
    assert call(source, result, "--overwrite", "--no-quantize") == 0
    assert "quantization" not in read_json(result / "config.json")


def test_a_recipe_is_chosen_by_memory_and_the_choice_is_explained(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(source, tmp_path / "result", "--fit", "24gb") == 0
    quantization = read_json(tmp_path / "result" / "config.json")["quantization"]
    assert (quantization["bits"], "model.decoder.embed_tokens" in quantization) == (8, False)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "recipe" in line]
    assert re.fullmatch(
        r"the recipe is uniform in 8 bits: \S+ kB on disk, \S+ MB in memory, "
        r"and macOS recommends 17.18 GB at most on a Mac with 24 GB",
        line,
    )


@pytest.mark.parametrize(
    ("others", "named"),
    [
        (["--recipe", "small"], "--recipe"),
        (["--bits", "4", "--set", "embed=8"], "--bits and --set"),
        (["--no-quantize"], "--no-quantize"),
    ],
)
def test_fit_beside_another_choice_of_recipe_names_both(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], others: list[str], named: str
) -> None:
    assert call(source, tmp_path / "result", "--fit", "24GB", *others) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: invalid value for --fit: leave out {named}, because --fit chooses the recipe (")


@pytest.mark.parametrize(
    "arguments",
    [
        ["--bits", "7"],
        ["--bits", "8", "--mode", "mxfp4"],
        ["--mode", "int4"],
        ["--group-size", "48"],
        ["--group-size", "0"],
        ["--no-quantize", "--group-size", "0"],
        ["--recipe", "best"],
        ["--set", "norms=8"],
        ["--set", "embed=2"],
        ["--dtype", "int8"],
        ["--max-shard-size", "big"],
        ["--max-shard-size", "0GB"],
        ["--fit", "24"],
        ["--fit", "abc"],
        ["--fit", "-16GB"],
        ["--fit", "24GB", "--bits", "4"],
        ["--no-quantize", "--bits", "4"],
        ["--no-quantize", "--set", "embed=8"],
        ["--unknown"],
    ],
    ids=" ".join,
)
def test_usage_errors_exit_2_and_write_nothing(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert call(source, tmp_path / "result", *arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("error: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "no such folder: nowhere"),
        (["google/not-cached"], "go online"),
        (["{source}", "--revision", "main"], "a revision goes with a Hub repository only"),
        (
            ["{source}", "--fit", "0.001GB"],
            "no recipe fits: macOS recommends 715.83 kB at most on a Mac with 0.001 GB; ",
        ),
        (["{source}", "--group-size", "128"], "which groups of 128 do not divide"),
        (["{source}", "--upload-repo", "nobody/nothing"], "cannot upload to nobody/nothing"),
    ],
)
def test_expected_failures_are_one_line_and_exit_1(
    source: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    first, *rest = [argument.replace("{source}", str(source)) for argument in arguments]
    done = program(first, tmp_path / "result", *rest)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("warning: ")]
    assert line.startswith("error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    done = program("nowhere", tmp_path / "result", "--debug")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ModelNotFoundError: no such folder: nowhere" in done.stderr


def test_an_upload_creates_the_repository_and_sends_the_folder(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[object, ...]] = []

    class Hub:
        def whoami(self) -> None:
            calls.append(("whoami",))

        def create_repo(self, repository: str, *, exist_ok: bool) -> str:
            calls.append(("create", repository, exist_ok))
            return f"https://huggingface.co/{repository}"

        def upload_folder(self, *, repo_id: str, folder_path: Path) -> None:
            calls.append(("upload", repo_id, folder_path))

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    result = tmp_path / "result"
    assert call(source, result, "--upload-repo", "me/four-bit") == 0
    assert calls == [("whoami",), ("create", "me/four-bit", True), ("upload", "me/four-bit", result)]
    assert capsys.readouterr().out.endswith("https://huggingface.co/me/four-bit\n")
    assert "--model me/four-bit" in (result / "README.md").read_text()


def test_a_refused_login_is_noticed_before_the_conversion(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hub:
        def whoami(self) -> None:
            raise LocalTokenNotFoundError("Token is required.\nRead more at ...")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    assert call(source, tmp_path / "result", "--upload-repo", "me/four-bit") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: cannot upload to me/four-bit (Token is required.): log in with `hf auth login`")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_upload_keeps_the_result_and_says_how_to_send_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Hub:
        def whoami(self) -> None: ...

        def create_repo(self, repository: str, *, exist_ok: bool) -> str:
            response = SimpleNamespace(headers={}, request=None, status_code=403)
            raise HfHubHTTPError("403 Forbidden", response=response)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    result = tmp_path / "result"
    assert call(source, result, "--upload-repo", "me/four-bit") == 1
    assert f"send it with `hf upload me/four-bit {result}`" in capsys.readouterr().err
    assert (result / "config.json").exists()


def test_a_repository_without_an_owner_is_refused(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(source, tmp_path / "result", "--upload-repo", "four-bit") == 1
    assert "'four-bit' is not a repository name: write it as user/name" in capsys.readouterr().err


def test_the_bar_counts_to_the_end_on_a_terminal(source: Path, tmp_path: Path) -> None:
    shown = run_in_terminal(
        [sys.executable, "-m", "mlx_diffgemma.convert", str(source), str(tmp_path / "result")], (80, 24), environment()
    )
    assert shown.code == 0
    assert re.search(rb"writing  0/1 MB  \xe2\x94\x80", shown.raw)
    assert not any("writing" in row for row in shown.rows), "the bar is gone at the end"
    assert any(row.strip().startswith("total") for row in shown.rows)
