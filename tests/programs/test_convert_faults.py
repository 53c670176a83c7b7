"""Failures: one clear error, nothing under the destination's name, and resuming afterwards."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import pytest
from convert_helpers import SMALL_SHARDS, edit_json, files, options, python, rewrite, run, tensors, tiny_source
from mlx_diffgemma_convert.conversion import ConversionOptions, convert
from mlx_diffgemma_convert.output import ChunkWritten, WriteStarted
from mlx_diffgemma_convert.recipe import make_quantization, make_recipe

from mlx_diffgemma.errors import ConfigError, ConvertError, DiffGemmaError, ModelNotFoundError, WeightsError
from mlx_diffgemma.files import replacing

INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from mlx_diffgemma_convert import output, writer
from mlx_diffgemma_convert.convert_program import main

# Interrupt at half of every later write of the third shard, or before the second shard is recorded.
kind, when, source, destination = sys.argv[1:5]
calls = 0

def strike():
    os.kill(os.getpid(), getattr(signal, kind))

if when == "shard":
    write_all = writer._write_all
    def interrupted(descriptor, data, offset):
        global calls
        calls += offset == 0
        if calls == 3 and offset > 0:
            write_all(descriptor, data[: len(data) // 2], offset)
            strike()
        write_all(descriptor, data, offset)
    writer._write_all = interrupted
else:
    record = output.record_shard
    def interrupted(*arguments):
        global calls
        calls += 1
        if calls == 2:
            strike()
        record(*arguments)
    output.record_shard = interrupted
sys.argv[1:] = [source, destination, "--max-shard-size", "60kB"]
main()
"""


class Case(NamedTuple):
    """A tiny source and the options that convert it into several shards."""

    source: Path
    destination: Path
    options: ConversionOptions

    @property
    def partial(self) -> Path:
        return self.destination.with_name("result.partial")


@pytest.fixture
def case(tmp_path: Path) -> Case:
    source, destination = tiny_source(tmp_path / "source"), tmp_path / "result"
    return Case(source, destination, replace(options(source, destination), max_shard_bytes=SMALL_SHARDS))


def identities(folder: Path) -> dict[str, tuple[int, int]]:
    """Return shard -> (inode, modification time), which are equal if it was not written again."""
    return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.glob("model-*.safetensors")}


def stop_after(case: Case, shards: int) -> dict[str, tuple[int, int]]:
    """Abandon a conversion when `shards` shards are finished; return their identities."""
    events = convert(case.options)
    for _ in events:
        if len(finished := identities(case.partial)) == shards:
            events.close()
            return finished
    raise AssertionError("the conversion ended first")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["model.decoder.layers.1.experts.down_proj", "model.decoder.norm.weight"])
def test_nan_and_inf_are_named(case: Case, name: str, bad: float) -> None:
    held = tensors(case.source)
    flat = held[name].flatten()
    flat[-1] = bad
    rewrite(case.source, {**held, name: flat.reshape(held[name].shape)})
    with pytest.raises(WeightsError, match=rf"{name}\S* in model.safetensors holds NaN or Inf"):
        run(case.options)
    assert not case.destination.exists()
    assert not list(case.partial.glob(".partial-*"))


def truncate(source: Path) -> None:
    (file,) = source.glob("*.safetensors")
    os.truncate(file, file.stat().st_size - 10)


def remove_shard(source: Path) -> None:
    next(source.glob("*.safetensors")).unlink()


def name_a_missing_shard(source: Path) -> None:
    index = json.loads((source / "model.safetensors.index.json").read_text())
    index["weight_map"]["model.decoder.norm.weight"] = "model-00002-of-00002.safetensors"
    (source / "model.safetensors.index.json").write_text(json.dumps(index))


def scramble_header(source: Path) -> None:
    with next(source.glob("*.safetensors")).open("r+b") as stream:
        stream.seek(8)
        stream.write(b"####")


def drop_a_tensor(source: Path) -> None:
    held = tensors(source)
    del held["model.decoder.layers.1.mlp.up_proj.weight"]
    rewrite(source, held)


