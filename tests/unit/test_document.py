"""Files that are rewritten: byte for byte, at once or not at all, and never over somebody else's change."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

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
    assert document.text.encode() == data.removeprefix(b"\xef\xbb\xbf")
    write_document(document, document.text + "漢\r\n")
    assert Path(document.name).read_bytes() == data + "漢\r\n".encode()
    assert names(tmp_path) == ["text.txt"]


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-be", "shift_jis"])
def test_a_file_is_written_in_the_encoding_that_it_was_read_in(tmp_path: Path, encoding: str) -> None:
    text, more = ("漢字\n", "漢") if encoding == "shift_jis" else ("café\r\n", "é")
    file = a_file(tmp_path, text.encode(encoding))
    document = read_document(str(file), encoding)
    assert document.text == text
    write_document(document, text + more)
    assert file.read_bytes() == (text + more).encode(encoding)


def test_a_character_that_the_encoding_lacks_is_named_and_the_file_stays(tmp_path: Path) -> None:
    file = a_file(tmp_path, b"caf\xe9")
    with pytest.raises(DocumentError, match=r"cannot be written in latin-1: it has no '漢'"):
        write_document(read_document(str(file), "latin-1"), "漢")
    assert file.read_bytes() == b"caf\xe9"
    assert names(tmp_path) == ["text.txt"]


@pytest.mark.parametrize(
    ("data", "encoding", "complaint"),
    [
        (b"caf\xe9!", None, "is not UTF-8 text: invalid continuation byte at byte 3: name its encoding, such as "),
        ("a".encode("utf-16"), None, "is not UTF-8 text: it begins like UTF-16, try --encoding utf-16"),
        (b"a", "hex", "--encoding 'hex': no encoding of text has this name: give one such as latin-1 or utf-16"),
        (b"a", "nonsense", "--encoding 'nonsense': no encoding of text has this name"),
        (b"a", "\0", "no encoding of text has this name"),
        (b"abc", "utf-16-le", "is not utf-16-le text: truncated data at byte 2: name another --encoding"),
    ],
)
def test_text_in_another_encoding_is_refused_with_the_way_to_read_it(
    tmp_path: Path, data: bytes, encoding: str | None, complaint: str
) -> None:
    with pytest.raises(DocumentError) as caught:
        read_document(str(a_file(tmp_path, data)), encoding)
    assert complaint in str(caught.value)


def test_permissions_and_links_stay(tmp_path: Path) -> None:
    file = a_file(tmp_path, b"a")
    file.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(file.name)
    write_document(read_document(str(link)), "b")
    assert link.is_symlink()
    assert file.read_text() == "b"
    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_the_rights_of_a_program_do_not_stay(tmp_path: Path) -> None:
    file = a_file(tmp_path, b"a")
    file.chmod(0o6755)
    write_document(read_document(str(file)), "b")
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == ("b", 0o755)


@pytest.mark.skipif(not hasattr(os, "setxattr"), reason="Python sets extended attributes on Linux only")
def test_extended_attributes_stay(tmp_path: Path) -> None:
    file = a_file(tmp_path, b"a")
    os.setxattr(file, "user.tag", b"\x00red")
    os.setxattr(file, "user.empty", b"")
    write_document(read_document(str(file)), "b")
    assert {name: os.getxattr(file, name) for name in os.listxattr(file)} == {"user.tag": b"\x00red", "user.empty": b""}


def test_an_attribute_that_cannot_be_kept_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = a_file(tmp_path, b"a")
    monkeypatch.setattr(os, "listxattr", lambda path: ["user.tag"], raising=False)
    monkeypatch.setattr(os, "getxattr", lambda path, name: b"red", raising=False)
    monkeypatch.setattr(os, "setxattr", failing(errno.ENOSPC), raising=False)
    with pytest.raises(DocumentError, match=r"text\.txt cannot be written: No space left on device"):
        write_document(read_document(str(file)), "b")
    assert (file.read_text(), names(tmp_path)) == ("a", ["text.txt"])


def failing(number: int) -> object:
    def fail(*_arguments: object, **_options: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


def as_root() -> None:
    if os.geteuid():
        pytest.skip("only root can give files to others")


@contextmanager
def as_user(user: int, group: int) -> Iterator[None]:
    os.setegid(group)
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_owner_and_group_stay(tmp_path: Path) -> None:
    as_root()
    file = a_file(tmp_path, b"a")
    os.chown(file, 1234, 2345)
    write_document(read_document(str(file)), "b")
    assert (file.read_text(), file.stat().st_uid, file.stat().st_gid) == ("b", 1234, 2345)


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody may write to; pytest's own are below folders that only their owner may enter."""
    as_root()
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        yield Path(folder)


