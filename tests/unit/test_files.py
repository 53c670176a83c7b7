"""Files are written whole or not at all, and what is wrong with a file is named with its line."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mlx_diffgemma.errors import ConfigError, DataError, DiffGemmaError, ModelNotFoundError
from mlx_diffgemma.files import JsonLine, json_lines, read_json, replacing

MARK = b"\xef\xbb\xbf"
DEEP = "[" * 100_000


def refusal(read: Callable[[], object], kind: type[DiffGemmaError], message: str | None = None) -> str:
    """The one line that is said against a file."""
    with pytest.raises(kind, match=message) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


# replacing


@pytest.mark.parametrize("old", [None, "old"])
def test_a_file_is_replaced_when_the_block_ends(tmp_path: Path, old: str | None) -> None:
    path = tmp_path / "loss.png"
    if old is not None:
        path.write_text(old)
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert temporary.suffix == ".png"
        assert temporary.parent == tmp_path
        assert (path.read_text() if path.exists() else None) == old
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError("mine"), KeyboardInterrupt()])
@pytest.mark.parametrize("begun", [True, False])
def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path: Path, error: BaseException, begun: bool) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(type(error)) as caught, replacing(path) as temporary:
        if begun:
            temporary.write_text("half")
        raise error
    assert caught.value is error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_block_that_writes_nothing_is_an_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


def test_a_file_that_cannot_take_its_name_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.mkdir()
    with pytest.raises(OSError, match="directory"), replacing(path) as temporary:
        temporary.write_text("new")
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), replacing(tmp_path / "absent" / "file.json") as temporary:
        temporary.write_text("new")


def test_permissions_are_those_that_the_block_sets_or_of_a_new_file(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text("old")
    path.chmod(0o600)
    with replacing(path) as temporary:
        temporary.write_text("new")
        temporary.chmod(stat.S_IMODE(path.stat().st_mode))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    umask = os.umask(0o027)
    try:
        with replacing(path) as temporary:
            temporary.write_text("new")
    finally:
        os.umask(umask)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


# read_json


@pytest.mark.parametrize("content", [b'{"a": 1}', MARK + b'{"a": 1}', b'\r\n {"a": 1}\r\n'])
def test_a_json_object_is_read(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    assert read_json(tmp_path / "config.json") == {"a": 1}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not valid JSON: Expecting value"),
        (b'{"a": ', "is not valid JSON: Expecting value"),
        (b'{"a": "\xff"}', "is not valid JSON: .*0xff"),
        (DEEP.encode(), "is not valid JSON: .*recursion"),
        (b'{"a": ' + b"9" * 5000 + b"}", "is not valid JSON: .*4300 digits"),
        (b"[1, 2]", "must hold a JSON object, not a list"),
        (b"null", "must hold a JSON object, not a NoneType"),
    ],
    ids=["empty", "cut off", "not UTF-8", "deep", "huge number", "list", "null"],
)
def test_a_damaged_json_file_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    complaint = refusal(lambda: read_json(path), ConfigError, message)
    assert complaint.startswith(f"{path} ")


def test_a_json_file_that_is_missing_or_a_folder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    complaint = refusal(lambda: read_json(path), ModelNotFoundError)
    assert complaint == f"{tmp_path} has no config.json: is it the folder of a model?"
    path.mkdir()
    assert refusal(lambda: read_json(path), ConfigError) == f"{path} cannot be read: Is a directory"


# json_lines


def lines(folder: Path, content: str | bytes) -> list[JsonLine]:
    path = folder / "lines.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(json_lines(path))


def test_lines_have_their_values_and_numbers_and_blank_lines_count(tmp_path: Path) -> None:
    found = lines(tmp_path, '{"a": 1}\n\n  \t\r\n[2]\r\n"three"')
    assert [(line.number, line.value) for line in found] == [(1, {"a": 1}), (4, [2]), (5, "three")]
    assert found[1].where == f"{tmp_path}/lines.jsonl, line 4"


@pytest.mark.parametrize("content", ["", "\n \n", MARK])
def test_a_file_without_values_has_no_lines(tmp_path: Path, content: str | bytes) -> None:
    assert lines(tmp_path, content) == []


def test_a_byte_order_mark_is_ignored(tmp_path: Path) -> None:
    assert [line.value for line in lines(tmp_path, MARK + b"1\n2\n")] == [1, 2]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85"])
def test_only_a_newline_ends_a_line(tmp_path: Path, separator: str) -> None:
    found = lines(tmp_path, f'"a{separator}b"\n2\n')
    assert [(line.number, line.value) for line in found] == [(1, f"a{separator}b"), (2, 2)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"a": ', "not valid JSON: Expecting value"),
        (b"1 2", "not valid JSON: Extra data"),
        (DEEP.encode(), "not valid JSON: .*recursion"),
        (b"9" * 5000, "not valid JSON: .*4300 digits"),
        (b'"a\x0bb"', "not valid JSON: Invalid control character"),
        (b'"\xff"', r"not UTF-8 text \(invalid start byte\)"),
        (b'"\xe6\x9d', r"not UTF-8 text \("),
    ],
    ids=["cut off", "two values", "deep", "huge number", "control character", "not UTF-8", "character cut off"],
)
@pytest.mark.parametrize("before", [b"", MARK], ids=["", "mark"])
def test_a_damaged_line_is_named(tmp_path: Path, before: bytes, line: bytes, message: str) -> None:
    path = tmp_path / "lines.jsonl"
    complaint = refusal(lambda: lines(tmp_path, before + b"1\n\n" + line), DataError, message)
    assert complaint.startswith(f"{path}, line 3: ")


def test_lines_before_a_damaged_one_are_read(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text("1\n{\n")
    found = json_lines(path)
    assert next(found).value == 1
    with pytest.raises(DataError, match="line 2: not valid JSON"):
        next(found)


def test_lines_that_are_missing_or_a_folder_are_named(tmp_path: Path) -> None:
    path = tmp_path / "absent.jsonl"
    assert refusal(lambda: list(json_lines(path)), DataError) == f"{path}: no such file"
    assert refusal(lambda: list(json_lines(tmp_path)), DataError) == f"{tmp_path} cannot be read: Is a directory"