def claim_other_sizes(source: Path) -> None:
    text = json.loads((source / "config.json").read_text())["text_config"]
    edit_json(source / "config.json", {"text_config": {**text, "num_experts": 5}})


def pack(source: Path) -> None:
    """Pack one tensor, as MLX does."""
    name = "model.decoder.layers.1.mlp.up_proj"
    held = tensors(source)
    for ending, array in zip(("weight", "scales", "biases"), mx.quantize(held[f"{name}.weight"]), strict=True):
        held[f"{name}.{ending}"] = array
    rewrite(source, held)
    edit_json(source / "config.json", {"quantization": {"group_size": 64, "bits": 4}})


def forget_config(source: Path) -> None:
    (source / "config.json").unlink()


def break_generation_config(source: Path) -> None:
    (source / "generation_config.json").write_text("{")


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (truncate, WeightsError, r"is truncated \(.* bytes are there\): download it again"),
        (remove_shard, WeightsError, "index.json names model-00001-of-00001.safetensors, which is not in"),
        (name_a_missing_shard, WeightsError, "index.json names model-00002-of-00002.safetensors, which is not in"),
        (scramble_header, WeightsError, "damaged header"),
        (drop_a_tensor, WeightsError, r"no model\.decoder\.layers\.1\.mlp\.up_proj\.weight"),
        (claim_other_sizes, WeightsError, "but config.json implies"),
        (pack, ConvertError, r"already quantized \(it has .*up_proj.scales\): convert the bf16 checkpoint"),
        (forget_config, ModelNotFoundError, "has no config.json"),
        (break_generation_config, ConfigError, "not valid JSON"),
    ],
)
def test_damage_is_named_before_anything_is_written(
    case: Case, damage: Callable[[Path], None], error: type[DiffGemmaError], message: str
) -> None:
    damage(case.source)
    with pytest.raises(error, match=message):
        run(case.options)
    assert not case.destination.exists()
    assert not case.partial.exists()


def test_groups_that_do_not_fit_are_refused_before_anything_is_written(case: Case) -> None:
    recipe = make_recipe("uniform", make_quantization("affine", 4, 128), {})
    with pytest.raises(ConfigError, match="rows of 64 values, which groups of 128 do not divide"):
        run(replace(case.options, recipe=recipe))
    assert not case.partial.exists()