def test_a_file_of_another_owner_is_refused(shared: Path) -> None:
    file = a_file(shared, b"a")
    file.chmod(0o666)
    document = read_document(str(file))
    with as_user(1234, 2345), pytest.raises(DocumentError, match="belongs to user 0 and group 0, and would no longer"):
        write_document(document, "b")
    assert (file.read_text(), names(shared)) == ("a", ["text.txt"])


@pytest.mark.parametrize("closed", ["file", "folder"])
def test_a_file_or_folder_that_may_only_be_read_is_left_as_it_is(shared: Path, closed: str) -> None:
    file = a_file(shared, b"a")
    os.chown(file, 1234, 2345)
    if closed == "file":
        file.chmod(0o444)
    else:
        shared.chmod(0o755)
    document = read_document(str(file))
    with as_user(1234, 2345), pytest.raises(DocumentError, match=r"text\.txt cannot be written: Permission denied"):
        write_document(document, "b")
    assert (file.read_text(), names(shared)) == ("a", ["text.txt"])


def test_a_file_with_two_names_is_refused(tmp_path: Path) -> None:
    file = a_file(tmp_path, b"a")
    (tmp_path / "other").hardlink_to(file)
    with pytest.raises(DocumentError, match=r"text\.txt has 2 hard links, and only this one would be rewritten"):
        write_document(read_document(str(file)), "b")
    assert (tmp_path / "other").read_text() == "a"


def test_a_file_whose_name_is_as_long_as_names_can_be_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / ("n" * 255)
    file.write_bytes(b"a")
    write_document(read_document(str(file)), "b")
    assert (file.read_text(), names(tmp_path)) == ("b", [file.name])


def test_without_space_the_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = a_file(tmp_path, b"a")
    document = read_document(str(file))
    monkeypatch.setattr(os, "fsync", failing(errno.ENOSPC))
    with pytest.raises(DocumentError, match=r"text\.txt cannot be written: No space left on device"):
        write_document(document, "b")
    assert (file.read_text(), names(tmp_path)) == ("a", ["text.txt"])


@pytest.mark.parametrize("make", [lambda path: path.mkdir(), os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_regular_file_is_refused(tmp_path: Path, make: Callable[[Path], object]) -> None:
    path = tmp_path / "thing"
    make(path)
    with pytest.raises(DocumentError, match="thing is no regular file"):
        write_document(Document(name=str(path), text=""), "b")


def test_links_that_lead_nowhere_are_named(tmp_path: Path) -> None:
    loop, dangling = tmp_path / "loop", tmp_path / "dangling"
    loop.symlink_to("loop")
    dangling.symlink_to("nothing")
    with pytest.raises(DocumentError, match="loop cannot be read: Too many levels of symbolic links"):
        read_document(str(loop))
    with pytest.raises(DocumentError, match="dangling: no such file"):
        read_document(str(dangling))
    for path in (loop, dangling):
        with pytest.raises(DocumentError, match=f"{path.name} cannot be written|{path.name}: no such file"):
            write_document(Document(name=str(path), text=""), "b")


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
    with pytest.raises(TemplateError, match=f"(there is no line|there are no lines) {wanted}: the text has 2 lines"):
        lines_span("a\nb\n", wanted)


def test_what_names_no_span_is_refused() -> None:
    with pytest.raises(TemplateError, match="lines 'x': give the first and the last"):
        lines_span("a", "x")
    with pytest.raises(TemplateError, match="characters '5': give where"):
        characters_span("5")
    # Python reads no number of so many digits.
    with pytest.raises(TemplateError, match="lines '99"):
        lines_span("a", "9" * 5000)
    with pytest.raises(TemplateError, match="characters '0:99"):
        characters_span("0:" + "9" * 5000)
    assert characters_span("5:9") == (5, 9)
