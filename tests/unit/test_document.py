"""Files that are rewritten: byte for byte, at once or not at all, and never over somebody else's change."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from mlx_diffgemma.cli.document import (
    Document,
    characters_span,
    differences,
    lines_span,
    read_document,
    write_document,
)
from mlx_diffgemma.errors import DocumentError, TemplateError


def a_file(folder: Path, data: bytes) -> Path:
    file = folder / "text.txt"
    file.write_bytes(data)
    return file


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


@pytest.mark.parametrize("data", [b"a\r\nb", b"\xef\xbb\xbfx\n", "漢字🙂\r".encode(), b"a\x0b\x0cb\xc2\x85\n\n", b""])
def test_a_file_is_read_and_written_byte_for_byte(tmp_path: Path, data: bytes) -> None:
    document = read_document(str(a_file(tmp_path, data)))
    assert document.text.encode() == data
    write_document(document, document.text + "漢\r\n")
    assert Path(document.name).read_bytes() == data + "漢\r\n".encode()
    assert names(tmp_path) == ["text.txt"]


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    file = a_file(tmp_path, b"a")
    file.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(file.name)
    write_document(read_document(str(link)), "b")
    assert link.is_symlink()
    assert file.read_text() == "b"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_a_file_that_has_changed_is_left_as_it_is(tmp_path: Path) -> None:
    file = a_file(tmp_path, b"before")
    document = read_document(str(file))
    file.write_bytes(b"theirs")
    with pytest.raises(DocumentError, match=r"text\.txt has changed since it was read: it is left as it is"):
        write_document(document, "ours")
    assert file.read_bytes() == b"theirs"
    assert names(tmp_path) == ["text.txt"]
    file.unlink()
    with pytest.raises(DocumentError, match=r"no such file|cannot be written"):
        write_document(document, "ours")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"caf\xe9 <gap>", r"text\.txt is not UTF-8 text: invalid continuation byte at byte 3"),
        (b"PK\x00<gap>", r"text\.txt is not text: it has a zero byte at 2"),
    ],
)
def test_a_binary_file_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        read_document(str(a_file(tmp_path, data)))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="none: no such file"):
        read_document(str(tmp_path / "none"))
    with pytest.raises(DocumentError, match="cannot be read: Is a directory"):
        read_document(str(tmp_path))


def test_differences_are_a_unified_diff_that_patch_understands() -> None:
    document = Document(name="f", text="a\r\nb\x0bc\nd")
    assert differences(document, "a\r\nB\x0bc\nd") == (
        "--- f\n+++ f\n@@ -1,3 +1,3 @@\n a\r\n-b\x0bc\n+B\x0bc\n d\n\\ No newline at end of file\n"
    )
    assert differences(document, document.text) == ""


@pytest.mark.parametrize(
    ("text", "wanted", "part"),
    [
        ("a\nbc\nd\n", "2", "bc"),
        ("a\nbc\nd\n", "2:3", "bc\nd"),
        ("a\r\nb\r\n", "1:2", "a\r\nb"),
        ("a\nb", "2", "b"),
        ("a\n\nb", "2", ""),
    ],
)
def test_lines_are_a_span_without_the_last_ones_end(text: str, wanted: str, part: str) -> None:
    assert text[slice(*lines_span(text, wanted))] == part


@pytest.mark.parametrize("wanted", ["0", "3", "2:1", "1:3"])
def test_lines_that_are_not_there_are_refused(wanted: str) -> None:
    with pytest.raises(TemplateError, match=f"lines {wanted} are not in the text, which has 2 lines"):
        lines_span("a\nb\n", wanted)


def test_what_names_no_span_is_refused() -> None:
    with pytest.raises(TemplateError, match="lines 'x': give the first and the last"):
        lines_span("a", "x")
    with pytest.raises(TemplateError, match="characters '5': give where"):
        characters_span("5")
    assert characters_span("5:9") == (5, 9)