def test_a_disk_that_is_too_small_is_noticed_at_the_start(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ConvertError, match=r"has 100\.00 kB free, and the conversion needs \d+\.\d+ kB"):
        run(case.options)
    assert not case.destination.exists()
    assert not list(case.partial.glob("model-*.safetensors"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_fills_up_leaves_what_is_finished_and_resumes(
    case: Case, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    finished: dict[str, tuple[int, int]] = {}
    pwrite = os.pwrite

    def full(descriptor: int, data: memoryview, offset: int) -> int:
        if len(done := identities(case.partial)) == 2:
            finished.update(done)
            raise OSError(code, os.strerror(code))
        return pwrite(descriptor, data, offset)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(ConvertError, match=r"the disk is full while writing .*run the same command again"):
            run(case.options)
    assert not case.destination.exists()
    assert not list(case.partial.glob(".partial-*"))
    run(case.options)
    assert finished.items() <= identities(case.destination).items()


def test_a_write_that_fails_otherwise_is_one_error(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(descriptor: int, data: memoryview, offset: int) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "pwrite", broken)
    with pytest.raises(ConvertError, match="cannot be written: Input/output error"):
        run(case.options)


def test_short_writes_are_completed(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    run(replace(case.options, destination=case.destination.with_name("expected")))
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:1000], offset))
    run(case.options)
    expected = files(case.destination.with_name("expected"))
    assert {k: v for k, v in files(case.destination).items() if k != "README.md"} == {
        k: v for k, v in expected.items() if k != "README.md"
    }


def test_an_abandoned_conversion_resumes_to_the_same_bytes(case: Case) -> None:
    expected_lines = run(case.options)
    expected = files(case.destination)
    shutil.rmtree(case.destination)
    finished = stop_after(case, 3)
    assert not case.destination.exists()
    first, *rest = convert(case.options)
    assert isinstance(first, WriteStarted)
    advanced = sum(event.source_bytes for event in rest if isinstance(event, ChunkWritten))
    assert 0 < first.done_bytes == first.source_bytes - advanced
    assert finished.items() <= identities(case.destination).items()
    assert files(case.destination) == expected
    assert not case.partial.exists()
    shutil.rmtree(case.destination)
    stop_after(case, 3)
    assert run(case.options) == expected_lines


@pytest.mark.parametrize("when", ["shard", "record"])
@pytest.mark.parametrize("kind", ["SIGKILL", "SIGINT"])
def test_a_killed_process_resumes_to_the_same_bytes(case: Case, kind: str, when: str) -> None:
    run(replace(case.options, destination=case.destination.with_name("expected")))
    killed = python("-c", INTERRUPTED, kind, when, str(case.source), str(case.destination))
    assert killed.returncode == (-signal.SIGKILL if kind == "SIGKILL" else 130), killed.stderr
    assert "Traceback" not in killed.stderr
    assert not case.destination.exists()
    recorded = json.loads((case.partial / "progress.json").read_text())["done"].keys()
    finished = {name: identity for name, identity in identities(case.partial).items() if name in recorded}
    assert len(finished) == (2 if when == "shard" else 1)
    run(case.options)
    assert finished.items() <= identities(case.destination).items()
    expected = files(case.destination.with_name("expected"))
    found = files(case.destination)
    assert found.pop("README.md").replace(b"result", b"expected") == expected.pop("README.md")
    assert found == expected


def test_a_small_file_that_a_killed_run_was_writing_is_not_in_the_result(case: Case) -> None:
    run(replace(case.options, destination=case.destination.with_name("expected")))
    stop_after(case, 3)
    with replacing(case.partial / "config.json") as temporary:
        temporary.write_text("{")
    temporary.write_text("{")
    run(case.options)
    assert files(case.destination).keys() == files(case.destination.with_name("expected")).keys()


def test_a_run_that_was_killed_while_it_wrote_its_first_record_is_begun_again(case: Case) -> None:
    case.partial.mkdir()
    record = case.partial / "progress.json"
    with replacing(record) as temporary:
        temporary.write_text("{")
    record.rename(temporary)
    run(case.options)
    assert not case.partial.exists()
    assert not list(case.destination.glob(".partial-*"))


def test_changed_options_start_over(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    stop_after(case, 3)
    changed = replace(case.options, recipe=make_recipe("mixed", make_quantization("affine", 5, None), {}))
    run(changed)
    assert "options or sources changed since the interrupted conversion: starting over" in caplog.text
    assert read_bits(case.destination) == 5


def test_changed_sources_start_over(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    finished = stop_after(case, 3)
    (file,) = case.source.glob("*.safetensors")
    os.utime(file, ns=(0, 0))
    run(case.options)
    assert "starting over" in caplog.text
    assert not finished.items() & identities(case.destination).items()


def test_a_finished_shard_that_was_damaged_since_is_written_again(case: Case) -> None:
    finished = sorted(stop_after(case, 3))
    os.truncate(case.partial / finished[0], 100)
    (case.partial / finished[1]).unlink()
    run(case.options)
    run(replace(case.options, destination=case.destination.with_name("expected")))
    for name in finished:
        assert (case.destination / name).read_bytes() == (case.destination.with_name("expected") / name).read_bytes()


def test_a_second_conversion_into_the_same_folder_waits_its_turn(case: Case) -> None:
    first = convert(case.options)
    next(first)
    with pytest.raises(ConvertError, match="another conversion is writing"):
        run(case.options)
    first.close()
    run(case.options)


def test_a_finished_folder_is_not_overwritten_unasked(case: Case) -> None:
    run(case.options)
    before = identities(case.destination)
    with pytest.raises(ConvertError, match="exists already: add --overwrite"):
        run(case.options)
    assert identities(case.destination) == before


def test_overwrite_replaces_a_model_and_leaves_no_trace_of_it(case: Case) -> None:
    run(case.options)
    (case.destination / "stray.txt").write_text("old")
    run(replace(case.options, overwrite=True, recipe=make_recipe("mixed", make_quantization("affine", 6, None), {})))
    assert read_bits(case.destination) == 6
    assert sorted(path.name for path in case.destination.parent.iterdir()) == ["result", "source"]
    assert not (case.destination / "stray.txt").exists()


def test_overwrite_keeps_the_old_folder_until_the_new_one_is_whole(case: Case) -> None:
    run(case.options)
    before = files(case.destination)
    held = tensors(case.source)
    rewrite(case.source, {**held, "model.decoder.norm.weight": mx.full((64,), float("nan"), dtype=mx.bfloat16)})
    with pytest.raises(WeightsError, match="NaN"):
        run(replace(case.options, overwrite=True))
    assert files(case.destination) == before


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("name", ["notes.txt", "config.json"])
def test_a_foreign_folder_is_never_replaced(case: Case, name: str, overwrite: bool) -> None:
    case.destination.mkdir()
    (case.destination / name).write_text('{"model_type": "llama"}')
    with pytest.raises(ConvertError, match="exists and is not a DiffusionGemma folder"):
        run(replace(case.options, overwrite=overwrite))
    assert files(case.destination) == {name: b'{"model_type": "llama"}'}


def test_a_foreign_partial_folder_is_never_touched(case: Case) -> None:
    case.partial.mkdir()
    (case.partial / "thesis.txt").write_text("mine")
    with pytest.raises(ConvertError, match="was not left by a conversion"):
        run(case.options)
    assert files(case.partial) == {"thesis.txt": b"mine"}


def test_an_empty_folder_is_filled(case: Case) -> None:
    case.destination.mkdir()
    run(case.options)
    assert read_bits(case.destination) == 4


def test_a_link_is_followed_and_stays_a_link(case: Case, tmp_path: Path) -> None:
    disk = tmp_path / "disk" / "models"
    disk.mkdir(parents=True)
    case.destination.symlink_to(disk)
    run(case.options)
    run(replace(case.options, overwrite=True, recipe=make_recipe("mixed", make_quantization("affine", 6, None), {})))
    assert case.destination.is_symlink()
    assert read_bits(disk) == 6
    assert sorted(path.name for path in disk.parent.iterdir()) == ["models"]


def test_a_crash_before_tidying_up_is_repaired(case: Case) -> None:
    run(case.options)
    shutil.copytree(case.destination, case.destination.with_name("result.replaced"))
    (case.destination / "progress.json").write_text("{}")
    with pytest.raises(ConvertError, match="exists already: add --overwrite"):
        run(case.options)
    assert sorted(path.name for path in case.destination.parent.iterdir()) == ["result", "source"]
    assert not (case.destination / "progress.json").exists()


@pytest.mark.parametrize("where", [".", "inner", "../source"])
def test_the_source_is_never_replaced(case: Case, where: str) -> None:
    if where == "inner":
        shutil.copytree(case.source, case.source / "inner")
        wanted = replace(case.options, source=case.source / "inner", destination=case.source)
    else:
        wanted = replace(case.options, destination=case.source / where)
    with pytest.raises(ConvertError, match="holds the source"):
        run(replace(wanted, overwrite=True))


def test_a_crash_between_the_two_renames_is_repaired(case: Case) -> None:
    run(case.options)
    case.destination.rename(case.destination.with_name("result.replaced"))
    run(case.options)
    assert sorted(path.name for path in case.destination.parent.iterdir()) == ["result", "source"]


def test_a_destination_that_cannot_be_created_is_one_error(case: Case) -> None:
    with pytest.raises(ConvertError, match="cannot be written: Not a directory"):
        run(replace(case.options, destination=case.source / "config.json" / "result"))


def read_bits(folder: Path) -> int:
    """Return the default bits of a converted folder."""
    return json.loads((folder / "config.json").read_text())["quantization"]["bits"]
